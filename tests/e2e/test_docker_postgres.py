"""A real PostgreSQL in a container, its data in a Flocker volume."""
import re
import signal
import threading
import time

import pytest

from conftest import start_docker
from paths import wait_for
from replay import mount_points, wait_until_unmounted

pytestmark = [pytest.mark.docker("20"), pytest.mark.postgres]


@pytest.fixture
def host(hosts, flocker_binary):
    host = hosts(network=hosts.network())
    host.start_flocker(flocker_binary)
    start_docker(host, "20")
    host.load_image("postgres")
    return host


def start(host, *options):
    host.docker("volume", "create", "-d", "flocker", *[word for option in options for word in ("-o", option)], "db")
    host.docker("run", "-d", "--name", "db", "-v", "db:/var/lib/postgresql/data", "postgres")
    wait_until_ready(host)


def wait_until_ready(host):
    try:
        wait_for("PostgreSQL", lambda: sql(host, "select 1").stdout.strip() == "1", 60)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {host.docker('logs', '--tail', '20', 'db')}") from None


def sql(host, text, check=False):
    return host.docker("exec", "db", "psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-tAc", text, check=check)


def query(host, text):
    return sql(host, text, check=True).stdout.strip()


class Load(threading.Thread):
    """Inserts 1, 2, 3, ..., each in its own transaction, until told to stop; knows what was acknowledged."""

    def __init__(self, host):
        super().__init__()
        self.host, self.over, self.acknowledged = host, threading.Event(), 0
        query(host, "create table load (n bigint primary key, filler text)")

    def run(self):
        number = 0
        while not self.over.is_set():
            number += 1
            if sql(self.host, f"insert into load select {number}, repeat('x', 1000)").returncode == 0:
                self.acknowledged = number

    def stop(self):
        self.over.set()
        self.join()
        return self.acknowledged


@pytest.mark.parametrize("options", [[], ["nocow=true"]], ids=["cow", "nocow"])
def test_crashes_of_flocker_under_load(host, options):
    start(host, *options)
    point, = mount_points(host)
    flags = host.run(["lsattr", "-d", f"{point}/base"]).stdout.split()[0]
    assert ("C" in flags) == bool(options)
    load = Load(host)
    load.start()
    try:
        for role in ("agent", "control", "agent"):
            before = load.acknowledged
            host.kill_flocker(role)
            wait_for("inserts without Flocker", lambda before=before: load.acknowledged > before + 2, 20)
            host.flocker("up")
            wait_for("inserts", lambda before=before: load.acknowledged > before + 4, 20)
        acknowledged = load.acknowledged
    finally:
        last = load.stop()
    assert last >= acknowledged
    assert query(host, "select count(*), max(n) from load") == f"{last}|{last}"
    host.docker("restart", "-t", "30", "db")
    wait_until_ready(host)
    assert query(host, "select count(*), max(n) from load") == f"{last}|{last}"
    host.docker("kill", "--signal", "KILL", "db")
    wait_until_unmounted(host)
    host.docker("start", "db")
    wait_until_ready(host)
    assert query(host, "select count(*), max(n), sum(length(filler)) from load") == f"{last}|{last}|{last * 1000}"
    log = host.docker("logs", "db").stderr
    assert not re.search("PANIC|could not|corrupt|invalid page", log), log
    host.docker("rm", "-f", "db")
    wait_until_unmounted(host)


@pytest.mark.parametrize("options", [[], ["nocow=true"]], ids=["cow", "nocow"])
def test_a_full_volume(host, options):
    """The limit is a clear error in the container, which has its rows after a restart with more room.

    The database itself may end when its WAL finds no room either, as on any full disk.
    """
    start(host, "size=128M", *options)
    query(host, "alter system set max_wal_size = '32MB'")
    query(host, "select pg_reload_conf()")
    query(host, "create table kept as select generate_series(1, 1000) as n")
    query(host, "create unlogged table big (filler text)")
    query(host, "alter table big alter filler set storage plain")
    for _ in range(100):
        done = sql(host, "insert into big select repeat('x', 7000) from generate_series(1, 500)")
        if done.returncode:
            break
    said = done.stderr + host.docker("logs", "db").stderr  # the one, if this statement's process met it; the other, if another's did
    assert re.search("could not extend file|No space left on device|Disk quota exceeded", said), said
    host.docker("stop", "-t", "30", "db")
    wait_until_unmounted(host)
    status, content = host.ask("/run/flocker/control.sock", "PATCH", "/v2/volumes/db?wait=10", b'{"size":"256M"}')
    assert status == 200, content
    host.docker("start", "db")
    wait_until_ready(host)
    assert query(host, "select count(*) from kept") == "1000"
    query(host, "insert into big select repeat('x', 7000) from generate_series(1, 500)")


def test_a_frozen_agent_is_not_noticed(host):
    """A container's I/O never passes through Flocker."""
    start(host)
    load = Load(host)
    load.start()
    try:
        host.kill_flocker("agent", signal.SIGSTOP)
        host.kill_flocker("control", signal.SIGSTOP)
        time.sleep(0.2)
        before = load.acknowledged
        wait_for("inserts", lambda: load.acknowledged > before + 5)
    finally:
        host.kill_flocker("agent", signal.SIGCONT)
        host.kill_flocker("control", signal.SIGCONT)
        last = load.stop()
    assert query(host, "select count(*) from load") == str(last)
