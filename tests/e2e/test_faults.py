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
import threading
import time

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
HITS = [(point, hit) for point in failpoints() for hit in range(1, 10 if ROUNDS > 10 else 2)]
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

    def revive(self):
        if not (self.flocker.answers("control") and self.flocker.answers("agent")):
            assert self.fired(), f"a daemon died: {self.flocker.log()[-3000:]}"
            self.flocker.up()

    def step(self, ask):
        end = time.monotonic() + PATIENCE_S
        while True:
            answer = ask()
            if answer and answer[0] in (200, 201):
                return answer[1]
            assert self.fired() and time.monotonic() < end, (answer, self.flocker.log()[-4000:])
            time.sleep(0.05)
            self.revive()

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

    def run(self):
        flocker = self.flocker
        self.plugin("Create", Name="a", Opts={"size": "128M"})
        volume = self.plugin("Get", Name="a")["Volume"]["Status"]["id"]
        self.plugin("Mount", Name="a", ID="user")
        self.step(lambda: flocker.control("PATCH", "/v2/volumes/a?wait=5", {"size": "256M"}))
        self.plugin("Create", Name="b")
        self.plugin("Mount", Name="b", ID="user")
        flocker.host.path(f"/flocker/{self.plugin('Get', Name='b')['Volume']['Status']['id']}/file").write_text("kept")
        flocker.check(live=("a", "b"))
        self.unused("a")
        self.plugin("Remove", Name="a")
        self.revive()
        flocker.check(live=("b",), gone=("a",), trashed=(volume,))
        self.purge(volume)
        self.revive()
        flocker.check(live=("b",), gone=("a",))
        self.unused("b")
        self.revive()
        flocker.host.run([flocker.binary, "down"], check=not self.failpoint.startswith("shutdown"))
        flocker.up()
        self.plugin("Mount", Name="b", ID="user")
        assert flocker.host.path(flocker.get("b")["Mountpoint"] + "/file").read_text() == "kept"
        flocker.check(live=("b",), gone=("a",), references={"b": 1})


@pytest.mark.parametrize("name, hit", HITS, ids=lambda value: str(value))
def test_killed_at(swept_host, flocker_binary, name, hit):
    flocker = Flocker(swept_host, flocker_binary, ["--pool-size=512M"])
    flocker.wipe()
    cycle = Cycle(flocker, name)
    started = flocker.up(f"{name}:{hit}", check=False)
    if started.returncode:
        assert cycle.fired(), started.stderr + flocker.log()[-3000:]
        flocker.up()
    cycle.run()
    assert hit > 1 or cycle.fired(), f"{name} was never reached"


# ---- random moments


class Storm:
    """What was acknowledged, by name and id, while creates and removes race with kills."""

    def __init__(self, flocker, rng):
        self.flocker, self.rng, self.lock = flocker, rng, threading.Lock()
        self.live, self.unknown, self.trashed, self.errors = {}, set(), set(), set()
        self.number = 0

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
        raise TimeoutError(f"{call} {body}: no success in {PATIENCE_S} s, last {answer}")

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
        while not stop.wait(self.rng.uniform(0.02, 0.5)):
            role = self.rng.choice(["agent", "agent", "control", "worker", "worker"])
            self.flocker.kill(role)
            if role != "worker":
                self.flocker.up(check=False)

    def round(self):
        jobs = []
        for name in self.rng.sample(sorted(self.live), min(25, len(self.live))):
            jobs.append((self.remove, name))
        while len(jobs) < 50:
            self.number += 1
            jobs.append((self.create, f"v{self.number}"))
        self.rng.shuffle(jobs)
        patience = [self.rng.random() < 0.8 for _ in jobs]
        stop = threading.Event()
        killer = threading.Thread(target=self.kills, args=(stop,))
        killer.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
                for done in [pool.submit(run, name, patient) for (run, name), patient in zip(jobs, patience)]:
                    done.result()
        finally:
            stop.set()
            killer.join()

    def check(self):
        """Everything as it must be, and the ids of what is there learnt."""
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
    counter.check(pause=30)
    host.docker("rm", "-f", "counter")
    wait_for("the unmount", lambda: not flocker.mounts(), 30)
    assert flocker.get("counter")["Status"]["references"] == 0


def test_one_name_created_by_twenty_at_once(hosts, flocker_binary):
    flocker = Flocker(hosts(network=hosts.network()), flocker_binary)
    flocker.up()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: flocker.plugin("Create", Name="one"), range(20)))
    assert [answer[0] for answer in answers] == [200] * 20
    flocker.check(live=["one"])
    assert len(os.listdir(flocker.host.path(f"{POOL}/volumes"))) == 1
