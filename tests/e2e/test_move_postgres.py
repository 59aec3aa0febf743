"""A PostgreSQL under pgbench load moves back and forth between two hosts, and loses no transaction that it has committed."""
import re
import subprocess
import time

import pytest

from cluster import make_cluster, node_of
from paths import wait_for
from test_move import nothing_left, settled

ROUNDS = 10
DATA = ["-v", "db:/var/lib/postgresql/data", "--volume-driver=flocker"]


@pytest.fixture(scope="module", name="pair")
def pair_of_module(module_hosts, flocker_binary):
    one, two = make_cluster(module_hosts, flocker_binary, 2)
    for host in (one, two):
        host.start_docker("20")
        host.load_image("postgres")
    return one, two


def serve(host):
    """Runs the database there; an engine that is told that the volume is on its way tries again."""
    def started():
        done = host.docker("run", "-d", "--name", "db", *DATA, "postgres", check=False)
        if done.returncode:
            host.docker("rm", "-f", "db", check=False)
            assert "try again" in done.stderr, done.stderr
        return done.returncode == 0

    wait_for("the volume", started, 60, 0.2)
    wait_for("PostgreSQL", lambda: sql(host, "select 1") == "1", 60)


def sql(host, text):
    return host.docker("exec", "db", "psql", "-U", "postgres", "-tAc", text, check=False).stdout.strip()


class Load:
    """pgbench in the database's container. Each transaction that it has seen committed is a line of its log."""

    def __init__(self, host, name):
        self.name = name
        self.process = host.popen(["docker", "exec", "db", "sh", "-c", "cd /tmp && exec pgbench -U postgres -n -c 4 -T 600 --progress=1 postgres"],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self):
        """How many transactions it was told are committed, at least: the progress of each whole second."""
        _, progress = self.process.communicate(timeout=60)
        rates = re.findall(r"progress: [\d.]+ s, ([\d.]+) tps", progress)
        return sum(float(rate) for rate in rates)


def test_moved_back_and_forth_under_load(pair):
    one, two = pair
    serve(one)
    one.docker("exec", "db", "pgbench", "-U", "postgres", "-q", "-i", "-s", "2", "postgres", timeout=120)
    committed = 0.0
    for number in range(ROUNDS):
        here, there = (one, two) if number % 2 == 0 else (two, one)
        load = Load(here, f"round {number}")
        time.sleep(2.5)
        before = int(sql(here, "select count(*) from pgbench_history"))
        if number % 3 == 0:
            here.docker("stop", "-t", "30", "db")
        elif number % 3 == 1:
            here.docker("kill", "db")
        else:
            one.flocker("volume", "move", "db", node_of(one, there)["id"], "--force", "--wait", timeout=120)
        committed += load.end()
        here.docker("rm", "-f", "db")
        serve(there)
        count = int(sql(there, "select count(*) from pgbench_history"))
        assert count >= before and count >= int(committed * 0.99), (number, before, committed, count)
        sums = sql(there, "select (select sum(delta) from pgbench_history), (select sum(abalance) from pgbench_accounts), "
                          "(select sum(bbalance) from pgbench_branches), (select sum(tbalance) from pgbench_tellers)").split("|")
        assert len(set(sums)) == 1, sums
        assert settled(one, "db")["owner"] == node_of(one, there)["id"]
    assert not re.search("PANIC|corrupt|invalid page", there.docker("logs", "db").stderr)
    there.docker("rm", "-f", "db")
    nothing_left(one, two)
