"""The test hosts themselves: engines run in them, they do not see each other, and nothing is left of them."""
import os
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import start_docker
from host import FLOCKER_SOCKET, Host, inode, loops, mounts
from paths import wait_for
from recorder import Recorder

ENGINES = [pytest.param(version, marks=pytest.mark.docker(version)) for version in ("20", "26")]
DATA = ["file", "owned"]


@pytest.mark.parametrize("version", ENGINES)
def test_docker_runs_a_container(host, version):
    start_docker(host, version)
    host.load_image("busybox")
    assert host.docker("run", "--rm", "busybox", "ls", "/data").stdout.split() == DATA
    assert host.docker("version", "--format", "{{.Server.Version}}").stdout.startswith(version + ".")
    host.stop_docker()
    assert host.processes() == {}


@pytest.mark.podman
def test_podman_runs_a_container(host):
    host.load_image("busybox", "podman")
    assert host.podman("run", "--rm", "busybox", "ls", "/data").stdout.split() == DATA
    assert wait_for("conmon to end", lambda: not host.processes())


@pytest.mark.parametrize("version", ENGINES)
def test_engine_asks_the_plugin(host, version):
    """The recorded sequences of the engine notes: what the fixture shows is what a driver will see."""
    plugin = Recorder(host)
    start_docker(host, version)
    host.load_image("busybox")
    host.docker("volume", "create", "-d", "recorded", "vol", "-o", "a=b")
    assert [call for call in plugin.calls() if " " in call] == ["Get vol", "Create vol"]
    assert {"Name": "vol", "Opts": {"a": "b"}} in [entry["body"] for entry in plugin.all()]
    host.docker("create", "--name", "cc", "-v", "vol:/data", "busybox", "sleep", "1000")
    assert plugin.calls() == ["Get vol", "Get vol", "Mount vol #1", "Get vol", "Unmount vol #1"]
    assert sorted(os.listdir(host.path("/flocker/vol"))) == DATA
    assert host.path("/flocker/vol/owned").stat().st_uid == 1000
    host.docker("start", "cc")
    assert plugin.calls() == ["Get vol", "Mount vol #2"]
    host.docker("kill", "cc")
    assert wait_for("the unmount", lambda: plugin.calls() or None) == ["Get vol", "Unmount vol #2"]
    host.docker("rm", "cc")
    host.docker("volume", "rm", "vol")
    assert plugin.calls() == ["Get vol", "Get vol", "Remove vol"]


def test_recorder_forwards(host):
    """Two recorders in a row: the first forwards, the second answers; both see the same."""
    second = Recorder(host, "second")
    first = Recorder(host, "first", forward=second.socket)
    host.load_image("busybox", "podman")
    host.podman("volume", "create", "--driver", "first", "vol")
    host.podman("run", "--rm", "-v", "vol:/mnt", "busybox", "touch", "/mnt/file")
    assert host.path("/flocker/vol/file").exists()
    calls = first.calls()
    assert calls == second.calls()
    assert [call for call in calls if call not in ("Activate", "Get vol")] == ["Create vol", "Mount vol #1", "Unmount vol #1"]
    assert [entry["status"] for entry in first.all() if entry["call"] == "VolumeDriver.Mount"] == [200]


@pytest.mark.docker("20")
@pytest.mark.postgres
def test_postgres_keeps_its_data_over_a_power_cut(host):
    start_docker(host, "20")
    host.load_image("postgres")
    boot = host.path("/proc/sys/kernel/random/boot_id").read_text()

    def sql(text):
        return host.docker("exec", "db", "psql", "-U", "postgres", "-tAc", text, check=False).stdout.strip()

    host.docker("run", "-d", "--name", "db", "-v", "db:/var/lib/postgresql/data", "postgres")
    wait_for("PostgreSQL", lambda: sql("select 1") == "1", 30)
    sql("create table t as select generate_series(1, 1000) as n")
    host.reboot()
    assert host.path("/proc/sys/kernel/random/boot_id").read_text() != boot
    start_docker(host, "20")
    host.docker("start", "db")
    wait_for("PostgreSQL", lambda: sql("select 1") == "1", 30)
    assert sql("select count(*) from t") == "1000"


@pytest.mark.docker("20")
def test_two_hosts_do_not_see_each_other(hosts):
    one, two = hosts("one", docker="20"), hosts("two", docker="20")
    one.load_image("busybox")
    one.docker("run", "-d", "--name", "cc", "busybox", "sleep", "1000")
    one.run(["mount", "-t", "tmpfs", "only-one", "/flocker"])
    assert two.docker("ps", "-aq").stdout == two.docker("images", "-q").stdout == ""
    assert not [line for line in two.processes().values() if "sleep" in line]
    for place in (two.path("/proc/1/mountinfo"), Path("/proc/self/mountinfo")):
        assert "only-one" not in place.read_text()
    assert two.run(["hostname"]).stdout == "two\n"
    two.docker("info")
    one.kill_docker()
    assert one.docker("ps", check=False).returncode
    assert [line for line in one.processes().values() if line == "sleep 1000"]
    start_docker(one, "20", args=["--live-restore"])
    two.docker("info")


def test_network_can_be_cut(hosts):
    network = hosts.network()
    one, two = hosts("one", network=network), hosts("two", network=network)
    ping = ["busybox", "ping", "-c", "1", "-W", "1", network.address(two)]
    wait_for("the first answer", lambda: one.run(ping, check=False).returncode == 0)
    network.cut(two)
    assert one.run(ping, check=False).returncode
    network.mend(two)
    wait_for("the answer", lambda: one.run(ping, check=False).returncode == 0)
    two.reboot()
    wait_for("the answer after a reboot", lambda: one.run(ping, check=False).returncode == 0)
    for direction in ("in", "out"):
        network.cut_one_way(two, direction)
        assert one.run(ping, check=False).returncode
        network.deliver(two)
        assert one.run(ping, check=False).returncode == 0
    network.lose(two, 0.5)  # a ping comes back with a chance of 1 in 4
    answers = one.run(["busybox", "ping", "-c", "40", "-i", "0.01", "-W", "1", network.address(two)], check=False).stdout.count("ttl=")
    assert 0 < answers < 40, answers
    network.deliver(two)


def test_what_a_host_writes_stays_there(host):
    host.run(["sh", "-c", "mkdir -p /usr/lib/x; echo 1 >/etc/flocker-was-here; echo 2 >/var/lib/flocker/disk; echo 3 >/run/r"])
    for file in ("/usr/lib/x", "/etc/flocker-was-here", "/var/lib/flocker/disk", "/run/r"):
        assert host.path(file).exists() and not Path(file).exists()
    host.reboot()
    assert host.path("/var/lib/flocker/disk").read_text() == "2\n"
    assert not host.path("/etc/flocker-was-here").exists()


def test_mounts_are_shared_as_under_systemd(host):
    host.run(["mount", "-t", "tmpfs", "shared-one", "/flocker"])
    assert " shared:" in host.run(["grep", "shared-one", "/proc/self/mountinfo"]).stdout


@pytest.mark.docker("20")
def test_close_leaves_nothing(tmp_path):
    host = Host("gone", tmp_path / "gone")
    start_docker(host, "20")
    host.load_image("busybox")
    container = host.docker("run", "-d", "busybox", "sleep", "1000").stdout.strip()
    host.run(["sh", "-c", "truncate -s 128M /var/lib/flocker/pool && mkfs.btrfs -q /var/lib/flocker/pool && "
              "mount -o loop /var/lib/flocker/pool /flocker && losetup -f /var/lib/flocker/pool"])
    host.popen(["sh", "-c", "trap '' HUP INT TERM; sleep 1000 & sleep 1001"], stdout=subprocess.DEVNULL)
    pool = inode(host.path("/var/lib/flocker/pool"))
    inside = set(processes_of(host))
    assert len(host.loops()) == 2 and len(inside) > 5 and groups(container)
    host.close()
    assert pool not in loops().values() and not groups(container)
    assert not [line for line in mounts() if str(tmp_path) in line]
    assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]
    assert os.listdir(tmp_path / "gone") == ["log"]


def test_hosts_end_with_the_test_that_made_them(tmp_path):
    """kill -9 of the test program: the kernel ends its hosts."""
    program = (f"from host import Host; host = Host('orphan', '{tmp_path}/host'); host.popen(['sleep', '1000']); "
               "print(host.holder, flush=True); input()")
    with subprocess.Popen(["/usr/bin/python3", "-c", program], cwd=Path(__file__).parent, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as test:
        holder = test.stdout.readline().strip()
        test.kill()
    wait_for("the end of the host", lambda: not Path(f"/proc/{holder}").exists())


def test_signals_and_time_limits_reach_the_process(host):
    process = host.popen(["sleep", "1000"])
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "1000"], timeout=0.2)
    assert host.processes() == {}
    assert host.run(["cat"], input="text").stdout == "text"
    assert host.ask(FLOCKER_SOCKET, "POST", "/Plugin.Activate") is None


def processes_of(host):
    """Their pids outside: who has, with the same number one level down, the mount namespace that the host's /proc shows."""
    inside = {(entry.name, mount_namespace(entry)) for entry in host.path("/proc").iterdir() if entry.name.isdigit()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (number_inside(entry), mount_namespace(entry)) in inside:
            yield int(entry.name)


def mount_namespace(process):
    try:
        return os.readlink(process / "ns/mnt")
    except OSError:
        return "none"


def number_inside(process):
    try:
        numbers = next(line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:")).split()
    except OSError:
        return None
    return numbers[2] if len(numbers) > 2 else None


def groups(container):
    return list(Path("/sys/fs/cgroup").glob(f"*/docker/{container}"))
