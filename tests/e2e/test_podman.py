"""Podman's containers on Flocker volumes. No daemon stands for it: each command is a process of its own, with 5 s of patience."""
import json
import signal
import subprocess
import time

import pytest

from conftest import start_docker
from paths import wait_for
from replay import PODMAN_ID, SOCKET, Engine, mount_points, references, wait_until_unmounted

pytestmark = pytest.mark.podman
WRITE = "i=0; while :; do i=$((i+1)); echo $i >>/v/log || exit 9; usleep 20000; done"
SECOND = ["--root=/var/lib/containers/second", "--runroot=/run/containers/second"]


def ready(hosts, flocker_binary):
    host = hosts(network=hosts.network())
    host.start_flocker(flocker_binary)
    host.load_image("busybox", "podman")
    return host


@pytest.fixture(scope="module")
def one(module_hosts, flocker_binary):
    """A host that tests leave as they found it."""
    return ready(module_hosts, flocker_binary)


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "one" in request.fixturenames:
        host = request.getfixturevalue("one")
        host.podman("rm", "-fa", "-t", "0")
        host.podman("volume", "reload")
        host.podman("volume", "rm", "-fa")
        wait_until_unmounted(host)
        assert names(host) == []


def create(host, name="vol", *args, **options):
    return host.podman("volume", "create", "--driver=flocker", *args, name, **options)


def run(host, *args, volume="vol:/v", **options):
    return host.podman("run", "-v", volume, *args, **options)


def sh(host, command, *args, **options):
    return run(host, "--rm", *args, "busybox", "sh", "-c", command, **options).stdout


def ask(host, call, **body):
    status, content = host.ask(SOCKET, "POST", f"/VolumeDriver.{call}", json.dumps(body).encode())
    return status, json.loads(content)


def names(host):
    return sorted(volume["Name"] for volume in ask(host, "List")[1]["Volumes"])


def count(host, name="vol"):
    return ask(host, "Get", Name=name)[1]["Volume"]["Status"]["references"]


def refused(done, *texts):
    assert done.returncode and all(text.lower() in done.stderr.lower() for text in texts), done


def writes(host, name):
    def lines():
        return host.podman("exec", name, "cat", "/v/log").stdout.split()

    before = len(lines())
    wait_for("the container to write", lambda: len(lines()) > before + 2)
    found = lines()
    return found == [str(number) for number in range(1, len(found) + 1)]


def test_volume_commands(one):
    create(one, "vol", "-o", "size=100M", "-o", "profile=gold", "--label", "a=b")
    assert "flocker vol" in [" ".join(line.split()) for line in one.podman("volume", "ls", "--noheading").stdout.splitlines()]
    seen = json.loads(one.podman("volume", "inspect", "vol").stdout)[0]
    assert (seen["Driver"], seen["Labels"]) == ("flocker", {"a": "b"})
    assert (seen["Status"]["size"], seen["Status"]["profile"]) == (100 << 20, "gold")
    refused(create(one, check=False), "already exists")
    one.podman("volume", "rm", "vol")
    assert names(one) == []
    refused(one.podman("volume", "rm", "vol", check=False), "no such volume")


def test_options_podman_s_way(one):
    """-o o=... comes with upper-case shadows of its parts."""
    create(one, "vol", "-o", "o=size=128M,uid=1000,gid=1000", "-o", "mode=0700")
    assert ask(one, "Get", Name="vol")[1]["Volume"]["Status"]["size"] == 128 << 20
    assert sh(one, "stat -c '%u %g %a' /v; echo x >/v/f", "-u", "1000") == "1000 1000 700\n"


def test_errors_are_shown(one):
    """Podman looks at the status only, and shows Err."""
    refused(create(one, "vol", "-o", "color=red", check=False), "color", "unknown option")
    refused(create(one, "vol", "-o", "size=10X", check=False), "10X")
    assert names(one) == [] and "vol" not in one.podman("volume", "ls", "-q").stdout
    create(one)
    assert one.ask("/run/flocker/control.sock", "DELETE", "/v2/volumes/vol")[0] == 200
    refused(run(one, "--rm", "busybox", "true", check=False), "no such volume: vol")
    assert mount_points(one) == [] and references(one) == {}
    one.podman("volume", "reload")
    create(one)
    assert sh(one, "ls /v") == ""


def test_run(one):
    create(one)
    sh(one, "echo hello >/v/f")
    wait_until_unmounted(one)
    assert sh(one, "cat /v/f") == "hello\n"
    assert sh(one, "touch /v/g 2>/dev/null || cat /v/f", volume="vol:/v:ro") == "hello\n"
    assert sh(one, "echo x >/v/h && stat -c %u /v/h", "-u", "1000") == "1000\n"


def test_copy_up(one):
    create(one)
    assert sh(one, "cd /data; stat -c '%n %u %g %a' file owned; cat owned/file", volume="vol:/data") == \
        "file 0 0 644\nowned 1000 1000 750\nof user 1000\n"
    sh(one, "rm -r /data/owned", volume="vol:/data")
    assert sh(one, "ls /data", volume="vol:/data") == "file\n"


def test_sharing(one):
    create(one)
    run(one, "-d", "--name", "aa", "busybox", "sh", "-c", WRITE)
    run(one, "-d", "--name", "bb", "busybox", "sleep", "1000")
    assert count(one) == 1  # Podman counts for itself
    wait_for("what the other wrote", lambda: one.podman("exec", "bb", "cat", "/v/log").stdout)
    refused(one.podman("volume", "rm", "vol", check=False), "being used")
    status, reply = ask(one, "Remove", Name="vol")
    assert status == 500 and "in use" in reply["Err"]
    one.podman("stop", "-t", "0", "bb")
    assert writes(one, "aa")
    one.podman("restart", "-t", "0", "aa")
    one.podman("rm", "-f", "-t", "0", "aa")
    wait_until_unmounted(one)


def test_reload(one):
    """Volumes that others made are imported, those that others removed are dropped."""
    for name in ("one", "two"):
        assert ask(one, "Create", Name=name)[0] == 200
    one.podman("volume", "reload")
    assert {"one", "two"} <= set(one.podman("volume", "ls", "-q").stdout.split())
    sh(one, "echo x >/v/f", volume="one:/v")
    wait_until_unmounted(one)
    assert ask(one, "Remove", Name="two")[0] == 200
    one.podman("volume", "reload")
    assert "two" not in one.podman("volume", "ls", "-q").stdout.split()
    assert sh(one, "cat /v/f", volume="one:/v") == "x\n"


def test_prune(one):
    """Unlike Docker's, Podman's prune does remove volumes of plugins: to the trash."""
    create(one, "used")
    create(one, "unused")
    run(one, "-d", "--name", "cc", "busybox", "sleep", "1000", volume="used:/v")
    one.podman("volume", "prune", "-f")
    assert names(one) == ["used"]
    trashed = json.loads(one.ask("/run/flocker/control.sock", "GET", "/v2/volumes?all=1")[1])
    assert ("unused", "trashed") in [(volume["name"], volume["state"]) for volume in trashed]


def test_two_stores(one):
    """Root's and another store use one volume, with the same mount ID: it stays until both have let go of it."""
    archive_of = one.podman("save", "-o", "/tmp/busybox.tar", "busybox")
    assert archive_of.returncode == 0
    one.podman(*SECOND, "load", "-i", "/tmp/busybox.tar")
    create(one)
    one.podman(*SECOND, "volume", "create", "--driver=flocker", "vol")
    run(one, "-d", "--name", "cc", "busybox", "sh", "-c", WRITE)
    one.podman(*SECOND, "run", "-d", "--name", "dd", "-v", "vol:/v", "busybox", "sleep", "1000")
    assert count(one) == 2
    one.podman(*SECOND, "rm", "-f", "-t", "0", "dd")
    assert count(one) == 1 and len(mount_points(one)) == 1 and writes(one, "cc")
    one.podman("rm", "-f", "-t", "0", "cc")
    wait_until_unmounted(one)
    one.podman(*SECOND, "volume", "rm", "vol")
    assert names(one) == []
    one.podman("volume", "rm", "vol", check=False)


def test_killed_commands(hosts, flocker_binary):
    """kill -9 of podman at some moment of a start: what it leaves hinders no other container, and is named while it lasts."""
    host = ready(hosts, flocker_binary)
    create(host)
    for delay in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
        command = host.popen(["podman", "run", "-d", "-v", "vol:/v", "busybox", "sleep", "1000"], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        time.sleep(delay)
        command.kill()
        command.wait(10)
    assert sh(host, "echo x >>/v/f; cat /v/f") == "x\n"
    # Podman itself may find a mount of the container that it was killed in the middle of still busy: it is asked again.
    wait_for("podman to remove what was killed", lambda: host.podman("rm", "-fa", "-t", "0", check=False).returncode == 0)
    orphans = {pid: line for pid, line in host.processes().items() if "runc" in line and "init" in line or line.startswith("sleep")}
    if orphans:  # containers that Podman has forgotten: they have the volume all the same
        status, reply = ask(host, "Remove", Name="vol")
        assert status == 500 and "in use" in reply["Err"] and sh(host, "cat /v/f") == "x\n"
        for pid in orphans:
            host.run(["kill", "-9", str(pid)], check=False)
    with Engine(host, "podman") as engine:
        wait_for("the end of the orphans", lambda: engine.call("Remove", "vol")[0] == 200)
    wait_until_unmounted(host)


def test_a_container_lives_on_after_the_kill_of_its_command(one):
    create(one)
    command = one.popen(["podman", "run", "--name", "cc", "-v", "vol:/v", "busybox", "sh", "-c", WRITE], stdout=subprocess.DEVNULL)
    wait_for("the container", lambda: one.podman("exec", "cc", "cat", "/v/log", check=False).stdout)
    command.kill()
    command.wait(10)
    assert writes(one, "cc") and count(one) == 1
    one.podman("rm", "-f", "-t", "0", "cc")
    wait_until_unmounted(one)


def test_the_agent_goes_and_comes(one):
    create(one)
    run(one, "-d", "--name", "cc", "busybox", "sh", "-c", WRITE)
    for _ in range(2):
        one.kill_flocker("agent")
        one.kill_flocker("control")
        assert writes(one, "cc")
        one.flocker("up")
    time.sleep(1.5)  # over the look at doubtful references after a start
    assert count(one) == 1 and writes(one, "cc")
    one.podman("stop", "-t", "0", "cc")
    wait_until_unmounted(one)


def test_stuck_storage_is_reported_in_time(one):
    """Within Podman's 5 s, with a reason; a retry finds it done."""
    create(one, "known")
    one.run(["fsfreeze", "--freeze", "/var/lib/flocker/pool"])
    try:
        begin = time.monotonic()
        refused(create(one, check=False), "vol", "try again")
        assert time.monotonic() - begin < 5
        assert "known" in one.podman("volume", "ls", "-q").stdout
    finally:
        one.run(["fsfreeze", "--unfreeze", "/var/lib/flocker/pool"])
    wait_for("the retry", lambda: not create(one, check=False).returncode)
    sh(one, "echo x >/v/f")


def test_a_mount_that_podman_does_not_wait_for(one):
    """Podman gives up after 5 s and never sends the Unmount."""
    create(one)
    one.kill_flocker("agent", signal.SIGSTOP)
    try:
        with Engine(one, "podman") as engine:
            engine.send("VolumeDriver.Mount", {"Name": "vol", "ID": PODMAN_ID}, leave=True)
    finally:
        one.kill_flocker("agent", signal.SIGCONT)
    assert ask(one, "Get", Name="vol")[0] == 200
    wait_until_unmounted(one)


def test_power_cut(hosts, flocker_binary):
    """Podman sets its counters to 0 after a boot, without an Unmount."""
    host = ready(hosts, flocker_binary)
    create(host)
    run(host, "-d", "--name", "cc", "busybox", "sh", "-c", WRITE)
    wait_for("something written", lambda: host.podman("exec", "cc", "cat", "/v/log").stdout)
    host.podman("exec", "cc", "sync")
    host.reboot()
    host.start_flocker(flocker_binary)
    host.podman("start", "cc")
    assert count(host) == 1 and host.podman("exec", "cc", "head", "-n1", "/v/log").stdout == "1\n"
    host.podman("rm", "-f", "-t", "0", "cc")
    wait_until_unmounted(host)


@pytest.mark.docker("20")
def test_docker_and_podman_share_a_volume(hosts, flocker_binary):
    host = ready(hosts, flocker_binary)
    start_docker(host, "20")
    host.load_image("busybox")
    create(host)
    run(host, "-d", "--name", "cc", "busybox", "sh", "-c", WRITE)
    host.docker("run", "-d", "--name", "dd", "-v", "vol:/v", "--volume-driver=flocker", "busybox", "sleep", "1000")
    assert count(host) == 2
    assert host.docker("exec", "dd", "head", "-n1", "/v/log").stdout == "1\n"
    host.docker("rm", "-f", "dd")
    wait_for("one reference", lambda: count(host) == 1)
    refused(host.docker("volume", "rm", "vol", check=False), "in use")
    assert writes(host, "cc")
    host.podman("rm", "-f", "-t", "0", "cc")
    wait_until_unmounted(host)
    host.docker("volume", "rm", "vol")
    assert names(host) == []
