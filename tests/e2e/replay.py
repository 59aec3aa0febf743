"""Engines as a volume plugin sees them, without the engines: single calls, and whole recordings of real ones.

As a program in a host it is one engine process, which the plugin knows by its pid. For each line of JSON on its standard input,
{"call", "body", "leave"}, it makes one request and writes one line with the reply, {"status", "body"}, or null if the connection
was closed without one. With "leave" it goes away before the reply instead.

    replay.py SOCKET docker|podman
"""
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from paths import CHECKOUT, wait_for

TRACES = CHECKOUT.parent / "shared" / "reference" / "engine-traces"
SOCKET = "/run/docker/plugins/flocker/flocker.sock"
HEADERS = {
    "docker": "Host: \r\nUser-Agent: Go-http-client/1.1\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n",
    "podman": "Host: plugin\r\nUser-Agent: Go-http-client/1.1\r\nContent-Type: application/vnd.docker.plugins.v1.1+json\r\n",
}
PODMAN_ID = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2"  # Podman's one mount ID, for every volume


class Engine:
    """An engine process in a host, as a test drives it."""

    def __init__(self, host, kind="docker"):
        self.process = host.popen(["/usr/bin/python3", Path(__file__), SOCKET, kind], text=True, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.end()

    def send(self, call, body=None, leave=False):
        """One request. The reply as (status, decoded JSON), or None if there was none."""
        text = body if isinstance(body, str) else json.dumps(body) + "\n" if body is not None else ""
        self.process.stdin.write(json.dumps({"call": call, "body": text, "leave": leave}) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        return (reply["status"], json.loads(reply["body"])) if reply else None

    def call(self, verb, name, **members):
        return self.send(f"VolumeDriver.{verb}", {"Name": name, **members})

    def ok(self, verb, name, **members):
        """A call that has to succeed; its reply."""
        status, reply = self.call(verb, name, **members)
        assert (status, reply.get("Err")) == (200, ""), (verb, name, status, reply)
        return reply

    def end(self, sig=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


# ---- recordings ------------------------------------------------------------------------------------------------------------

CALL = re.compile(r"^[\d.]+ conn\d+ POST /([\w.]+) HTTP/1.1 \| ([^|]*) \| ?(.*)$")
MANAGED_CALL = re.compile(r"^[\d.]+ pid\d+ /([\w.]+) hdr=map\[[^{]*\] host=\S* ?(\{.*\})?$")
NEW_PROCESS = re.compile(r"^##### .*\brestart dockerd")  # of a managed plugin, which is never activated
# What the recorded plugin was told to do wrong, which its log does not show: (text of the section, volume, what became of Mount).
FAILED, LEFT = "failed", "left"
WRONG = [(r"failing.mount", "vf", FAILED), (r"while Mount\(v2\) fails", "v2", FAILED), (r"^slow mount (\(40s\) with|125)", None, LEFT),
         (r"plugin drops first Mount", None, LEFT)]
OWN_OPTIONS = ("a", "failmount")  # options of the recorded plugin, which Flocker rightly refuses


class Event:
    """One recorded call: by which engine process (counted from 0), in which section, and what became of it."""

    def __init__(self, number, engine, kind, section, call, text):
        self.number, self.engine, self.kind, self.section, self.call, self.text = number, engine, kind, section, call, text
        self.body = json.loads(text) if text else None
        self.name = (self.body or {}).get("Name")
        self.verb = call.rpartition(".")[2]
        self.outcome = None
        if self.verb == "Mount" and self.body:
            for pattern, name, outcome in WRONG:
                if re.search(pattern, section) and name in (None, self.name):
                    self.outcome = outcome

    def __repr__(self):
        return f"line {self.number}, engine {self.engine}, {self.section!r}: {self.call} {self.text}"


def parse(text):
    """The calls of a transcript, in order."""
    events, engine, section = [], -1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("##### "):
            section = line[6:]
        found, managed = CALL.match(line), MANAGED_CALL.match(line)
        if found:
            call, headers, body = found.groups()
        elif managed:
            (call, body), headers = managed.groups(), ""
        # One process of an engine activates a plugin once.
        if (found and call == "Plugin.Activate") or NEW_PROCESS.match(line) or (engine < 0 and (found or managed)):
            engine += 1
        if found or managed:
            kind = "podman" if "Content-Type" in headers else "docker"
            kind = events[-1].kind if events and events[-1].engine == engine else kind
            events.append(Event(number, engine, kind, section, call, (body or "").strip()))
    return events


class Replay:
    """Plays a transcript's calls to Flocker on a host, one process per recorded engine process, and checks every reply.

    No containers run: Flocker finds none, which is what it would find at the end.
    """

    def __init__(self, host, events):
        self.host, self.events = host, events
        self.engine, self.number = None, None
        self.volumes, self.mounts = set(), {}  # names; {(name, ID): count} of the engine process at hand

    def run(self):
        try:
            for event in self.events:
                self.play(event)
        finally:
            self.end_engine()

    def end_engine(self):
        if self.engine:
            self.engine.end()
        self.engine, self.mounts = None, {}

    def play(self, event):
        if event.engine != self.number:
            self.end_engine()
            self.engine, self.number = Engine(self.host, event.kind), event.engine
        if event.outcome == LEFT:
            self.leave(event)
            return
        begin = time.monotonic()
        reply = self.engine.send(event.call, self.request(event))
        assert time.monotonic() - begin < 4.5, event
        self.check(event, reply)

    def request(self, event):
        body = event.body
        if event.outcome == FAILED:
            body = {**body, "ID": "x" * 1000}  # one way to make a Mount fail
        if event.verb == "Create":
            options = {key: value for key, value in (body["Opts"] or {}).items() if key not in OWN_OPTIONS}
            body = {**body, "Opts": options if body["Opts"] is not None else None}
        return body if body is None or body != event.body else event.text + "\n"

    def leave(self, event):
        """The engine's patience has ended before Flocker answers."""
        self.host.kill_flocker("agent", signal.SIGSTOP)
        try:
            self.engine.send(event.call, event.body, leave=True)
        finally:
            self.host.kill_flocker("agent", signal.SIGCONT)

    def check(self, event, reply):
        if event.body is None and event.verb in ("Get", "Mount"):
            assert reply is None if event.verb == "Get" else reply[0] == 500, (event, reply)
            return
        assert reply is not None, event
        status, body = reply
        assert isinstance(body, dict) and (status == 200) == (not body.get("Err")), (event, reply)
        assert status in (200, 500), (event, reply)
        assert (status == 200) == self.should_succeed(event), (event, reply)
        key = (event.name, (event.body or {}).get("ID"))
        if status == 200 and event.verb == "Create":
            self.volumes.add(event.name)
        elif event.verb == "Remove":
            self.volumes.discard(event.name)
        elif status == 200 and event.verb == "Mount":
            self.mounts[key] = self.mounts.get(key, 0) + 1
            assert body["Mountpoint"] in mount_points(self.host), (event, "not mounted")
        elif event.verb == "Unmount" and self.mounts.get(key):
            self.mounts[key] -= 1
            self.check_still_mounted(event)

    def should_succeed(self, event):
        if event.verb == "Create":
            return re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", event.name) is not None
        if event.verb in ("Get", "Path", "Mount"):
            return event.name in self.volumes and event.outcome is None
        return True

    def check_still_mounted(self, event):
        if any(count for (name, _), count in self.mounts.items() if name == event.name):
            _, reply = self.engine.call("Get", event.name)
            assert reply["Volume"]["Mountpoint"] in mount_points(self.host), (event, "unmounted early")


def mount_points(host, below="/flocker/"):
    """Where volumes are mounted in a host."""
    points = [line.split()[4] for line in host.path("/proc/1/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(below)]


def references(host):
    """{volume id: references} as Flocker keeps them."""
    folder = host.path("/run/flocker/refs")
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def start_agent(host):
    """The agent alone, without `up`, which would start control too."""
    host.run(["sh", "-c", f"exec setsid {host.flocker_binary} agent >>/var/log/flocker/agent.log 2>&1 </dev/null &"])
    wait_for("the agent", lambda: (host.ask(SOCKET, "POST", "/Plugin.Activate") or (0,))[0] == 200)


def wait_until_unmounted(host, timeout=10.0):
    wait_for("all volumes to be unmounted and all references to be gone",
             lambda: not mount_points(host) and not references(host), timeout)


# ---- in the host -------------------------------------------------------------------------------------------------------------

def exchange(path, headers, request):
    body = request["body"].encode()
    with socket.socket(socket.AF_UNIX) as plugin:
        plugin.settimeout(130)
        plugin.connect(path)
        plugin.sendall(f"POST /{request['call']} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if request["leave"]:
            time.sleep(0.2)
            return None
        try:
            reply = b"".join(iter(lambda: plugin.recv(65536), b""))
        except ConnectionResetError:
            return None
    head, _, content = reply.partition(b"\r\n\r\n")
    return {"status": int(head.split()[1]), "body": content.decode()} if head else None


def main(path, kind):
    for line in sys.stdin:
        print(json.dumps(exchange(path, HEADERS[kind], json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
