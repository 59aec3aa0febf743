"""What the tests of faults share: calls of the plugin and of control, ends of daemons, and what must hold afterwards."""
import json
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

from host import FLOCKER_SOCKET
from paths import CHECKOUT, wait_for

CONTROL_SOCKET = "/run/flocker/control.sock"
POOL = "/var/lib/flocker/pool"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KILLER = """
while read role; do
    if [ "$role" = worker ]; then
        pid=; for p in /proc/[0-9]*; do
            c=; read c <$p/comm; if [ "$c" = flocker-worker ]; then pid=${p#/proc/}; break; fi
        done
    else
        pid=; read pid </run/flocker/$role.pid
        c=; read c </proc/$pid/comm; [ "$c" = flocker-$role ] || pid=
    fi 2>/dev/null
    [ -n "$pid" ] && kill -9 $pid 2>/dev/null && echo $pid || echo none
done
"""


def failpoints():
    """Names in the order of the table."""
    header = (CHECKOUT / "src/base/failpoint.h").read_text()
    return re.findall(r'^    X\([A-Z_]+, +"([a-z.-]+)"\)', header, re.M)


class Flocker:
    """Flocker on a host, as an engine and an operator see it."""

    def __init__(self, host, binary, args=()):
        self.host, self.binary, self.args = host, str(Path(binary).resolve()), list(args)
        self.killer, self.lock = None, threading.Lock()
        host.flocker_binary = binary

    # ---- start and end

    def up(self, failpoint=None, check=True):
        env = {"FLOCKER_FAILPOINT": failpoint} if failpoint else {}
        return self.host.run([self.binary, "up", *self.args], env=env, check=check)

    def up_later(self, seconds):
        """What does not run is started with a boot clock that is so much later."""
        return self.host.run(["unshare", "--time", "--boottime", str(seconds), "--fork", self.binary, "up", *self.args])

    def kill(self, role):
        """kill -9 of "agent", "control" or any one "worker"; returns whether there was one."""
        with self.lock:
            if not self.killer or self.killer.poll() is not None:  # it ends with a power cut
                self.killer = self.host.popen(["sh", "-c", KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.killer.stdin.write(role + "\n")
            self.killer.stdin.flush()
            pid = self.killer.stdout.readline().strip()
        if pid == "none":
            return False
        wait_for(f"the end of {role}", lambda: not self.host.is_running(pid))
        return True

    def stop(self, role):
        self.host.kill_flocker(role, 15)
        wait_for(f"the end of {role}", lambda: not self.answers(role))

    def answers(self, role):
        """Whether it listens."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.host.path(f"/run/flocker/{role}.sock")))
                return True
        except OSError:
            return False

    def wipe(self):
        """As if Flocker had never been here, but for its certificates."""
        for role in ("agent", "control"):
            self.kill(role)
        for line in reversed(self.mounts()):
            self.host.run(["umount", line])
        for file in ("/flocker", POOL):
            self.host.run(["sh", "-c", f"while umount {file} 2>/dev/null; do :; done"])
        self.host.run(["sh", "-c", "rm -rf /var/lib/flocker/* /run/flocker /var/log/flocker/* /flocker/*"])

    def log(self):
        texts = []
        for name in ("control", "agent"):
            file = self.host.path(f"/var/log/flocker/{name}.log")
            texts.append(file.read_text(errors="replace") if file.exists() else "")
        return "\n".join(texts)

    # ---- calls

    def plugin(self, call, timeout=10, **body):
        """(status, reply), or None if the connection ended without an answer."""
        answer = self.host.ask(FLOCKER_SOCKET, "POST", f"/VolumeDriver.{call}", json.dumps(body).encode(), timeout)
        return answer and (answer[0], json.loads(answer[1]))

    def ok(self, call, **body):
        answer = self.plugin(call, **body)
        assert answer and answer[0] == 200, (call, body, answer, self.log()[-3000:])
        return answer[1]

    def get(self, name):
        answer = self.plugin("Get", Name=name)
        return answer[1]["Volume"] if answer and answer[0] == 200 else None

    def control(self, method, target, body=None):
        answer = self.host.ask(CONTROL_SOCKET, method, target, json.dumps(body).encode() if body is not None else b"")
        return answer and (answer[0], json.loads(answer[1]))

    def purge(self, volume):
        return self.control("DELETE", f"/v2/volumes/{volume}?purge=1")

    # ---- what must hold

    def mounts(self):
        table = self.host.path("/proc/1/mountinfo").read_text().splitlines()
        return [point for point in (line.split()[4] for line in table) if UUID.fullmatch(point.removeprefix("/flocker/"))]

    def references(self):
        folder = self.host.path("/run/flocker/refs")
        files = {name: json.loads((folder / name).read_text()) for name in os.listdir(folder) if name.endswith(".json")}
        left = [name for name in os.listdir(folder) if name.endswith(".tmp")]
        return {name.removesuffix(".json"): sum(ref["count"] + ref["open"] for ref in refs) for name, refs in files.items()}, left

    def wrong(self, live=(), gone=(), trashed=(), references=None):
        """Sentences about what is not as it must be. live: names that must be there, once; gone: names that must not;
        trashed: ids that must be in the trash; references: {name: number} for names whose number is known."""
        answer = self.control("GET", "/v2/volumes?all=1")
        listing = self.plugin("List")
        if not answer or answer[0] != 200 or not listing or listing[0] != 200:
            return [f"no answers: {answer} {listing}"]
        known = {volume["id"]: volume for volume in answer[1]}
        names = [volume["name"] for volume in known.values() if volume["state"] == "live"]
        listed = [volume["Name"] for volume in listing[1]["Volumes"]]
        folder = self.host.path(f"{POOL}/volumes")
        records = {name: json.loads((folder / name / "volume.json").read_text()) for name in os.listdir(folder)}
        subvolumes = self.host.run(["btrfs", "subvolume", "list", POOL]).stdout.split("\n")
        subvolumes = sorted(line.split(" path ")[1] for line in subvolumes if line)
        mounted = {point.removeprefix("/flocker/") for point in self.mounts()}
        counts, leftover = self.references()
        found = []

        def must(what, holds):
            if not holds:
                found.append(what)

        must(f"names twice in control: {sorted(names)}", len(names) == len(set(names)))
        must(f"control and agent differ: {set(names) ^ set(listed)}", sorted(names) == sorted(listed))
        for name in live:
            must(f"{name} was acknowledged and is missing", name in names)
        for name in gone:
            must(f"{name} was removed and is there", name not in names)
        for volume in trashed:
            must(f"{volume} was removed and is not in the trash", known.get(volume, {}).get("state") == "trashed")
        must(f"control and pool differ: {set(known) ^ set(records)}", set(known) == set(records))
        for volume in set(known) & set(records):
            must(f"{volume} is {known[volume]['state']}, its record says {records[volume]['state']}",
                 known[volume]["state"] == records[volume]["state"])
            must(f"{volume} has size {known[volume]['size']}, its record says {records[volume].get('size', 0)}",
                 known[volume]["size"] == records[volume].get("size", 0))
        must(f"subvolumes {subvolumes} of {sorted(records)}", subvolumes == sorted(f"volumes/{name}/data" for name in records))
        must(f"staging: {os.listdir(self.host.path(f'{POOL}/staging'))}", not os.listdir(self.host.path(f"{POOL}/staging")))
        must(f"mounted {mounted}, referenced {counts}", mounted == set(counts))
        must(f"mount points left over: {set(os.listdir(self.host.path('/flocker'))) - mounted}",
             set(os.listdir(self.host.path("/flocker"))) == mounted)
        must(f"references for unknown volumes: {set(counts) - set(known)}", set(counts) <= set(known))
        must(f"leftovers of references: {leftover}", not leftover)
        for name, number in (references or {}).items():
            volume = self.get(name)
            must(f"{name} has {volume and volume['Status']['references']} references, not {number}",
                 volume and volume["Status"]["references"] == number)
        return found

    def check(self, timeout=30, **expected):
        """Waits until all is as it must be: what was under way goes on after an answer."""
        end = time.monotonic() + timeout
        while True:
            try:
                found = self.wrong(**expected)
            except (OSError, ValueError) as error:  # something changes while we look
                found = [repr(error)]
            if not found:
                assert not re.search("Sanitizer|runtime error|ASSERT", self.log()), self.log()
                return
            assert time.monotonic() < end, "\n".join([*found, self.log()[-6000:]])
            time.sleep(0.05)
