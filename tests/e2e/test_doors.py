"""Control's doors on the network, 4524 and 4523: who is let in, and what strangers can do."""
import json
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from cluster import control_log, make_cluster, node_of, nodes, start_control
from paths import wait_for
from rest import network_of, new_id

AGENTS, REST = 4524, 4523


@pytest.fixture(scope="module", name="pair")
def pair_of_module(module_hosts, flocker_binary):
    one, two = make_cluster(module_hosts, flocker_binary, 2)
    yield one, two
    wait_for("control to be as well as before", lambda: {node["state"] for node in nodes(one).values()} >= {"up"})


@pytest.fixture(name="etc")
def folder_of_the_cluster(pair, tmp_path):
    """A copy of the control host's /etc/flocker, for certificates of the tests' own."""
    folder = tmp_path / "etc"
    shutil.copytree(pair[0].path("/etc/flocker"), folder)
    return folder


def ca(binary, folder, *words, life=None):
    """`flocker ca` in a folder; returns the base name of what was made."""
    environment = {"PATH": "/usr/bin:/bin", **({"FLOCKER_CERTIFICATE_S": str(life)} if life else {})}
    command = [str(Path(binary).resolve()), "ca", *words, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, text=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout).get("file")


def dial(host, port, timeout=15):
    with network_of(host):
        client = socket.socket()
    client.settimeout(timeout)
    client.connect(("127.0.0.1", port))
    return client


class Door:
    """A connection by TLS, with the pair `name` of a folder, or with none."""

    def __init__(self, host, port, folder, name=None):
        context = ssl.create_default_context(cafile=str(host.path("/etc/flocker/cluster.crt")))
        if name:
            context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
        self.socket = context.wrap_socket(dial(host, port), server_hostname="control-service")
        self.lines = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.lines.close()
        self.socket.close()

    def say(self, **message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def hello(self, node):
        self.say(type="hello", protocol=1, version="x", node=node, era=new_id(), host="10.9.9.9")

    def hear(self):
        """The next message that is not a sign of life; None at the end."""
        try:
            while line := self.lines.readline():
                message = json.loads(line)
                if message["type"] != "alive":
                    return message
        except (ConnectionError, ssl.SSLError):
            pass
        return None


def is_refused(host, port, folder, name):
    """The other side ends it without a word, in the handshake or after it."""
    try:
        with Door(host, port, folder, name) as door:
            if port == REST:
                door.socket.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
            else:
                door.hello(new_id())
            return not door.lines.readline()
    except (ConnectionError, ssl.SSLError):
        return True


@pytest.mark.parametrize("port", [AGENTS, REST])
def test_foreign_and_expired_certificates(pair, etc, tmp_path, flocker_binary, port):
    one, _ = pair
    kind = ["node"] if port == AGENTS else ["user", "eve"]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    ca(flocker_binary, foreign, "init", "foreign")
    assert is_refused(one, port, foreign, ca(flocker_binary, foreign, *kind))
    expired = ca(flocker_binary, etc, *kind, life=1)
    wait_for("its end", lambda: is_refused(one, port, etc, expired))
    assert not is_refused(one, REST, etc, "user")


def test_each_door_has_its_kind(pair, etc):
    one, _ = pair
    assert is_refused(one, REST, etc, "node")
    assert is_refused(one, REST, etc, None)
    assert is_refused(one, REST, etc, "engine")
    for name in ("user", "engine", "plugin"):
        with pytest.raises((ConnectionError, ssl.SSLError)) if name == "plugin" else Door(one, AGENTS, etc, name) as door:
            if name == "plugin":  # a server's certificate is not good for a client
                assert is_refused(one, AGENTS, etc, name)
                raise ConnectionError
            assert door.hear() is None
    assert wait_for("the log", lambda: "'user-admin', not for a node" in control_log(one))


def test_an_agent_that_lies_about_its_node(pair, etc, flocker_binary):
    one, two = pair
    mine = ca(flocker_binary, etc, "node")
    with Door(one, AGENTS, etc, mine) as door:
        door.hello(node_of(one, two)["id"])
        said = door.hear()
        assert said["type"] == "refused" and "certificate is that of node " + mine in said["message"]
        door.say(type="inventory-end")  # nobody listens any more
        assert door.hear() is None
    with Door(one, AGENTS, etc, mine) as door:
        door.hello(mine)
        assert door.hear()["type"] == "welcome"
        door.say(type="inventory-end")
        assert door.hear() == {"type": "want-end"}
    assert node_of(one, two)["state"] == "up"
    one.flocker("node", "rm", mine)
    with Door(one, AGENTS, etc, mine) as door:
        door.hello(mine)
        assert "was removed" in door.hear()["message"]


def test_a_removed_nodes_connection_is_closed(pair, etc, flocker_binary):
    one, _ = pair
    mine = ca(flocker_binary, etc, "node")
    with Door(one, AGENTS, etc, mine) as door:
        door.hello(mine)
        assert door.hear()["type"] == "welcome"
        door.say(type="inventory-end")
        assert door.hear() == {"type": "want-end"}
        one.flocker("node", "rm", mine)
        said = door.hear()
        assert said["type"] == "refused" and said["code"] == "denied"
        assert door.hear() is None


def get(door, path="/v2/users"):
    """(status, document) of one more request on that connection; (None, None): it was closed."""
    try:
        door.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status = door.lines.readline().split()
        length = 0
        while status and (line := door.lines.readline().strip()):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return (int(status[1]), json.loads(door.lines.read(length))) if status else (None, None)
    except (ConnectionError, ssl.SSLError):
        return None, None


def test_a_revoked_user(pair, etc, flocker_binary):
    """Refused at once, on open connections too and after a restart; let in with a new key and its renewals, never with the old one."""
    one, _ = pair
    etc_new = etc.parent / "new"
    shutil.copytree(etc, etc_new)
    old = ca(flocker_binary, etc, "user", "eve")
    with Door(one, REST, etc, old) as eve, Door(one, REST, etc, old) as busy, Door(one, REST, etc, "user") as admin:
        assert get(eve) == get(admin) == (200, [])
        body = b'{"name": "slow", "owner": "%s"}' % new_id().encode()
        busy.socket.sendall(b"POST /v2/volumes?wait=30 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_for("that to wait", lambda: "slow" in one.flocker("volume", "ls", "-q").stdout)
        made = one.flocker("node", "token").stdout.strip()  # by whom, nobody knows
        assert "refused from now on" in one.flocker("user", "revoke", "eve").stdout
        begin = time.monotonic()
        assert get(eve) == (None, None) and not busy.lines.readline()
        assert time.monotonic() - begin < 5
        (revoked,) = get(admin)[1]
        assert (revoked["name"], revoked["key"]) == ("eve", None)
    with Door(one, AGENTS, None) as door:
        door.say(type="join", token=made, csr={"node": "x"})
        assert door.hear()["code"] == "denied"
    one.kill_flocker("control")
    start_control(one, flocker_binary)
    for name in (old, ca(flocker_binary, etc, "user", "eve", "--renew")):
        with Door(one, REST, etc, name) as eve:
            status, answer = get(eve)
            assert status == 403 and answer["code"] == "denied" and "revoked" in answer["description"]
    fresh = ca(flocker_binary, etc_new, "user", "eve")
    with Door(one, REST, etc_new, fresh) as eve:
        assert get(eve)[0] == 403
    shutil.copy(etc_new / "eve.crt", one.path("/tmp/eve.crt"))
    one.flocker("user", "admit", "/tmp/eve.crt")
    ca(flocker_binary, etc_new, "user", "eve", "--renew")
    with Door(one, REST, etc_new, fresh) as eve, Door(one, REST, etc, old) as thief, Door(one, REST, etc, "user") as admin:
        assert get(thief)[0] == 403 and get(admin)[0] == 200
        assert get(eve)[0] == 200 and len(get(eve)[1][0]["key"]) == 64
        assert "eve" in one.flocker("user", "ls").stdout
        one.flocker("user", "revoke", "eve")
        assert get(eve) == (None, None) and get(admin)[0] == 200
    assert not one.flocker_json("user", "ls")[0]["key"]


def test_only_root_of_the_control_host_revokes(pair, etc, flocker_binary):
    one, _ = pair
    name = ca(flocker_binary, etc, "user", "mallory")
    with Door(one, REST, etc, name) as door:
        door.socket.sendall(b"DELETE /v2/users/admin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 403 " in door.lines.readline()
    for method, user, key, status in (("POST", "nobody", "a" * 64, 404), ("POST", "nobody", "A" * 64, 400), ("POST", "nobody", "a" * 63, 400),
                                      ("DELETE", "x" * 200, None, 400), ("DELETE", "%ff", None, 400)):
        body = json.dumps({"key": key}).encode() if key else b""
        assert one.ask("/run/flocker/control.sock", method, f"/v2/users/{user}", body)[0] == status, (method, user, key)


def test_what_a_stranger_may_say(pair):
    one, two = pair
    with Door(one, AGENTS, None) as door:
        door.hello(node_of(one, two)["id"])
        assert "no certificate" in door.hear()["message"]
    for message in ({"type": "inventory-end"}, {"type": "report", "id": new_id()}, {"type": "renew", "n": 1, "csr": {}}, {"type": "x"}, {}):
        with Door(one, AGENTS, None) as door:
            door.say(**message)
            assert door.hear() is None
    for line in (b"\n", b"GET / HTTP/1.1\r\n\r\n", b"{" * 60000 + b"\n", b"x" * 200000, bytes(range(256)) + b"\n"):
        with Door(one, AGENTS, None) as door:
            try:
                door.socket.sendall(line)
            except (ConnectionError, ssl.SSLError):
                pass
            assert door.hear() is None


def test_guessing_tokens_is_slow(pair):
    one, _ = pair
    wrong = "join1." + "A" * 64
    begin = time.monotonic()
    with Door(one, AGENTS, None) as door:
        door.say(type="join", token=wrong, csr={"node": "x"})
        assert door.hear()["code"] == "denied"
    assert time.monotonic() - begin >= 0.9
    for token in (wrong, "x", 5, None):
        with Door(one, AGENTS, None) as door:
            door.say(type="join", token=token)
            assert door.hear()["type"] == "refused"
    doors = [Door(one, AGENTS, None) for _ in range(8)]
    try:
        with Door(one, AGENTS, None) as ninth:
            assert "try again" in ninth.hear()["message"]
    finally:
        for door in doors:
            door.socket.close()


def test_one_host_does_not_keep_others_from_joining(pair):
    one, two = pair
    doors = [Door(one, AGENTS, None) for _ in range(20)]
    with network_of(two):
        plain = socket.socket()
    plain.settimeout(15)
    plain.connect((one.network.address(one), AGENTS))
    context = ssl.create_default_context(cafile=str(one.path("/etc/flocker/cluster.crt")))
    with context.wrap_socket(plain, server_hostname="control-service") as client:
        client.sendall(json.dumps({"type": "join", "token": one.flocker("node", "token").stdout.strip(), "csr": {"node": "x"}}).encode() + b"\n")
        assert "not a request for a certificate" in json.loads(client.recv(65536))["message"], "it was let in"
    for door in doors:
        door.socket.close()


def test_silence_is_not_waited_for(pair):
    """Neither a connection without a handshake, nor one without a hello, stays for long; and nobody is kept out meanwhile."""
    one, _ = pair
    begin = time.monotonic()
    silent, half = dial(one, AGENTS), dial(one, AGENTS)
    half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # the beginning of a ClientHello
    with Door(one, AGENTS, None) as strange, silent, half:
        for client in (silent, half, strange.socket):
            assert client.recv(1) == b""
    assert 9 < time.monotonic() - begin < 14


def test_a_network_that_is_cut_is_noticed_by_both(pair):
    one, two = pair
    two.network.cut(two)
    wait_for("control to notice", lambda: node_of(one, two)["state"] == "down", 30)
    assert wait_for("the agent to notice", lambda: not json.loads(two.flocker("status", "--json", check=False).stdout)
                    .get("result", {"control": {"up": True}})["control"]["up"], 30)
    two.network.mend(two)
    wait_for("them to meet again", lambda: node_of(one, two)["state"] == "up", 30)
