"""Faults: daemons and workers killed at each named failpoint and at random moments, pools that are full or read-only, damaged files.

FLOCKER_FAULT_ROUNDS=N   rounds of each storm (default 10), and with more than 10 each failpoint is also met for the 2nd, 3rd, ... time
FLOCKER_FAULT_SEED=N     the storms' seed; without it a new one is drawn. It is printed when a test fails.
"""
import concurrent.futures
import hashlib
import json
import os
import random
import re
import sqlite3
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from conftest import start_docker
from faults import POOL, Flocker, failpoints
from host import FLOCKER_SOCKET
from paths import wait_for

ROUNDS = int(os.environ.get("FLOCKER_FAULT_ROUNDS", "10"))
SEED = int(os.environ.get("FLOCKER_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
PATIENCE_S = 60  # a create waits for the disk, and that may have much to do
GENERAL = {"control.written": 6, "control.committed": 6, "control.told": 3, "control.report": 6, "agent.want": 6, "agent.step-start": 7,
           "agent.step-done": 7, "agent.step-reported": 7, "worker.start": 8, "worker.done": 8, "file.written": 7, "file.renamed": 7}
# Those of moves have a test of their own (test_move_faults.py): one host does not get there.
SEVERAL_HOSTS = ("transfer.", "agent.found", "agent.released")  # what one host alone never does
HITS = [(point, hit) for point in failpoints() if not point.startswith(SEVERAL_HOSTS) for hit in range(1, 10 if ROUNDS > 10 else 2)]
HITS += [] if ROUNDS > 10 else [(point, hit) for point, last in GENERAL.items() for hit in range(2, last + 1)]
TEMPORARY = re.compile(r"can't be reached|went away|is not ready|killed by signal 9|try again")
COUNTER = ("i=0; while i=$((i+1)); do echo $i $(date +%s) | dd of=/keep/log oflag=append conv=notrunc,fsync 2>/tmp/err || "
           "{ echo failed at $i; cat /tmp/err; }; usleep 20000; done")


# ---- named failpoints


@pytest.fixture(scope="module")
def swept_host(module_hosts):
    return module_hosts("swept", network=module_hosts.network())


class Cycle:
    """A volume's whole life beside another's, each step repeated until it succeeds, as a patient user would."""

    def __init__(self, flocker, failpoint):
        self.flocker, self.failpoint = flocker, failpoint

    def fired(self):
        return f"failpoint {self.failpoint} in process" in self.flocker.log()

    def __enter__(self):
        self.end, self.supervisor = threading.Event(), threading.Thread(target=self.supervise)
        self.supervisor.start()
        return self

    def __exit__(self, *_error):
        self.end.set()
        self.supervisor.join()

    def supervise(self):
        """Starts again what was killed, as a service manager does."""
        while not self.end.wait(0.03):
            if self.fired() and not (self.flocker.answers("control") and self.flocker.answers("agent")):
                self.flocker.up(check=False)

    def step(self, ask):
        end = time.monotonic() + PATIENCE_S
        while True:
            answer = ask()
            if answer and answer[0] in (200, 201):
                return answer[1]
            assert self.fired() and time.monotonic() < end, (answer, self.flocker.log()[-4000:])
            time.sleep(0.02)

    def plugin(self, call, **body):
        return self.step(lambda: self.flocker.plugin(call, **body))

    def unused(self, name):
        """Unmounts until no reference is left: a Mount whose answer was lost may have left one that nobody knows."""
        self.plugin("Unmount", Name=name, ID="user")
        while (self.flocker.get(name) or {"Status": {"references": 1}})["Status"]["references"]:
            self.plugin("Unmount", Name=name, ID="user")

    def purge(self, volume):
        """Into the void: once it is purged, control no longer knows it."""
        def ask():
            answer = self.flocker.purge(volume)
            return (200, {}) if answer and answer[0] == 404 else answer
        self.step(ask)

    def start(self):
        """Until it succeeds: the supervisor may be at it too, or see what was just ending."""
        end = time.monotonic() + 30
        while (started := self.flocker.up(check=False)).returncode:
            assert time.monotonic() < end, f"{started.stdout}{started.stderr}\n{self.flocker.host.processes()}\n{self.flocker.log()[-6000:]}"

    def run(self):
        flocker = self.flocker
        self.plugin("Create", Name="a", Opts={"size": "128M"})
        volume = self.plugin("Get", Name="a")["Volume"]["Status"]["id"]
        self.plugin("Mount", Name="a", ID="user")
        self.step(lambda: flocker.control("PATCH", "/v2/volumes/a", {"size": "256M"}))
        self.plugin("Create", Name="b")
        self.plugin("Mount", Name="b", ID="user")
        flocker.host.path(f"/flocker/{self.plugin('Get', Name='b')['Volume']['Status']['id']}/file").write_text("kept")
        flocker.check(live=("a", "b"))
        self.unused("a")
        self.plugin("Mount", Name="a", ID="lost")  # no Unmount will come: a Remove says that this reference is void
        self.plugin("Remove", Name="a")
        flocker.check(live=("b",), gone=("a",), trashed=(volume,))
        self.purge(volume)
        flocker.check(live=("b",), gone=("a",))
        self.unused("b")
        flocker.host.run([flocker.binary, "down"], check=False)
        self.start()
        self.plugin("Mount", Name="b", ID="user")
        assert flocker.host.path(flocker.get("b")["Mountpoint"] + "/file").read_text() == "kept"
        flocker.check(live=("b",), gone=("a",), references={"b": 1})


@pytest.mark.parametrize("name, hit", HITS, ids=lambda value: str(value))
def test_killed_at(swept_host, flocker_binary, name, hit):
    flocker = Flocker(swept_host, flocker_binary, ["--pool-size=512M"])
    flocker.wipe()
    cycle = Cycle(flocker, name)
    with cycle:
        started = flocker.up(f"{name}:{hit}", check=False)
        assert started.returncode == 0 or cycle.fired(), started.stderr + flocker.log()[-3000:]
        cycle.run()
    assert hit > 1 or cycle.fired(), f"{name} was never reached"


# ---- random moments


class Storm:
    """What was acknowledged, by name and id, while creates and removes race with kills."""

    def __init__(self, flocker, rng):
        self.flocker, self.rng, self.lock = flocker, rng, threading.Lock()
        self.live, self.unknown, self.trashed, self.errors = {}, set(), set(), set()
        self.number, self.killed = 0, {}

    def call(self, patient, call, **body):
        """True once it is acknowledged; an impatient caller asks once."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            answer = self.flocker.plugin(call, **body)
            if answer and answer[0] == 200:
                return True
            if answer:
                with self.lock:
                    self.errors.add(answer[1]["Err"])
            if not patient:
                return False
            time.sleep(0.05)
        raise TimeoutError(f"{call} {body}: no success in {PATIENCE_S} s, last {answer}\n{self.flocker.log()[-8000:]}")

    def create(self, name, patient):
        done = self.call(patient, "Create", Name=name, Opts={})
        with self.lock:
            if done:
                self.live[name] = None
            else:
                self.unknown.add(name)

    def remove(self, name, patient):
        volume = self.live.pop(name)
        done = self.call(patient, "Remove", Name=name)
        with self.lock:
            if done:
                self.trashed.add(volume)
            else:
                self.unknown.add(name)

    def kills(self, stop):
        for _ in range(12):  # not for ever: patience ends
            if stop.wait(self.rng.uniform(0.01, 0.2)):
                break
            role = self.rng.choice(["agent", "control", "worker"])
            self.killed[role] = self.killed.get(role, 0) + self.flocker.kill(role)
            if role != "worker":
                self.flocker.up(check=False)

    def use(self, name, patient):
        """Mounts and unmounts; the name may be removed meanwhile, or never come to be."""
        for call in ("Mount", "Unmount"):
            self.flocker.plugin(call, Name=name, ID=f"user of {name}")

    def round(self):
        """50 callers at once, each with several calls, most of which are repeated until they succeed."""
        jobs = [(self.remove, name) for name in self.rng.sample(sorted(self.live), min(100, len(self.live)))]
        jobs += [(self.use, name) for name in self.rng.sample(sorted(self.live), min(30, len(self.live)))]
        while len(jobs) < 250:
            self.number += 1
            jobs.append((self.create, f"v{self.number}"))
        self.rng.shuffle(jobs)
        patience = [self.rng.random() < 0.8 for _ in jobs]
        stop = threading.Event()
        killer = threading.Thread(target=self.kills, args=(stop,))
        killer.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(50) as pool:
                for done in [pool.submit(run, name, patient) for (run, name), patient in zip(jobs, patience)]:
                    done.result()
        finally:
            stop.set()
            killer.join()

    def check(self):
        """Everything as it must be, and the ids of what is there learnt."""
        self.flocker.kill("agent")  # its successor sweeps up what killed workers left
        self.flocker.up()
        live = sorted(self.live)
        removed = [name for name in map("v{}".format, range(1, self.number + 1)) if name not in self.live and name not in self.unknown]
        self.flocker.check(live=live, gone=removed, trashed=self.trashed)
        for name in live:
            volume = self.flocker.get(name)["Status"]["id"]
            assert self.live[name] in (None, volume), f"{name} is another volume than it was"
            self.live[name] = volume
        for name in list(self.unknown):
            volume = self.flocker.get(name)
            if volume:
                self.live[name] = volume["Status"]["id"]
        self.unknown = {name for name in self.unknown if name not in self.live}
        for volume in sorted(self.trashed)[::3]:
            self.trashed.discard(volume)
            assert self.flocker.purge(volume)[0] == 200
        strange = [error for error in self.errors if not TEMPORARY.search(error)]
        assert not strange, strange


class Counter:
    """A container that writes numbers and syncs each."""

    def __init__(self, host, name="counter"):
        self.host, self.name = host, name
        host.docker("run", "-d", "--name", name, "-v", f"{name}:/keep", "--volume-driver=flocker", "busybox", "sh", "-c", COUNTER)

    def lines(self):
        return self.host.docker("exec", self.name, "cat", "/keep/log").stdout.splitlines()

    def check(self, pause=5):
        """It counts on, without a gap, an error, or a pause of more seconds than the disk itself may cause."""
        before = len(self.lines())
        wait_for("the counter to go on", lambda: len(self.lines()) > before, 30)
        rows = [[int(word) for word in line.split()] for line in self.lines()]
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert max((b[1] - a[1] for a, b in zip(rows, rows[1:])), default=0) <= pause
        assert self.host.docker("logs", self.name).stdout == ""


@pytest.mark.docker("20")
def test_storms(hosts, flocker_binary):
    print(f"FLOCKER_FAULT_SEED={SEED}")
    host = hosts("storm", network=hosts.network())
    flocker = Flocker(host, flocker_binary, ["--pool-size=2G"])
    flocker.up()
    start_docker(host, "20")
    host.load_image("busybox")
    counter = Counter(host)
    storm = Storm(flocker, random.Random(SEED))
    for _ in range(ROUNDS):
        storm.round()
        storm.check()
        assert flocker.get("counter")["Status"]["references"] == 1
        storm.live.pop("counter", None)
    print(f"killed: {storm.killed}, created: {storm.number}")
    assert len(storm.killed) == 3 and min(storm.killed.values()) > 0, storm.killed
    counter.check(pause=30)
    host.docker("rm", "-f", "counter")
    wait_for("the unmount", lambda: not flocker.get("counter")["Mountpoint"], 30)
    assert flocker.get("counter")["Status"]["references"] == 0


def test_one_name_created_by_twenty_at_once(hosts, flocker_binary):
    flocker = Flocker(hosts(network=hosts.network()), flocker_binary)
    flocker.up()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: flocker.plugin("Create", Name="one"), range(20)))
    assert [answer[0] for answer in answers] == [200] * 20
    flocker.check(live=["one"])
    assert len(os.listdir(flocker.host.path(f"{POOL}/volumes"))) == 1


# ---- pools


@pytest.fixture
def small(hosts, flocker_binary):
    """A host with an engine and a small pool."""
    host = hosts(network=hosts.network())
    flocker = Flocker(host, flocker_binary, ["--pool-size=256M"])
    flocker.up()
    start_docker(host, "20")
    host.load_image("busybox")
    return flocker


def run_busybox(host, volume, command, **options):
    return host.docker("run", "--rm", "-v", f"{volume}:/keep", "--volume-driver=flocker", "busybox", "sh", "-c", command, **options)


def fill(folder):
    """Data first, then what needs metadata only, until nothing more fits."""
    for size in (1 << 20, 2000):
        number = 0
        try:
            while True:
                number += 1
                (folder / f"{size}-{number}").write_bytes(bytes(size))
        except OSError as error:
            assert error.errno == 28, error
        os.sync()


@pytest.mark.docker("20")
def test_full_pool(small):
    host = small.host
    run_busybox(host, "db", "echo 1 >/keep/file")
    run_busybox(host, "big", "true")
    small.ok("Mount", Name="big", ID="filler")
    fill(host.path(small.get("big")["Mountpoint"]))
    full = run_busybox(host, "db", "dd if=/dev/zero of=/keep/more bs=1M count=64", check=False)
    assert full.returncode and "No space left on device" in full.stderr
    refused = None
    for number in range(2000):  # small trees fit in what btrfs keeps in reserve
        refused = small.plugin("Create", Name=f"more{number}", timeout=20)
        if not refused or refused[0] != 200:
            break
    assert refused and refused[0] == 500, refused
    assert "pool /var/lib/flocker/pool.img is full" in refused[1]["Err"], refused
    error = host.docker("volume", "create", "-d", "flocker", "another", check=False).stderr
    assert "pool /var/lib/flocker/pool.img is full" in error, error
    assert run_busybox(host, "db", "cat /keep/file").stdout == "1\n"
    host.docker("volume", "ls")
    volume = small.get("big")["Status"]["id"]
    small.ok("Remove", Name="big")
    assert small.purge(volume)[0] == 200
    small.check()
    host.run(["btrfs", "filesystem", "sync", POOL])  # the kernel would free the space within 30 s; this makes it do so now
    wait_for("the space", lambda: host.docker("volume", "create", "-d", "flocker", "another", check=False).returncode == 0, 60)
    run_busybox(host, "another", "dd if=/dev/zero of=/keep/more bs=1M count=64")
    assert run_busybox(host, "db", "cat /keep/file").stdout == "1\n"
    small.check(live=["db", "another"], gone=["big", refused and f"more{number}"])


@pytest.mark.docker("20")
def test_read_only_pool(small):
    host = small.host
    run_busybox(host, "db", "echo 1 >/keep/file")
    host.docker("volume", "create", "-d", "flocker", "old")
    host.run(["mount", "-o", "remount,ro", POOL])
    refused = host.docker("volume", "create", "-d", "flocker", "more", check=False)
    assert "pool /var/lib/flocker/pool.img is read-only" in refused.stderr
    assert small.get("db") and small.get("old") and not small.get("more")
    assert "Read-only file system" in run_busybox(host, "db", "echo 2 >/keep/file", check=False).stderr
    assert run_busybox(host, "db", "cat /keep/file").stdout == "1\n"
    assert "warning: the pool is read-only: it was mounted so" in host.flocker("status").stdout
    host.docker("volume", "rm", "old")
    small.kill("agent")
    small.up(check=False)
    assert small.get("db")["Name"] == "db"
    assert run_busybox(host, "db", "cat /keep/file").stdout == "1\n"
    wait_for("the mount that was made read-only to go", lambda: not small.mounts())
    host.run(["mount", "-o", "remount,rw", POOL])
    wait_for("creates to work", lambda: host.docker("volume", "create", "-d", "flocker", "more", check=False).returncode == 0)
    run_busybox(host, "db", "echo 2 >/keep/file")
    small.check(live=["db", "more"], gone=["old"], timeout=60)


def test_second_agent_and_second_control(hosts, flocker_binary):
    host = hosts(network=hosts.network())
    flocker = Flocker(host, flocker_binary)
    flocker.up()
    for role in ("agent", "control"):
        refused = host.run([flocker.binary, role], check=False)
        pid = host.path(f"/run/flocker/{role}.pid").read_text().strip()
        assert refused.returncode and f"process {pid} is running here already" in refused.stderr, refused.stderr
    # Other roots, the same files.
    host.run(["sh", "-c", "mkdir -p /tmp/o/etc /tmp/o/var/lib/flocker && ln -s /etc/flocker /tmp/o/etc/flocker && "
              "ln -s /var/lib/flocker/control.db /tmp/o/var/lib/flocker"])
    refused = host.run([flocker.binary, "control", "--root=/tmp/o", "--rest=none"], check=False)
    assert refused.returncode and "control.db is in use by another process" in refused.stderr
    with open(host.work / "log/second.log", "ab") as log:
        second = host.popen([flocker.binary, "agent", "--root=/tmp/o", "--pool=/var/lib/flocker/pool.img"], stdout=log, stderr=log)
    wait_for("its refusal", lambda: "pool.img is in use by another agent" in host.log("second"))
    second.kill()
    flocker.ok("Create", Name="db")
    flocker.check(live=["db"])


# ---- the store


def cut(path):
    path.write_bytes(path.read_bytes()[:50])


def overwrite(path):
    path.write_bytes(b"x" * 4096 + path.read_bytes()[4096:])


def scribble(path):
    content = path.read_bytes()
    at = content.index(b'db', 4096)
    path.write_bytes(content[:at - 40] + bytes(60) + content[at + 20:])


def foreign(path):
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(f"{folder}/foreign.db")
        database.execute("create table t (x)")
        database.close()
        path.write_bytes(Path(f"{folder}/foreign.db").read_bytes())


@pytest.mark.docker("20")
def test_damaged_store(small):
    host = small.host
    store = host.path("/var/lib/flocker/control.db")
    run_busybox(host, "db", "echo 1 >/keep/file")
    small.stop("control")
    good = store.read_bytes()
    for damage in (cut, overwrite, scribble, foreign, lambda path: path.write_bytes(b"")):
        damage(store)
        digest = hashlib.sha256(store.read_bytes()).digest()
        refused = small.up(check=False)
        assert refused.returncode
        assert "control.db" in refused.stderr and "put a backup there" in refused.stderr and "nothing was changed" in refused.stderr
        assert hashlib.sha256(store.read_bytes()).digest() == digest
        store.write_bytes(good)
        for beside in ("-wal", "-shm", "-journal"):
            assert not store.with_name("control.db" + beside).exists()
    # Containers go on all the same, also after a restart of the agent.
    cut(store)
    assert run_busybox(host, "db", "cat /keep/file; echo 2 >/keep/file").stdout == "1\n"
    refused = host.docker("volume", "create", "-d", "flocker", "more", check=False)
    assert "control service can't be reached" in refused.stderr
    small.kill("agent")
    assert "put a backup there" in small.up(check=False).stderr
    assert run_busybox(host, "db", "cat /keep/file").stdout == "2\n"
    store.write_bytes(good)
    small.up()
    host.docker("volume", "create", "-d", "flocker", "more")
    small.check(live=["db", "more"])


def test_lost_store(hosts, flocker_binary):
    host = hosts(network=hosts.network())
    flocker = Flocker(host, flocker_binary)
    flocker.up()
    flocker.ok("Create", Name="db")
    volume = flocker.get("db")["Status"]["id"]
    flocker.stop("control")
    host.run(["sh", "-c", "mkdir /tmp/lost && mv /var/lib/flocker/control.db* /tmp/lost"])
    for _ in range(2):
        flocker.up()
        wait_for("both to say so", lambda: f"{volume} (db) is in this node's pool and control does not know it: it is kept" in flocker.log()
                 and f"has volume {volume}, which is not known here: it is kept there" in flocker.log())
        refused = flocker.plugin("Create", Name="db")
        assert refused[0] == 500 and volume in refused[1]["Err"] and "does not know" in refused[1]["Err"]
        flocker.ok("Create", Name="other")
        assert host.path(f"{POOL}/volumes/{volume}/data").is_dir()
        flocker.kill("agent")
    flocker.stop("control")
    host.run(["sh", "-c", "mv /tmp/lost/* /var/lib/flocker"])
    flocker.up()
    wait_for("the volume", lambda: flocker.get("db"))
    flocker.ok("Mount", Name="db", ID="1")


# ---- workers, references, power


def test_stuck_worker(hosts, flocker_binary):
    flocker = Flocker(hosts(network=hosts.network()), flocker_binary)
    flocker.up("mount.point-made:1:hang")
    for name in ("stuck", "free"):
        flocker.ok("Create", Name=name)

    def timed(call, **body):
        begin = time.monotonic()
        answer = flocker.plugin(call, **body)
        return time.monotonic() - begin, answer

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        mount = pool.submit(timed, "Mount", Name="stuck", ID="1")
        wait_for("the hang", lambda: "failpoint mount.point-made" in flocker.log())
        flocker.ok("Mount", Name="free", ID="1")
        flocker.ok("Unmount", Name="free", ID="1")
        flocker.ok("Create", Name="third")
        for call in ("Get", "List", "Path", "Capabilities"):
            times = sorted(timed(call, Name="stuck")[0] for _ in range(20))
            assert times[-2] < 0.05, (call, times)
        assert flocker.get("stuck")["Status"]["doing"] == "mount"
        seconds, answer = mount.result()
    assert seconds < 4 and answer[0] == 500 and "mount goes on, try again" in answer[1]["Err"], (seconds, answer)
    flocker.kill("worker")
    wait_for("the mount", lambda: flocker.plugin("Mount", Name="stuck", ID="1")[0] == 200)


def test_failed_create_leaves_nothing(hosts, flocker_binary):
    flocker = Flocker(hosts(network=hosts.network()), flocker_binary)
    flocker.up("create.staged:1:error")
    answer = flocker.plugin("Create", Name="db")
    assert answer[0] == 500 and re.fullmatch("volume db: create volume [0-9a-f-]*: failpoint", answer[1]["Err"])
    flocker.check(gone=["db"])
    flocker.ok("Create", Name="db")
    flocker.check(live=["db"])


def restart_agent(flocker, later_s=0):
    """The agent anew, with a boot clock that is so much later."""
    flocker.kill("agent")
    flocker.up_later(later_s)


def test_lost_unmount(hosts, flocker_binary):
    """An Unmount is lost while no agent runs: the reference goes when no container can be behind it any more."""
    flocker = Flocker(hosts(network=hosts.network()), flocker_binary)
    flocker.up()
    flocker.ok("Create", Name="db")
    flocker.ok("Mount", Name="db", ID="1")
    restart_agent(flocker)
    assert flocker.get("db")["Status"]["references"] == 1
    restart_agent(flocker, 125)
    assert flocker.get("db")["Status"]["references"] == 1
    wait_for("the reference to go", lambda: flocker.get("db")["Status"]["references"] == 0, 30)
    flocker.check(live=["db"], references={"db": 0})


@pytest.mark.docker("20")
def test_unmounted_by_hand(small):
    """What is not mounted any more is mounted again: a container must not be given the bare directory, on the host's own disk."""
    host = small.host
    run_busybox(host, "db", "echo 1 >/keep/file")
    host.docker("run", "-d", "--name", "user", "-v", "db:/keep", "--volume-driver=flocker", "busybox", "sleep", "1000")
    point = small.get("db")["Mountpoint"]
    for number in (2, 3):
        host.run(["umount", point])
        assert run_busybox(host, "db", f"cat /keep/file; echo {number} >/keep/file").stdout == f"{number - 1}\n"
        assert host.docker("exec", "user", "cat", "/keep/file").stdout == f"{number}\n"
    host.run(["umount", point])
    host.path(point).rmdir()
    assert run_busybox(host, "db", "cat /keep/file").stdout == "3\n"


@pytest.mark.docker("20")
def test_pool_file_moved_away(small):
    """While the pool is mounted nothing is made in the place of its file."""
    host, image = small.host, small.host.path("/var/lib/flocker/pool.img")
    run_busybox(host, "db", "echo 1 >/keep/file")
    image.rename(image.with_suffix(".away"))
    host.kill_flocker("agent")
    refused = host.flocker("up", check=False)
    assert refused.returncode and "move the file back" in refused.stderr, refused
    assert not image.exists()
    image.with_suffix(".away").rename(image)
    wait_for("the pool", lambda: small.get("db"), 40)
    assert run_busybox(host, "db", "cat /keep/file").stdout == "1\n"


@pytest.mark.docker("20")
def test_damaged_references(small):
    host = small.host
    counter = Counter(host)
    folder = host.path("/run/flocker/refs")
    for content in (b"", b"[{]", b"[1]", b"\0" * 100):
        file = next(folder.glob("*.json"))
        small.kill("agent")
        file.write_bytes(content)
        file.with_name(file.name + ".tmp").write_bytes(content)
        small.up()
        assert "references are lost, the kernel's mount tables decide alone" in small.log()
        small.ok("Mount", Name="counter", ID="other")
    counter.check()
    small.ok("Unmount", Name="counter", ID="other")
    counter.check()
    # No folder to keep them in.
    small.kill("agent")
    host.run(["sh", "-c", "mv /run/flocker/refs /run/flocker/away; echo >/run/flocker/refs"])
    refused = small.up(check=False)
    assert refused.returncode and "/run/flocker/refs: Not a directory" in refused.stderr
    counter.check()
    host.run(["rm", "/run/flocker/refs"])
    small.up()
    counter.check()
    host.docker("rm", "-f", "counter")
    wait_for("the unmount", lambda: not small.mounts(), 60)
    small.check(live=["counter"])


def test_power_cut(hosts, flocker_binary):
    """What was acknowledged is on disk: the pool and the store are set back to what had been written to them when the power went."""
    host = hosts(network=hosts.network())
    flocker = Flocker(host, flocker_binary)
    flocker.up()
    flocker.ok("Create", Name="old")
    flocker.ok("Mount", Name="old", ID="1")
    removed = flocker.get("old")["Status"]["id"]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda name: flocker.plugin("Create", Name=name), [f"v{number}" for number in range(10)]))
    flocker.ok("Remove", Name="old")
    disk = host.work / "disk/var/lib/flocker"
    subprocess.run(f"mkdir {disk}/at-cut && cp --sparse=always {disk}/pool.img {disk}/control.db* {disk}/at-cut", shell=True, check=True)
    host.power_cut()
    subprocess.run(f"rm -f {disk}/control.db* && mv {disk}/at-cut/* {disk} && rmdir {disk}/at-cut", shell=True, check=True)
    host.power_on()
    assert [answer[0] for answer in answers] == [200] * 10
    flocker = Flocker(host, flocker_binary)
    flocker.up()
    flocker.check(live=[f"v{number}" for number in range(10)], gone=["old"], trashed=[removed])
    for number in range(10):
        flocker.ok("Mount", Name=f"v{number}", ID="1")
