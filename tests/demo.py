"""Shows a volume that follows its container from host to host. See tools/demo."""
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

from cluster import make_cluster, node_of  # noqa: E402  pylint: disable=wrong-import-position
from conftest import HostMaker  # noqa: E402  pylint: disable=wrong-import-position
from paths import wait_for  # noqa: E402  pylint: disable=wrong-import-position

RUN = ["run", "-d", "--name", "db", "-v", "db:/var/lib/postgresql/data", "--volume-driver=flocker", "postgres"]
ROWS = 100000


def say(text):
    print(f"\n# {text}", flush=True)


def show(host, *words):
    print(f"{host.name}$ {' '.join(str(word) for word in words)}", flush=True)


def docker(host, *words):
    show(host, "docker", *words)
    return host.docker(*words, timeout=120).stdout


def serve(host):
    docker(host, *RUN)
    wait_for("PostgreSQL", lambda: sql(host, "select 1") == "1", 60)


def sql(host, text):
    return host.docker("exec", "db", "psql", "-U", "postgres", "-tAc", text, check=False).stdout.strip()


def main(binary):
    with tempfile.TemporaryDirectory(prefix="flocker-demo-") as folder:
        maker = HostMaker(Path(folder))
        try:
            play(maker, binary)
        finally:
            maker.close()


def play(maker, binary):
    say("Two hosts on one network. The first has the control service; the second joins it by a token.")
    one, two = make_cluster(maker, binary, 2)
    for host in (one, two):
        host.start_docker("20")
        host.load_image("postgres")
    show(one, "flocker", "node", "ls")
    print(one.flocker("node", "ls").stdout, end="")
    say("A PostgreSQL on host1, with its data in volume db, on host1's disk.")
    serve(one)
    sql(one, f"create table rows as select n, md5(n::text) from generate_series(1, {ROWS}) as n")
    before = sql(one, "select count(*), md5(string_agg(md5, '' order by n)) from rows")
    print(f"host1: rows|digest = {before}")
    say("It is stopped there, and started on host2.")
    docker(one, "rm", "-f", "db")
    begin = time.monotonic()
    serve(two)
    after = sql(two, "select count(*), md5(string_agg(md5, '' order by n)) from rows")
    print(f"host2: rows|digest = {after}, {time.monotonic() - begin:.1f} s after the start")
    print(one.flocker("volume", "ls").stdout, end="")
    if after != before or one.flocker_json("volume", "inspect", "db")[0]["owner"] != node_of(one, two)["id"]:
        sys.exit("demo: that is not what was written")
    docker(two, "rm", "-f", "db")
    say("All its rows are there. Both hosts are gone now, with all that was in them.")


if __name__ == "__main__":
    main(sys.argv[1])
