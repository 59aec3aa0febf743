"""Volumes that move while daemons, workers, links and hosts fail: who is on what, what a patient user does, and what must hold afterwards."""
import hashlib
import json
import os
import re
import threading
import time

from cluster import AGENTS, make_cluster
from faults import POOL, Flocker
from paths import wait_for

PATIENCE_S = 90  # also on a machine that has much else to do
USER = "user"
MIB = 1 << 20
TEMPORARY = re.compile(r"can't be reached|went away|is not ready|killed by signal 9|try again|is being moved|in use|on its way|not connected|"
                       r"has not said|waits for|no reply|did not answer|ended with status 1 and no answer")


class Movers:
    """Hosts of one cluster. The first has control; each has an agent."""

    def __init__(self, hosts, binary, count):
        self.hosts = make_cluster(hosts, binary, count)
        self.network = self.hosts[0].network
        self.flockers = [Flocker(host, binary) for host in self.hosts]
        self.flockers[0].args = [f"--agents={AGENTS}", "--rest=0.0.0.0:4523", f"--host={self.network.address(self.hosts[0])}"]
        self.control = self.flockers[0]
        self.ids = {host.name: self.node_of(host) for host in self.hosts}
        self.by_node = {self.ids[flocker.host.name]: flocker for flocker in self.flockers}
        self.numbers = 0

    def node_of(self, host):
        address = self.network.address(host)
        return next(node["id"] for node in self.control.control("GET", "/v2/nodes")[1] if node["host"] == address)

    def id(self, flocker):
        return self.ids[flocker.host.name]

    def volume(self, owner, mib=3):
        """A new volume with some data, mounted at its owner."""
        self.numbers += 1
        volume = Moving(self, f"v{self.numbers}")
        volume.create(owner)
        volume.write(owner, mib * MIB)
        return volume

    def forget_logs(self):
        for flocker in self.flockers:
            for file in flocker.host.path("/var/log/flocker").glob("*.log"):
                os.truncate(file, 0)

    def restore_links(self):
        for host in self.hosts:
            self.network.mend(host)
            self.network.deliver(host)

    def restore(self):
        """All as it was at the beginning, whatever a test that has failed has left."""
        self.restore_links()
        for flocker in self.flockers:
            if not flocker.host.holder:
                flocker.host.power_on()
            flocker.up()
        for flocker in self.flockers:
            self.wait(f"{flocker.host.name} to be connected", lambda f=flocker: self.is_up(f))
        with Watch(self):
            for volume in self.control.control("GET", "/v2/volumes?all=1")[1]:
                self.remove(volume)
            self.settled()

    def is_up(self, flocker):
        return {node["id"]: node["state"] for node in self.control.control("GET", "/v2/nodes")[1]}[self.id(flocker)] == "up"

    def remove(self, volume):
        """For good."""
        def gone():
            shown = self.control.control("GET", f"/v2/volumes/{volume['id']}")
            if shown[0] == 404:
                return True
            owner = self.by_node[shown[1]["owner"]]
            for _ in range((owner.get(volume["name"]) or {"Status": {}})["Status"].get("references", 0)):
                for user in (USER, "x"):
                    owner.plugin("Unmount", Name=volume["name"], ID=user)
            return self.control.purge(volume["id"])[0] == 404
        self.wait(f"{volume['name']} to be removed", gone)

    # ---- what must hold

    def leftovers(self, volumes=()):
        """What should not be: all that moves leave while they are under way, and data that control does not know to be there."""
        found = []
        expected = {volume["id"]: volume["owner"] for volume in self.control.control("GET", "/v2/volumes?all=1")[1]}
        for flocker in self.flockers:
            pool = flocker.host.path(POOL)
            for pattern in ("incoming/*", "volumes/*/out.*", "staging/*"):
                found += [f"{flocker.host.name}: {path.relative_to(pool)}" for path in pool.glob(pattern)]
            here = set(os.listdir(pool / "volumes"))
            should = {volume for volume, node in expected.items() if node == self.id(flocker)}
            if here != should:
                found.append(f"{flocker.host.name}: has {sorted(here)}, not {sorted(should)}")
        found += [f"{volume.name}: {volume.shown()}" for volume in volumes if "move" in volume.shown()]
        return found

    def settled(self, *volumes, timeout=PATIENCE_S):
        """Waits until no move is under way and nothing of one is left."""
        self.wait("moves to end and leave nothing", lambda: not self.leftovers(volumes), timeout)

    def wait(self, what, condition, timeout=PATIENCE_S, interval=0.05):
        def holds():
            try:
                return condition()
            except (OSError, ValueError, KeyError, TypeError):  # a daemon or a host is away, something changes while we look
                return None
        try:
            return wait_for(what, holds, timeout, interval)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None

    def describe(self):
        """For the message about a failure."""
        answer = self.control.control("GET", "/v2/volumes?all=1")
        texts = [f"volumes: {json.dumps(answer and answer[1], indent=1)}"]
        try:
            texts += self.leftovers()
        except (OSError, TypeError) as error:
            texts.append(repr(error))
        texts += [f"==== {flocker.host.name}\n{flocker.log()[-5000:]}" for flocker in self.flockers]
        return "\n".join(texts)

    def check_logs(self):
        for flocker in self.flockers:
            assert not re.search("Sanitizer|runtime error|flocker: bug:|ASSERT", flocker.log()), flocker.log()[-6000:]


class Moving:
    """One volume, and what has been written to it."""

    def __init__(self, movers, name):
        self.movers, self.name, self.id, self.written = movers, name, None, {}

    # ---- as a user does

    def step(self, flocker, call, timeout=PATIENCE_S, **body):
        """A call of the plugin, repeated until it succeeds. What it is told meanwhile must be an error that says that it may."""
        end = time.monotonic() + timeout
        while True:
            begin = time.monotonic()
            answer = flocker.plugin(call, Name=self.name, **body)
            if answer and answer[0] == 200:
                return answer[1]
            if answer:
                assert TEMPORARY.search(answer[1]["Err"]), (call, answer, self.movers.describe())
            assert time.monotonic() < end, f"{call} {self.name}: {answer}\n{self.movers.describe()}"
            time.sleep(max(0.0, begin + 0.05 - time.monotonic()))

    def create(self, flocker):
        self.step(flocker, "Create", Opts={"size": "512M"})
        self.id = self.movers.wait("the volume", lambda: flocker.get(self.name)["Status"]["id"])
        self.mount(flocker)

    def mount(self, flocker):
        self.step(flocker, "Mount", ID=USER)

    def unmount(self, flocker):
        """Until no reference is left: a Mount whose answer was lost may have left one that nobody knows."""
        self.step(flocker, "Unmount", ID=USER)
        self.movers.wait("the references to go", lambda: self._unreferenced(flocker))

    def _unreferenced(self, flocker):
        volume = flocker.get(self.name)
        if volume and volume["Status"].get("references", 0):
            flocker.plugin("Unmount", Name=self.name, ID=USER)
        return volume and not volume["Status"].get("references", 0)

    def move(self, to, check=True, **wish):
        return self.control("POST", "/move", {"node": self.movers.id(to), **wish}, check=check)

    def cancel(self):
        """Also if an answer to the same wish was lost."""
        status, body = self.control("DELETE", "/move", check=False)
        assert status in (200, 202) or "is not being moved" in body["description"], (status, body)

    def control(self, method, path="", body=None, check=True):
        """Asks control until it answers."""
        answer = self.movers.wait("an answer of control", lambda: self.movers.control.control(method, f"/v2/volumes/{self.name}{path}", body))
        assert not check or answer[0] in (200, 202), answer
        return answer

    # ---- as it is

    def shown(self):
        return self.movers.control.control("GET", f"/v2/volumes/{self.name}")[1]

    def stage(self):
        return self.shown().get("move", {}).get("stage", "none")

    def wait_stage(self, *stages):
        self.movers.wait(f"{self.name} to be in stage {' or '.join(stages)}", lambda: self.stage() in stages)

    def wait_bytes(self, least=1):
        """Until the transfer is well under way."""
        self.movers.wait("the transfer", lambda: self.shown()["move"].get("bytes", 0) >= least)

    def owner(self):
        return self.movers.by_node[self.shown()["owner"]]

    def wait_owner(self, flocker, timeout=PATIENCE_S):
        self.movers.wait(f"{self.name} to be on {flocker.host.name}", lambda: self.owner() is flocker, timeout)

    def arrive(self, flocker):
        """Waits until it has moved there, and looks whether all of it has."""
        self.wait_owner(flocker)
        self.movers.settled(self)
        self.mount(flocker)
        self.verify(flocker)
        self.unmount(flocker)

    def error(self):
        shown = self.shown()
        return (shown.get("error") or shown.get("move", {}).get("error") or {}).get("description", "")

    def folder(self, flocker):
        return flocker.host.path(f"/flocker/{self.id}")

    def is_mounted(self, flocker):
        return f"/flocker/{self.id}" in flocker.mounts()

    # ---- its data

    def write(self, flocker, size):
        """One more file, durable."""
        assert self.is_mounted(flocker)
        name, content = f"file{len(self.written)}", os.urandom(size)
        with open(self.folder(flocker) / name, "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        self.written[name] = hashlib.sha256(content).hexdigest()

    def verify(self, flocker):
        """While it is mounted there: all that was ever written is there, and nothing else."""
        assert self.is_mounted(flocker), self.movers.describe()
        folder = self.folder(flocker)
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in os.listdir(folder)}
        assert found == self.written, f"{self.name} on {flocker.host.name}: {found}, not {self.written}\n{self.movers.describe()}"


class Watch:
    """While it lasts: daemons that end are started again, as a service manager does, and no two hosts have one volume mounted."""

    def __init__(self, movers, volume=None):
        self.movers, self.volume, self.violations = movers, volume, []

    def __enter__(self):
        self.end, self.thread = threading.Event(), threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, kind, *_error):
        self.end.set()
        self.thread.join()
        assert kind or not self.violations, self.violations

    def run(self):
        while not self.end.wait(0.03):
            for flocker in self.movers.flockers:
                roles = ["agent"] + (["control"] if flocker is self.movers.control else [])
                if flocker.host.holder and not all(map(flocker.answers, roles)):
                    flocker.up(check=False)
            self.look_for_two_writers()

    def mounted(self):
        try:
            return [flocker.host.name for flocker in self.movers.flockers if flocker.host.holder and self.volume.is_mounted(flocker)]
        except OSError:
            return []

    def look_for_two_writers(self):
        """Hosts are looked at one after the other, so it takes two looks: who had it at both had it also in between."""
        if not self.volume or not self.volume.id or len(first := self.mounted()) < 2:
            return
        both = set(first) & set(self.mounted())
        if len(both) > 1:
            self.violations.append(f"{self.volume.name} is mounted on {sorted(both)}")


