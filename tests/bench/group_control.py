"""Control in a cluster of 1000 nodes with 100 000 volumes: what it needs, how soon a change is with its agent, how soon all is well again after
control was killed. The agents are played by one process (agents.c), over TLS, on the same machine: it takes its part of the processors."""
import contextlib
import http.client
import json
import multiprocessing
import os
import queue
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from figures import Figure, median, p99, spread
from hosts import progress

NODES, VOLUMES = 1000, 100000
CHANGES, GETS, LISTS = 500, 300, 3
IDLE_S, LIMIT_S = 20, 120
RSS_AIM_MIB, CHANGE_AIM_MS, RECONNECT_AIM_S, HOLD_AIM_MS = 256, 100, 5, 50


class Control:
    """`flocker control` with a root of its own."""

    def __init__(self, folder, binary):
        self.root, self.binary, self.port = folder, binary, free_port()
        self.socket = folder / "run/flocker/control.sock"
        self.process = None

    def start(self):
        command = [self.binary, "--root", self.root, "control", "--rest", "none", "--agents", f"127.0.0.1:{self.port}"]
        log = open(self.root / "control.log", "ab")  # pylint: disable=consider-using-with
        with log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ, FLOCKER_LOG="error"))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def connect(self):
        connection = http.client.HTTPConnection("control")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(LIMIT_S)
        connection.sock.connect(str(self.socket))
        return connection

    def rss_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Players:
    """bench_agents, and the lines that it says."""

    def __init__(self, binary, control):
        command = [binary, "play", control.root, str(control.port), str(NODES), str(VOLUMES)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.synced, self.wants = queue.Queue(), queue.Queue()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            word, *rest = line.split()
            {"synced": self.synced, "want": self.wants}[word].put(rest)

    def await_synced(self):
        """(seconds, bytes) since all were connected last."""
        seconds, size = self.synced.get(timeout=LIMIT_S)
        return float(seconds), int(size)

    def cut(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def request(connection, method, path, body=None):
    """(milliseconds, bytes of the answer, answer)"""
    begin = time.monotonic_ns()
    connection.request(method, path, json.dumps(body) if body else None)
    reply = connection.getresponse()
    text = reply.read()
    took = (time.monotonic_ns() - begin) / 1e6
    if reply.status not in (200, 201):
        raise RuntimeError(f"{method} {path}: {reply.status} {text[:200].decode(errors='replace')}")
    return took, len(text), text


def measure(folder, binary, add):
    player = binary.parent / "tests/bench/bench_agents"
    for below in ("etc/flocker", "var/lib/flocker"):
        (folder / below).mkdir(parents=True)
    subprocess.run([player, "fill", folder, str(NODES), str(VOLUMES)], check=True)
    control = Control(folder, binary)
    with contextlib.ExitStack() as stack:
        control.start()
        stack.callback(lambda: control.kill())  # pylint: disable=unnecessary-lambda
        players = Players(player, control)
        stack.callback(players.close)
        seconds, size = players.await_synced()
        progress(f"({NODES} agents, {VOLUMES} volumes: first sync {seconds:.1f} s, {size / 1e6:.0f} MB)")
        idle(control, add)
        changes(control, players, add)
        rest(control, add)
        reconnect(control, players, add)


def idle(control, add):
    time.sleep(2)
    before = control.cpu_s()
    time.sleep(IDLE_S)
    add(Figure("control.idle_cpu_percent", (control.cpu_s() - before) / IDLE_S * 100, "%", note=f"{NODES} agents connected, {IDLE_S} s"))
    add(Figure("control.rss_mib", control.rss_mib(), "MiB", aim=RSS_AIM_MIB, note=f"{NODES} agents, {VOLUMES} volumes, all synced"))


def changes(control, players, add):
    """One at a time: from before the request to the order's arrival. The reference: a write of a record to the same disk, with its sync."""
    connection, times, commits = control.connect(), [], []
    with open(control.root / "reference", "wb", buffering=0) as file:
        for i in range(CHANGES):
            name = f"volume-{random.randrange(VOLUMES)}"
            begin = time.monotonic_ns()
            _, _, text = request(connection, "PATCH", f"/v2/volumes/{name}", {"size": (2 << 30) + i * 1024})
            volume = json.loads(text)
            while True:
                identity, _, at_ns = players.wants.get(timeout=LIMIT_S)
                if identity == volume["id"]:
                    break
            times.append((int(at_ns) - begin) / 1e6)
            commits.append(commit(file))
    add(Figure("control.change.p99_ms", p99(times), "ms", p99(commits), aim=CHANGE_AIM_MS,
               note=f"{spread(times)}; reference: 8 KiB written and synced, p50={median(commits):.2f}"))


def commit(file):
    begin = time.monotonic_ns()
    file.write(bytes(8192))
    os.fdatasync(file.fileno())
    return (time.monotonic_ns() - begin) / 1e6


def rest(control, add):
    connection, gets, versions = control.connect(), [], []
    for _ in range(GETS):
        gets.append(request(connection, "GET", f"/v2/volumes/volume-{random.randrange(VOLUMES)}")[0])
        versions.append(request(connection, "GET", "/v1/version")[0])
    add(Figure("control.get_ms", median(gets), "ms", median(versions), note=f"{spread(gets)}; reference: GET /v1/version"))
    for name, path in (("v1", "/v1/configuration/datasets"), ("v1_state", "/v1/state/datasets"), ("v2", "/v2/volumes")):
        held, times, size = lists(control, path)
        add(Figure(f"control.list_{name}_ms", median(times), "ms", note=f"{size / 1e6:.1f} MB; {spread(times)}"))
        add(Figure(f"control.list_{name}_holds_ms", max(held), "ms", aim=HOLD_AIM_MS, note=f"GET /v1/version meanwhile, the slowest; {spread(held)}"))


def lists(control, path):
    """Another process reads the list, all pages of it, while this one asks for something small again and again: how long that took each time, how
    long the lists, bytes of a list."""
    done = multiprocessing.Queue()
    reader = multiprocessing.Process(target=read_lists, args=(control, path, done))
    connection, held = control.connect(), []
    reader.start()
    while done.empty():
        held.append(request(connection, "GET", "/v1/version")[0])
        time.sleep(0.001)
    times, size = done.get()
    reader.join()
    return held, times, size


def read_lists(control, path, done):
    times = []
    for _ in range(LISTS):
        connection, target, size, begin = control.connect(), path, 0, time.monotonic_ns()
        while target:
            connection.request("GET", target)
            reply = connection.getresponse()
            size += len(reply.read())
            link = reply.headers.get("Link")
            target = link and link[1:link.index(">")]
        times.append((time.monotonic_ns() - begin) / 1e6)
    done.put((times, size))


def reconnect(control, players, add):
    players.cut()
    seconds, size = players.await_synced()
    add(Figure("control.resume_s", seconds, "s", note=f"all connections cut, control stayed: {size / 1e6:.2f} MB to the agents"))
    control.kill()
    control.start()
    seconds, size = players.await_synced()
    add(Figure("control.reconnect_s", seconds, "s", aim=RECONNECT_AIM_S,
               note=f"after kill -9: store read, all connected and told anew, {size / 1e6:.0f} MB; {control.cpu_s():.1f} s of a processor"))
    add(Figure("control.rss_after_mib", control.rss_mib(), "MiB", aim=RSS_AIM_MIB, note="right after that"))
