"""Docker's containers on Flocker volumes: what users do, and what goes wrong around it. Each test with both engines."""
import json
import signal
import subprocess
import threading
import time

import pytest

import recorder
from conftest import start_docker
from host import DOCKER_SOCKET
from paths import wait_for
from recorder import Recorder
from replay import SOCKET, mount_points, references, start_agent, wait_until_unmounted

VERSIONS = [pytest.param(version, marks=pytest.mark.docker(version)) for version in ("20", "26")]
WRITE = "i=0; while :; do i=$((i+1)); echo $i >>/v/log || exit 9; usleep 20000; done"
SIBLING = "type=volume,source=sibling,target=/s,volume-driver=broken"
API = "/run/flocker/control.sock"


def ready(hosts, flocker_binary, version, *args, name="one"):
    host = hosts(name, network=hosts.network())
    host.start_flocker(flocker_binary)
    start_docker(host, version, args=args)
    host.load_image("busybox")
    return host


@pytest.fixture(scope="module", params=VERSIONS)
def one(request, module_hosts):
    """A host that tests leave as they found it."""
    return ready(module_hosts, request.getfixturevalue("flocker_binary"), request.param, name=f"docker{request.param}")


# Other drivers, which run as long as the engine that has once asked them: one that is away would cost it 15 s for each command.
@pytest.fixture(scope="module")
def recorded(one):
    return Recorder(one, "recorded", forward=SOCKET)


@pytest.fixture(scope="module")
def broken(one):
    """Another driver, whose volumes are folders below /tmp/broken."""
    one.run(["mkdir", "/tmp/broken"])
    path = "/run/docker/plugins/broken.sock"
    one.popen(["/usr/bin/python3", recorder.__file__, path, "/tmp/broken.jsonl", "stand-in", "/tmp/broken"])
    wait_for("the other driver", lambda: one.ask(path, "POST", "/Plugin.Activate"))


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "one" in request.fixturenames:
        host = request.getfixturevalue("one")
        containers = host.docker("ps", "-aq").stdout.split()
        if containers:
            host.docker("rm", "-f", *containers)
        volumes = host.docker("volume", "ls", "-q").stdout.split()
        if volumes:
            host.docker("volume", "rm", *volumes)
        wait_until_unmounted(host)
        assert names(host) == []


def run(host, *args, volume="vol:/v", check=True, **options):
    return host.docker("run", "--volume-driver=flocker", "-v", volume, *args, check=check, **options)


def sh(host, command, *args, **options):
    """What a command prints in a container that has volume vol at /v."""
    return run(host, "--rm", *args, "busybox", "sh", "-c", command, **options).stdout


def create(host, name="vol", *args, **options):
    return host.docker("volume", "create", "-d", "flocker", *args, name, **options)


def inspect(host, name="vol"):
    return json.loads(host.docker("volume", "inspect", name).stdout)[0]


def ask(host, call, **body):
    status, content = host.ask(SOCKET, "POST", f"/VolumeDriver.{call}", json.dumps(body).encode())
    return status, json.loads(content)


def names(host):
    return sorted(volume["Name"] for volume in ask(host, "List")[1]["Volumes"])


def count(host, name="vol"):
    """How many references Flocker counts."""
    return ask(host, "Get", Name=name)[1]["Volume"]["Status"]["references"]


def refused(done, *texts):
    assert done.returncode and all(text.lower() in done.stderr.lower() for text in texts), done


def running(host):
    return sorted(host.docker("ps", "--format", "{{.Names}}").stdout.split())


def writes(host, name):
    """Whether a container that runs WRITE gets on, without a gap in what it has written."""
    def lines():
        return host.docker("exec", name, "cat", "/v/log").stdout.split()

    before = len(lines())
    wait_for("the container to write", lambda: len(lines()) > before + 2)
    found = lines()
    return found == [str(number) for number in range(1, len(found) + 1)]


# ---- volumes -------------------------------------------------------------------------------------------------------------------

def test_volume_commands(one):
    assert create(one, "vol", "-o", "size=100M", "-o", "profile=gold", "--label", "a=b").stdout == "vol\n"
    assert "flocker vol" in one.docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}").stdout.splitlines()
    seen = inspect(one)
    assert (seen["Driver"], seen["Scope"], seen["Labels"], seen["Mountpoint"]) == ("flocker", "global", {"a": "b"}, "")
    assert seen["Options"] == {"size": "100M", "profile": "gold"}
    assert (seen["Status"]["size"], seen["Status"]["profile"], seen["Status"]["references"]) == (100 << 20, "gold", 0)
    create(one, "vol", "-o", "size=200M")  # known: not even asked for (fact 12)
    assert inspect(one)["Status"]["size"] == 100 << 20
    refused(one.docker("volume", "create", "-d", "local", "vol", check=False), "unique")
    refused(one.docker("volume", "inspect", "none", check=False), "no such volume")
    one.docker("volume", "rm", "vol")
    assert names(one) == []
    refused(one.docker("volume", "rm", "vol", check=False), "no such volume")
    assert not one.docker("volume", "rm", "-f", "vol", check=False).returncode


def test_create_says_what_is_wrong(one):
    refused(create(one, "vol", "-o", "color=red", check=False), "color", "size")
    refused(create(one, "vol", "-o", "size=10X", check=False), "10X")
    refused(create(one, "vol", "-o", "size=1M", check=False), "64MiB at least")
    for name in ("a/b", "../../etc/p", "sp ace", "ünï"):
        refused(create(one, name, check=False), "volume name")
    assert one.docker("volume", "ls", "-q").stdout == "" and names(one) == []


def test_names_of_other_drivers_are_left_alone(one):
    one.docker("run", "--rm", "-v", "mine:/v", "busybox", "true")
    assert inspect(one, "mine")["Driver"] == "local" and names(one) == []


def test_a_volume_that_docker_did_not_make_is_adopted(one):
    assert ask(one, "Create", Name="vol", Opts={"size": "100M"})[0] == 200
    assert "vol" in one.docker("volume", "ls", "-q").stdout.split()
    assert one.docker("run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "echo x >/v/f").returncode == 0
    create(one, "vol", "--label", "mine=1")
    assert inspect(one)["Status"]["size"] == 100 << 20


# ---- containers ----------------------------------------------------------------------------------------------------------------

def test_named(one):
    sh(one, "echo hello >/v/f")
    wait_until_unmounted(one)
    assert sh(one, "cat /v/f") == "hello\n"


def test_anonymous(one):
    run(one, "--rm", "busybox", "sh", "-c", "echo x >/v/f", volume="/v")
    assert names(one) == []
    run(one, "--name", "one", "busybox", "true", volume="/v")
    volume, = names(one)
    assert len(volume) == 64
    one.docker("rm", "-v", "one")
    assert names(one) == []


def test_copy_up(one):
    """What the image has at the mount point goes into an empty volume, with its owners; not into one that holds something."""
    look = "stat -c '%n %u %g %a' /data/*"
    expected = "/data/file 0 0 644\n/data/owned 1000 1000 750\n"
    assert run(one, "--rm", "busybox", "sh", "-c", f"{look}; cat /data/owned/file", volume="vol:/data").stdout == expected + "of user 1000\n"
    run(one, "--rm", "busybox", "rm", "-r", "/data/owned", volume="vol:/data")
    assert run(one, "--rm", "busybox", "sh", "-c", look, volume="vol:/data").stdout == "/data/file 0 0 644\n"
    run(one, "--rm", "-w", "/data", "busybox", "sh", "-c", "[ \"$(ls)\" = file ]", volume="vol:/data")


def test_nocopy_and_options_of_a_mount(one):
    mount = "type=volume,source=vol,target=/data,volume-driver=flocker,volume-opt=size=100M,volume-nocopy"
    assert one.docker("run", "--rm", "--mount", mount, "busybox", "ls", "/data").stdout == ""
    assert inspect(one)["Status"]["size"] == 100 << 20


def test_read_only(one):
    sh(one, "echo x >/v/f")
    assert sh(one, "touch /v/g 2>/dev/null || cat /v/f", "--read-only", volume="vol:/v:ro") == "x\n"
    assert sh(one, "touch /x 2>/dev/null || touch /v/h && ls /v", "--read-only") == "f\nh\n"


def test_a_user_that_is_not_root_writes_to_a_fresh_volume(one):
    assert sh(one, "echo x >/v/f && stat -c %u /v/f", "-u", "1000") == "1000\n"


def test_owner_by_options(one):
    create(one, "vol", "-o", "uid=1000", "-o", "gid=1000", "-o", "mode=0700")
    assert sh(one, "echo x >/v/f && stat -c '%u %a' /v", "-u", "1000") == "1000 700\n"
    refused(run(one, "--rm", "-u", "1001", "busybox", "ls", "/v", check=False), "Permission denied")


def test_owner_of_a_large_number(one):
    create(one, "vol", "-o", "uid=4294967294", "-o", "gid=2147483648")
    assert sh(one, "stat -c '%u %g' /v") == "4294967294 2147483648\n"


def test_sharing(one):
    """Two containers, one of them twice, and a third by --volumes-from; the volume stays until the last has ended."""
    run(one, "-d", "--name", "aa", "-v", "vol:/again", "busybox", "sleep", "1000")
    run(one, "-d", "--name", "bb", "busybox", "sleep", "1000")
    one.docker("run", "-d", "--name", "cc", "--volumes-from", "bb", "busybox", "sleep", "1000")
    one.docker("exec", "aa", "sh", "-c", "echo x >/v/f")
    for name, file in (("aa", "/again/f"), ("bb", "/v/f"), ("cc", "/v/f")):
        assert one.docker("exec", name, "cat", file).stdout == "x\n"
    assert count(one) == 4
    for name, left in (("aa", 2), ("bb", 1)):
        one.docker("stop", "-t", "0", name)
        wait_for(f"{left} references", lambda left=left: count(one) == left)
        assert len(mount_points(one)) == 1
    assert one.docker("exec", "cc", "cat", "/v/f").stdout == "x\n"
    one.docker("rm", "-f", "cc")
    wait_until_unmounted(one)


def test_restart_and_pause(one):
    run(one, "-d", "--name", "one", "busybox", "sh", "-c", WRITE)
    for _ in range(3):
        one.docker("restart", "-t", "0", "one")
        one.docker("pause", "one")
        one.docker("unpause", "one")
        assert count(one) == 1
    one.docker("exec", "one", "test", "-s", "/v/log")


def test_crash_loop(one):
    """The last unmount and the first mount race at each turn of a restart policy."""
    run(one, "-d", "--name", "one", "--restart=on-failure:5", "busybox", "sh", "-c", "echo x >>/v/f; exit 1")
    wait_for("the restarts to end", lambda: not running(one), 60)
    wait_until_unmounted(one)
    assert sh(one, "wc -l </v/f").strip() == "6"


def test_remove_while_in_use(one):
    run(one, "-d", "--name", "one", "busybox", "sleep", "1000")
    refused(one.docker("volume", "rm", "vol", check=False), "in use")
    refused(one.docker("volume", "rm", "-f", "vol", check=False), "in use")
    status, reply = ask(one, "Remove", Name="vol")  # and without Docker's own guard
    assert status == 500 and "in use" in reply["Err"]
    status, content = one.ask(API, "DELETE", "/v2/volumes/vol")
    assert status == 409 and b"in use" in content
    one.docker("exec", "one", "touch", "/v/f")


def test_calls_of_a_container_s_life(one, recorded):
    """Table 2.1, with Flocker as the one that answers."""
    plugin = recorded
    one.docker("volume", "create", "-d", "recorded", "vol")
    plugin.new()
    one.docker("create", "--name", "one", "-v", "vol:/data", "busybox", "sleep", "1000")
    assert plugin.calls() == ["Get vol", "Get vol", "Mount vol #1", "Get vol", "Unmount vol #1"]
    one.docker("start", "one")
    assert plugin.calls() == ["Get vol", "Mount vol #2"]
    one.docker("cp", "one:/data/file", "/tmp/file")
    assert plugin.calls() == ["Get vol", "Mount vol #2", "Get vol", "Unmount vol #2"]
    assert count(one) == 1
    one.docker("kill", "one")
    assert wait_for("the unmount", plugin.calls) == ["Get vol", "Unmount vol #2"]
    one.docker("rm", "one")
    one.docker("volume", "rm", "vol")
    assert plugin.calls() == ["Get vol", "Get vol", "Remove vol"]
    assert max(entry["seconds"] for entry in plugin.all()) < 4


def test_compose(one):
    """By the API, as docker compose does: labels at creation, removal by force."""
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.volume": "db", "com.docker.compose.version": "2.20.0"}
    body = {"Name": "shop_db", "Driver": "flocker", "DriverOpts": {"size": "1G"}, "Labels": labels}
    status, content = one.ask(DOCKER_SOCKET, "POST", "/v1.41/volumes/create", json.dumps(body).encode())
    # The helper sends no Content-Type; newer engines insist on it.
    if status == 400:
        one.run(["curl", "-sf", "--unix-socket", DOCKER_SOCKET, "-H", "Content-Type: application/json", "-d", json.dumps(body),
                 "http://docker/v1.41/volumes/create"])
    else:
        assert status == 201, content
    assert inspect(one, "shop_db")["Labels"] == labels
    assert one.docker("volume", "ls", "-q", "--filter", "label=com.docker.compose.project=shop").stdout == "shop_db\n"
    assert one.ask(DOCKER_SOCKET, "DELETE", "/v1.41/volumes/shop_db?force=true")[0] == 204
    assert names(one) == []


# ---- docker cp -------------------------------------------------------------------------------------------------------------------

def test_cp_while_running(one):
    run(one, "-d", "--name", "one", "busybox", "sh", "-c", WRITE)
    one.run(["sh", "-c", "echo in >/tmp/in"])
    for number in range(5):
        one.docker("cp", "one:/v/log", "/tmp/log")
        one.docker("cp", "/tmp/in", f"one:/v/in{number}")
    assert count(one) == 1 and writes(one, "one")
    assert one.docker("exec", "one", "cat", "/v/in4").stdout == "in\n"
    one.docker("stop", "-t", "0", "one")
    wait_until_unmounted(one)
    one.docker("cp", "one:/v/in0", "/tmp/out")  # from a container that does not run
    assert one.path("/tmp/out").read_text() == "in\n"
    wait_until_unmounted(one)


def test_cp_during_stop_and_start(one):
    run(one, "-d", "--name", "one", "busybox", "sh", "-c", "trap exit TERM; " + WRITE)
    over = threading.Event()

    def copy():
        while not over.is_set():
            one.docker("cp", "one:/v/log", "/tmp/log", check=False)

    copiers = [threading.Thread(target=copy) for _ in range(2)]
    for copier in copiers:
        copier.start()
    try:
        for _ in range(4):
            one.docker("stop", "-t", "1", "one")
            one.docker("start", "one")
            wait_for("the container to write", lambda: one.docker("exec", "one", "tail", "-n1", "/v/log", check=False).stdout.strip())
    finally:
        over.set()
        for copier in copiers:
            copier.join()
    wait_for("what the container writes", lambda: len(mount_points(one)) == 1)
    one.docker("exec", "one", "touch", "/v/still-there")
    one.docker("rm", "-f", "one")
    assert sh(one, "ls /v/still-there")
    one.docker("volume", "rm", "vol")
    wait_until_unmounted(one)


@pytest.fixture
def sibling(one, broken):
    """A volume of another driver, and a function that makes its next Mount fail."""
    folder = one.path("/tmp/broken/sibling")
    one.docker("volume", "create", "-d", "broken", "sibling")
    yield folder.rmdir
    folder.mkdir(exist_ok=True)
    one.docker("rm", "-f", "one", check=False)
    one.docker("volume", "rm", "sibling")


def test_cp_with_a_failing_sibling(one, sibling):
    """Docker never sends the Unmount of what it had mounted for that copy; its own remove is not held up by that."""
    run(one, "-d", "--name", "one", "--mount", SIBLING, "busybox", "sh", "-c", WRITE)
    sibling()
    for _ in range(3):
        assert one.docker("cp", "one:/v/log", "/tmp/log", check=False).returncode
    assert writes(one, "one")
    one.docker("rm", "-f", "one")
    one.docker("volume", "rm", "vol")
    wait_until_unmounted(one)


def test_a_failed_start_leaves_nothing(one, sibling):
    run(one, "--name", "one", "--mount", SIBLING, "busybox", "true")
    wait_until_unmounted(one)
    sibling()
    for _ in range(3):
        assert one.docker("start", "one", check=False).returncode
    wait_until_unmounted(one)


# ---- behind Docker's back -------------------------------------------------------------------------------------------------------

def test_removed_by_the_api_and_created_again(one):
    create(one, "vol", "-o", "size=100M", "--label", "old=1")
    sh(one, "echo old >/v/f")
    wait_until_unmounted(one)
    assert one.ask(API, "DELETE", "/v2/volumes/vol")[0] == 200
    refused(one.docker("volume", "inspect", "vol", check=False), "no such volume")
    create(one, "vol", "-o", "size=200M", "--label", "new=1")
    seen = inspect(one)
    assert (seen["Labels"], seen["Options"], seen["Status"]["size"]) == ({"new": "1"}, {"size": "200M"}, 200 << 20)
    assert sh(one, "ls /v") == ""
    wait_until_unmounted(one)
    assert one.ask(API, "DELETE", "/v2/volumes/vol")[0] == 200
    one.docker("volume", "create", "-d", "local", "vol")
    assert inspect(one)["Driver"] == "local"


def test_labels_survive_outages(one):
    """One failed Get and dockerd forgets labels and options (fact 1)."""
    create(one, "vol", "-o", "size=100M", "--label", "a=b")
    sh(one, "echo x >/v/f")

    def kept(seen):
        return (seen["Labels"], seen["Options"]) == ({"a": "b"}, {"size": "100M"})

    one.kill_flocker("control")
    assert kept(inspect(one))
    one.kill_flocker("agent")
    start_agent(one)
    assert kept(inspect(one))  # the engine's own retries bridge the gap
    assert kept(inspect(one))
    one.flocker("up")
    assert kept(inspect(one))
    one.run(["fsfreeze", "--freeze", "/var/lib/flocker/pool"])
    try:
        assert kept(inspect(one))
        refused(create(one, "two", check=False), "two", "try again")
        assert kept(inspect(one))
    finally:
        one.run(["fsfreeze", "--unfreeze", "/var/lib/flocker/pool"])
    wait_for("the pool", lambda: not create(one, "two", check=False).returncode)
    one.kill_flocker("agent", signal.SIGSTOP)
    looking = one.popen(["docker", "volume", "inspect", "vol"], stdout=subprocess.PIPE, text=True)
    time.sleep(2)
    one.kill_flocker("agent", signal.SIGCONT)
    assert kept(json.loads(looking.communicate(timeout=30)[0])[0])


# ---- Flocker ends and starts ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["kill -9", "upgrade"])
def test_the_agent_goes_and_comes_while_containers_run(one, how):
    """Their I/O is not disturbed, and the references are right afterwards."""
    run(one, "-d", "--name", "aa", "busybox", "sh", "-c", WRITE)
    run(one, "-d", "--name", "bb", "busybox", "sleep", "1000")
    for _ in range(3):
        if how == "kill -9":
            one.kill_flocker("agent")
            one.kill_flocker("control")
        else:
            one.flocker("down", "--keep-mounted")
        assert writes(one, "aa")
        one.flocker("up")
        wait_for("the references", lambda: count(one) == 2)
        assert writes(one, "aa")
    one.docker("rm", "-f", "bb")
    wait_for("one reference", lambda: count(one) == 1)
    time.sleep(1.5)  # over the look at doubtful references after a start
    assert count(one) == 1 and writes(one, "aa")
    one.docker("rm", "-f", "aa")
    wait_until_unmounted(one)


def test_down_while_containers_run(one):
    run(one, "-d", "--name", "one", "busybox", "sh", "-c", WRITE)
    refused(one.flocker("down", check=False), "in use")
    assert writes(one, "one") and ask(one, "Get", Name="vol")[0] == 200


def test_a_container_ends_while_the_agent_is_away(one):
    """Its Unmount is retried by the engine, or lost; either way nothing stays mounted."""
    run(one, "-d", "--name", "one", "busybox", "sleep", "1000")
    one.kill_flocker("agent")
    stop = one.popen(["docker", "kill", "one"], stdout=subprocess.DEVNULL)
    time.sleep(1)
    one.flocker("up")
    stop.wait(60)
    one.docker("rm", "-f", "one")
    one.docker("volume", "rm", "vol")
    wait_until_unmounted(one)


# ---- the engine ends and starts -----------------------------------------------------------------------------------------------------

@pytest.fixture
def quick_checks(monkeypatch):
    """Flocker looks after 2 s, not 15 s, at what an engine has left."""
    monkeypatch.setenv("FLOCKER_RECHECK_S", "2")


def start_three(host):
    host.docker("run", "-d", "--name", "always", "--restart=always", "--volume-driver=flocker", "-v", "vol:/v", "busybox", "sh", "-c", WRITE)
    host.docker("run", "-d", "--name", "plain", "--volume-driver=flocker", "-v", "vol:/v", "-v", "two:/w", "busybox", "sleep", "1000")
    host.docker("run", "--name", "ended", "--volume-driver=flocker", "-v", "old:/x", "busybox", "true")
    wait_for("two mounted volumes", lambda: len(mount_points(host)) == 2)


def end_all(host):
    """Nothing of the past keeps volumes from being unmounted and removed."""
    host.docker("rm", "-f", "always", "plain", "ended")
    host.docker("volume", "rm", "vol", "two", "old")
    wait_until_unmounted(host)
    assert names(host) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_engine_restart(hosts, flocker_binary, version):
    host = ready(hosts, flocker_binary, version)
    start_three(host)
    host.stop_docker()
    wait_until_unmounted(host)
    start_docker(host, version)
    wait_for("the container with a restart policy", lambda: running(host) == ["always"])
    wait_for("its reference alone", lambda: count(host) == 1 and count(host, "two") == 0 and len(mount_points(host)) == 1)
    host.docker("start", "plain")
    assert len(mount_points(host)) == 2
    end_all(host)


@pytest.mark.parametrize("restart", ["always", "no"])
@pytest.mark.parametrize("version", VERSIONS)
def test_engine_killed(hosts, flocker_binary, quick_checks, version, restart):
    """Without live-restore: the containers go on until a new dockerd kills them, and no Unmount ever comes."""
    host = ready(hosts, flocker_binary, version)
    start_three(host)
    host.docker("update", f"--restart={restart}", "always")
    host.kill_docker()
    log = host.path(mount_points(host)[0]).parent
    time.sleep(5)  # over more than one look at what the engine left: it is in use
    assert len(mount_points(host)) == 2
    files = [path / "log" for path in log.iterdir() if (path / "log").exists()]
    before = files[0].stat().st_size
    wait_for("the container to write on", lambda: files[0].stat().st_size > before)
    start_docker(host, version)
    wait_for("the restart", lambda: running(host) == (["always"] if restart == "always" else []))
    wait_for("what is not in use to be unmounted", lambda: len(mount_points(host)) == (restart == "always"), 30)
    assert count(host, "two") == 0
    if restart == "always":
        host.docker("exec", "always", "touch", "/v/file")
        refused(host.docker("volume", "rm", "vol", check=False), "in use")
    host.docker("start", "plain")
    host.docker("exec", "plain", "touch", "/w/file")
    end_all(host)


@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
@pytest.mark.parametrize("version", VERSIONS)
def test_live_restore(hosts, flocker_binary, quick_checks, version, how):
    """The containers go on, and so does their dockerd's successor, whose Unmounts are for its predecessor's Mounts."""
    host = ready(hosts, flocker_binary, version, "--live-restore")
    start_three(host)
    pids = host.docker("inspect", "-f", "{{.State.Pid}}", "always", "plain").stdout
    for _ in range(2):
        if how == "kill -9":
            host.kill_docker()
        else:
            host.stop_docker()
        time.sleep(3)  # over a look at what the engine left
        start_docker(host, version, args=["--live-restore"])
        assert running(host) == ["always", "plain"] and len(mount_points(host)) == 2
        assert writes(host, "always")
    assert host.docker("inspect", "-f", "{{.State.Pid}}", "always", "plain").stdout == pids
    host.docker("cp", "plain:/v/log", "/tmp/log")
    time.sleep(3)
    assert len(mount_points(host)) == 2 and writes(host, "always")
    host.docker("stop", "-t", "0", "plain")
    wait_for("volume two to be unmounted", lambda: len(mount_points(host)) == 1)
    assert writes(host, "always")
    end_all(host)


@pytest.mark.parametrize("version", VERSIONS)
def test_engine_killed_and_never_started_again(hosts, flocker_binary, quick_checks, version):
    """Its containers are ended by other means; then what they had is unmounted, and may be removed by whoever asks."""
    host = ready(hosts, flocker_binary, version)
    start_three(host)
    host.kill_docker()
    status, reply = ask(host, "Remove", Name="vol")
    assert status == 500 and "in use" in reply["Err"]
    for pid, line in host.processes().items():
        if "containerd" in line or line.startswith("sleep") or "usleep" in line:
            host.run(["kill", "-9", str(pid)], check=False)
    wait_until_unmounted(host, 30)
    assert ask(host, "Remove", Name="vol") == (200, {"Err": ""})


@pytest.mark.parametrize("version", VERSIONS)
def test_power_cut(hosts, flocker_binary, version):
    """The references of the last boot are void; containers with a restart policy find their data."""
    host = ready(hosts, flocker_binary, version)
    create(host, "vol", "--label", "a=b")
    start_three(host)
    wait_for("something written", lambda: host.docker("exec", "always", "cat", "/v/log").stdout)
    host.docker("exec", "always", "sync")
    host.reboot()
    host.start_flocker(flocker_binary)
    assert mount_points(host) == [] and references(host) == {}
    start_docker(host, version)
    wait_for("the container with a restart policy", lambda: running(host) == ["always"])
    assert count(host) == 1 and len(mount_points(host)) == 1
    assert inspect(host)["Labels"] == {"a": "b"}
    assert host.docker("exec", "always", "head", "-n1", "/v/log").stdout == "1\n"
    end_all(host)


@pytest.mark.docker("20")
def test_dead_engine_is_looked_at_after_15_seconds(hosts, flocker_binary):
    """With the delays that users have."""
    host = ready(hosts, flocker_binary, "20")
    run(host, "-d", "busybox", "sleep", "1000")
    wait_for("the container's own process", lambda: any(line.startswith("sleep") for line in host.processes().values()))
    host.kill_docker()
    begin = time.monotonic()
    for pid, line in host.processes().items():
        if "containerd" in line or line.startswith("sleep"):
            host.run(["kill", "-9", str(pid)], check=False)
    wait_until_unmounted(host, 30)
    assert time.monotonic() - begin > 5
