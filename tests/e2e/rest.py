"""A client of control's REST API in a test host, as strict as any that exists: each reply is checked for what all replies promise."""
import ctypes
import http.client
import json
import os
import re
import socket
import ssl
import uuid
from contextlib import contextmanager
from pathlib import Path

from paths import wait_for

PORT = 4523
CONTROL_SOCKET = "/run/flocker/control.sock"
MIB = 1 << 20
SIZE = 64 * MIB  # the smallest there is
TAG = "X-Configuration-Tag"
MATCHES = "X-If-Configuration-Matches"
UNDECODABLE = {"description": "The request body could not be decoded according to the value of the Content-Type header."}
MISMATCH = "The provided JSON doesn't match the required schema."
REPORTS = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "flocker: bug:")  # in a daemon's log: a bug

SOME_ID = "5f0dfb6c-9c8e-4c3d-8b42-7ae0b1c2d3e4"  # of nothing; the same in every process, for the names of tests


def new_id():
    return str(uuid.uuid4())


class Reply:
    def __init__(self, response):
        self.status, self.headers, self.text = response.status, response.headers, response.read()
        self.tag = self.headers.get(TAG)

    @property
    def json(self):
        return json.loads(self.text)

    def __repr__(self):
        return f"<{self.status} {self.text.decode(errors='replace')}>"


@contextmanager
def network_of(host):
    """Sockets made meanwhile belong to the host's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as mine, open(f"/proc/{host.holder}/ns/net", "rb") as its:
        assert libc.setns(its.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(mine.fileno(), 0) == 0


def tcp(host, timeout=10):
    with network_of(host):
        client = socket.socket()
    client.settimeout(timeout)
    client.connect(("127.0.0.1", PORT))
    return client


def unix(host, timeout=10):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(timeout)
    client.connect(str(host.path(CONTROL_SOCKET)))
    return client


def tls_context(host, certificate="user"):
    """certificate: the name of a pair in /etc/flocker, a folder with user.crt and user.key, or None."""
    etc = host.path("/etc/flocker")
    context = ssl.create_default_context(cafile=str(etc / "cluster.crt"))
    if certificate:
        pair = certificate / "user" if isinstance(certificate, Path) else etc / certificate
        context.load_cert_chain(f"{pair}.crt", f"{pair}.key")
    return context


class Rest:
    """Each call is a connection of its own, by TLS with the user's certificate or by the socket of local root."""

    def __init__(self, host, by_socket=False):
        self.host, self.by_socket = host, by_socket
        self.context = None if by_socket else tls_context(host)

    def connect(self, name="control-service", timeout=40):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)
        if self.by_socket:
            connection.sock = unix(self.host, timeout)
        else:
            connection.sock = self.context.wrap_socket(tcp(self.host, timeout), server_hostname=name)
        return connection

    def send(self, connection, method, path, body=None, headers=()):
        """body: bytes as they are, anything else as JSON, None for none."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = Reply(connection.getresponse())
        assert reply.headers["Content-Type"] == "application/json"
        if method != "HEAD":
            json.loads(reply.text)
            assert reply.text == reply.text.rstrip() or "Err" in reply.json, "a line feed, and it was the API that answered"
            chunked = reply.headers.get("Transfer-Encoding") == "chunked"  # a list that took longer than a turn of the loop
            assert chunked or len(reply.text) == int(reply.headers["Content-Length"])
        return reply

    def __call__(self, method, path, body=None, headers=()):
        connection = self.connect()
        try:
            return self.send(connection, method, path, body, headers)
        finally:
            connection.close()

    def ok(self, method, path, body=None, status=200, headers=()):
        reply = self(method, path, body, headers)
        assert reply.status == status, reply
        return reply.json

    # ---- v1

    def node(self):
        return wait_for("the node", lambda: self.ok("GET", "/v1/state/nodes"))[0]["uuid"]

    def create(self, **body):
        body.setdefault("primary", self.node())
        return self.ok("POST", "/v1/configuration/datasets", body, 201)

    def dataset(self, dataset_id):
        return {d["dataset_id"]: d for d in self.ok("GET", "/v1/configuration/datasets")}.get(dataset_id)

    def states(self, dataset_id):
        return [d for d in self.ok("GET", "/v1/state/datasets") if d["dataset_id"] == dataset_id]

    def mounted(self, dataset_id):
        return wait_for("the mount", lambda: [d for d in self.states(dataset_id) if "path" in d])[0]

    def tag(self):
        return self("HEAD", "/v1/configuration/datasets").tag


def up(host, binary):
    """Starts what of Flocker does not run, and returns when it does."""
    host.flocker_binary = Path(binary).resolve()
    host.run([host.flocker_binary, "up"], timeout=60)
    Rest(host, by_socket=True).node()


def logs(host):
    return "".join(file.read_text(errors="replace") for file in sorted((host.work / "disk/var/log/flocker").glob("*.log")))


def check_logs(host):
    found = [line for line in logs(host).splitlines() if any(word in line for word in REPORTS)]
    assert not found, found


@contextmanager
def cluster(maker, binary):
    """A host with a network of its own in which Flocker runs; at the end its logs are searched for reports of bugs."""
    host = maker(network=maker.network())
    up(host, binary)
    yield host
    done = host.run([host.flocker_binary, "down"], check=False)
    check_logs(host)
    assert done.returncode == 0, done.stderr


def error_code(reply):
    """The code of an error as v2 writes them."""
    assert set(reply.json) == {"code", "description"} and re.search(r"\w", reply.json["description"]), reply
    return reply.status, reply.json["code"]
