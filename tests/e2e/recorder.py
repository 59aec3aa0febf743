"""Records what an engine asks a volume plugin and what it is answered.

As a program in a host it listens where a plugin NAME is looked for, and either forwards each request, byte for byte, to another
plugin's socket, or answers as a stand-in whose volumes are plain folders:

    recorder.py LISTEN LOG forward SOCKET
    recorder.py LISTEN LOG stand-in FOLDER

LOG gets one line of JSON per request. (Flocker sees the recorder, not the engine, as the other end of the socket.)
"""
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

from paths import wait_for


class Recorder:
    """The recorder as a test sees it: starts it in a host as plugin NAME and reads its log."""

    def __init__(self, host, name="recorded", forward=None):
        self.socket = f"/run/docker/plugins/{name}.sock"
        self.log = host.work / "log" / f"{name}.jsonl"
        self.log.write_text("")
        self.seen = 0
        role = ["forward", forward] if forward else ["stand-in", "/flocker"]
        self.process = host.popen(["/usr/bin/python3", Path(__file__), self.socket, self.log, *role])
        wait_for("the recorder to listen", lambda: self._alive() and host.path(self.socket).exists())
        host.plugins[name] = self.socket

    def _alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the recorder ended with {self.process.returncode}")
        return True

    def all(self):
        """Every request so far, as logged: when, connection, call, head, body, status, reply, seconds."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def new(self):
        """Those since the last time new() or calls() was asked."""
        entries = self.all()
        first, self.seen = self.seen, len(entries)
        return entries[first:]

    def calls(self):
        """The new requests in short: "Create v", "Mount v #1": mount ids are numbered as they first appear in the log."""
        ids = {}
        for entry in self.all():
            if isinstance(entry["body"], dict) and "ID" in entry["body"]:
                ids.setdefault(entry["body"]["ID"], f"#{len(ids) + 1}")
        return [short(entry, ids) for entry in self.new()]


def short(entry, ids):
    body = entry["body"] if isinstance(entry["body"], dict) else {}
    words = [entry["call"].rpartition(".")[2], body.get("Name"), ids.get(body.get("ID"))]
    return " ".join(word for word in words if word is not None)


class StandIn:
    """The smallest volume plugin: a volume is a folder, nothing is mounted."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def answer(self, call, body):
        name = body.get("Name", "")
        path = self.folder / name
        if call == "Plugin.Activate":
            return 200, {"Implements": ["VolumeDriver"]}
        if call == "VolumeDriver.Capabilities":
            return 200, {"Capabilities": {"Scope": "local"}}
        if call == "VolumeDriver.List":
            return 200, {"Volumes": [{"Name": entry.name, "Mountpoint": str(entry)} for entry in self.folder.iterdir()], "Err": ""}
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", name):
            return 500, {"Err": "bad name"}
        if call == "VolumeDriver.Create":
            path.mkdir(exist_ok=True)
        elif not path.is_dir():
            return 500, {"Err": f"no such volume: {name}"}
        if call == "VolumeDriver.Get":
            return 200, {"Volume": {"Name": name, "Mountpoint": str(path)}, "Err": ""}
        if call in ("VolumeDriver.Mount", "VolumeDriver.Path"):
            return 200, {"Mountpoint": str(path), "Err": ""}
        if call == "VolumeDriver.Remove":
            shutil.rmtree(path)
        return 200, {"Err": ""}

    def exchange(self, head, body):
        status, reply = self.answer(head.split()[1].decode().lstrip("/"), decoded(body) or {})
        content = json.dumps(reply).encode()
        return (f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
                "Connection: close\r\n\r\n").encode(), content


class Forwarder:
    def __init__(self, target):
        self.target = target

    def exchange(self, head, body):
        """The other plugin's (head, body); None where it ended the connection without a reply, as the engine then sees too."""
        try:
            with socket.socket(socket.AF_UNIX) as plugin:
                plugin.connect(self.target)
                plugin.sendall(head + body)
                return read_message(plugin.makefile("rb"))
        except OSError:
            return None


def read_message(stream):
    """(head with its empty line, body) of one HTTP message, or None at the end of the stream."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    length = re.search(rb"^content-length:\s*(\d+)", head, re.IGNORECASE | re.MULTILINE)
    if length:
        return head, stream.read(int(length[1]))
    return head, stream.read() if head.startswith(b"HTTP/") else b""


def decoded(body):
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace") or None


def serve(connection, number, plugin, log):
    stream = connection.makefile("rb")
    while message := read_message(stream):
        head, body = message
        begin = time.time()
        reply = plugin.exchange(head, body)
        entry = {"when": begin, "connection": number, "call": head.split()[1].decode().lstrip("/"), "head": head.decode("latin-1"),
                 "body": decoded(body), "seconds": round(time.time() - begin, 4),
                 "status": int(reply[0].split()[1]) if reply else None, "reply": decoded(reply[1]) if reply else None}
        os.write(log, (json.dumps(entry) + "\n").encode())  # one write to a file opened for appending: lines never mix
        if reply is None:
            break
        connection.sendall(reply[0] + reply[1])
        if re.search(rb"^connection:\s*close", reply[0], re.IGNORECASE | re.MULTILINE):
            break
    stream.close()
    connection.close()


def main(listen, log, role, target):
    plugin = {"forward": Forwarder, "stand-in": StandIn}[role](target)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    Path(listen).unlink(missing_ok=True)
    Path(listen).parent.mkdir(parents=True, exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(listen)
    server.listen(128)
    for number in range(1, sys.maxsize):
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection, number, plugin, output), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
