"""What agents tell, as the REST API shows it; and agents that misbehave. The agents here are connections of the test's own."""
import json
import socket
import threading
import time

import pytest

from paths import wait_for
from rest import SIZE, Rest, cluster, error_code, new_id, up

AGENTS_SOCKET = "/run/flocker/agents.sock"
VOLUMES = "/v2/volumes"
OPTIONS = {"uid": 0, "gid": 0, "mode": 0o777, "nocow": False}


@pytest.fixture(scope="module", name="host")
def host_of_module(module_hosts, flocker_binary):
    with cluster(module_hosts, flocker_binary) as host:
        yield host


@pytest.fixture(scope="module")
def rest(host):
    return Rest(host, by_socket=True)


class Agent:
    """A connection to control that says what it is told to say."""

    def __init__(self, host, node=None, hello=True, timeout=5):
        self.node, self.era = node or new_id(), new_id()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(host.path(AGENTS_SOCKET)))
        self.lines = self.socket.makefile("rb")
        if hello:
            self.say(**self.hello())
            assert self.hear()["type"] == "welcome"
            self.say(type="inventory-end")
            self.wants = list(iter(self.hear, {"type": "want-end"}))

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.lines.close()
        self.socket.close()

    def hello(self):
        return {"type": "hello", "protocol": 1, "version": "x", "node": self.node, "era": self.era, "host": "10.1.2.3"}

    def say(self, **message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def hear(self):
        line = self.lines.readline()
        return json.loads(line) if line else None

    def want(self):
        message = self.hear()
        assert message["type"] == "want", message
        return message["volume"]

    def report(self, volume, **changes):
        self.say(**{"type": "report", "id": volume["id"], "epoch": volume["epoch"], "revision": volume["revision"], "present": True,
                    "mounted": False, **changes})

    def ask(self, **request):
        """A request and the reply to it; the wants that come before it are skipped."""
        self.say(type="request", n=5, **request)
        while (message := self.hear())["type"] != "reply":
            assert message["type"] == "want"
        assert message["n"] == 5
        return message

    def is_closed(self):
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


def create(rest, agent, **body):
    """A volume that the agent has reported to be there."""
    created = rest.ok("POST", VOLUMES, {"owner": agent.node, **body}, 201)
    assert not created["ready"] and "error" not in created
    want = agent.want()
    assert want["id"] == created["id"] and want["state"] == "live"
    agent.report(want)
    wait_for("the report", lambda: rest.ok("GET", f"{VOLUMES}/{created['id']}")["ready"])
    while not want["born"]:
        want = agent.want()
    return want


def show(rest, volume):
    return rest.ok("GET", f"{VOLUMES}/{volume['id']}")


def background(call):
    """Runs a call in a thread; wait() is its value."""
    values = []
    thread = threading.Thread(target=lambda: values.append(call()))
    thread.start()

    def wait(timeout=30):
        thread.join(timeout)
        assert values, "no answer in time"
        return values[0]

    return wait


def is_listed(rest, entry):
    """Whether a node has all these members."""
    return any(entry.items() <= node.items() for node in rest.ok("GET", "/v2/nodes"))


def test_second_node(host, rest):
    first = rest.node()
    with Agent(host) as agent:
        entry = {"id": agent.node, "host": "10.1.2.3", "era": agent.era, "connected": True, "state": "up"}
        assert is_listed(rest, entry)
        assert {"host": "10.1.2.3", "uuid": agent.node} in rest.ok("GET", "/v1/state/nodes")
        assert rest.ok("GET", f"/v1/state/nodes/by_era/{agent.era}") == {"uuid": agent.node}
        volume = create(rest, agent)
        assert show(rest, volume)["host"] == "10.1.2.3"
    wait_for("the end of the connection", lambda: is_listed(rest, {**entry, "connected": False, "state": "down"}))
    assert {"host": "10.1.2.3", "uuid": agent.node} in rest.ok("GET", "/v1/state/nodes"), "not gone at its first disconnect"
    assert rest.ok("GET", f"/v1/state/nodes/by_era/{agent.era}") == {"uuid": agent.node}
    with Agent(host, agent.node) as again:
        assert [w["volume"]["id"] for w in again.wants] == [volume["id"]]
        assert rest.ok("GET", f"/v1/state/nodes/by_era/{again.era}") == {"uuid": agent.node}
        assert rest("GET", f"/v1/state/nodes/by_era/{agent.era}").status == 404, "that boot is over"
    assert first in [n["uuid"] for n in rest.ok("GET", "/v1/state/nodes")]


HELLO = {"type": "hello", "protocol": 1, "version": "x", "node": new_id(), "era": new_id(), "host": "h"}
BAD_HELLOS = [{"protocol": 2}, {"protocol": None}, {"protocol": "1"}, {"node": None}, {"node": "x"}, {"node": 5}, {"era": None}, {"era": ""},
              {"host": None}, {"host": 5}, {"host": "x" * 64}, {"node": "0" * 8 + "-0000-0000-0000-" + "0" * 12}]


@pytest.mark.parametrize("change", BAD_HELLOS, ids=str)
def test_bad_hello(host, rest, change):
    with Agent(host, hello=False) as agent:
        agent.say(**{name: value for name, value in {**HELLO, **change}.items() if value is not None})
        assert agent.is_closed()
    assert HELLO["node"] not in [n["id"] for n in rest.ok("GET", "/v2/nodes")]


@pytest.mark.parametrize("line", [b"", b"x", b"{}", b"null", b"[]", b'"hello"', b'{"type": 5}', b'{"type": "x"}', b'{"type": "hello"', b"\x00", b"\xff",
                                  b'{"type": "report"}', b'{"type": "inventory-end"}', b'{"type": "want-end"}', b"[" * 60000, b"x" * 70000,
                                  b'{"type": "hello", "type": "hello"}'], ids=lambda line: repr(line[:40]))
@pytest.mark.parametrize("hello", [False, True])
def test_line_that_is_no_message(host, rest, line, hello):
    """Closes the connection, whether it comes before the hello or after it."""
    with Agent(host, hello=hello) as agent:
        try:
            agent.socket.sendall(line + b"\n")
        except BrokenPipeError:
            pass
        if hello and line == b'{"type": "inventory-end"}':
            assert agent.hear() == {"type": "want-end"}
        else:
            assert agent.is_closed()
    assert rest.ok("GET", "/v2/status")["nodes"]["connected"] >= 1


def test_hello_twice(host, rest):
    for node in (None, new_id()):
        with Agent(host) as agent:
            agent.say(**{**agent.hello(), **({"node": node} if node else {})})
            assert agent.is_closed()
        wait_for("the end", lambda: not [n for n in rest.ok("GET", "/v2/nodes") if n["id"] == agent.node and n["connected"]])


def test_later_connection_of_a_node_counts(host, rest):
    with Agent(host) as old:
        volume = create(rest, old)
        removal = background(lambda: rest("DELETE", f"{VOLUMES}/{volume['id']}"))
        assert old.hear()["type"] == "remove"
        with Agent(host, old.node) as new:
            assert error_code(removal()) == (503, "unavailable") and old.node in removal().json["description"]
            assert old.is_closed()
            new.report(volume, mounted=True, path="/flocker/x")
            wait_for("the report", lambda: show(rest, volume)["mounted"])
            assert "error" not in show(rest, volume)


def test_no_hello(host, rest):
    """Connections that never say who they are end after a while, and meanwhile keep no agent out."""
    silent = [Agent(host, hello=False, timeout=20) for _ in range(600)]
    with Agent(host) as agent:
        begin = time.monotonic()
        assert all(one.is_closed() for one in silent)
        assert time.monotonic() - begin < 15
        create(rest, agent)
    for one in silent:
        one.__exit__()


def test_only_the_owner_is_believed(host, rest):
    with Agent(host) as owner, Agent(host) as other:
        volume = create(rest, owner)
        owner.report(volume, mounted=True, path="/flocker/owner")
        wait_for("the report", lambda: show(rest, volume)["mounted"])
        before = show(rest, volume), rest.states(volume["id"])
        for changes in ({"present": False}, {"mounted": True, "path": "/flocker/other"}, {"error": {"code": "io-error", "message": "x"}}):
            other.report(volume, **changes)
        other.report({**volume, "id": new_id()})  # of a volume that nobody knows
        assert other.ask(op="nothing")["error"]["code"] == "unsupported", "the reports before were read"
        assert (show(rest, volume), rest.states(volume["id"])) == before


def test_move_before_there_is_data(host, rest):
    """Its owner may be making it just now, so it waits; an owner that was never heard of can't."""
    with Agent(host) as first, Agent(host) as second:
        created = rest.ok("POST", VOLUMES, {"owner": first.node}, 201)
        want = first.want()
        first.report(want, present=False, error={"code": "no-space", "message": "the pool is full"})
        wait_for("the error", lambda: show(rest, created).get("error"))
        rest.ok("POST", f"/v1/configuration/datasets/{created['id']}", {"primary": second.node})
        assert second.want()["owner"] == first.node
        first.report(first.want())
        while "move" not in (want := first.want()):
            pass
        assert want["move"]["stage"] == "warm"
        unheard = rest.ok("POST", "/v1/configuration/datasets", {"primary": new_id()}, 201)["dataset_id"]
        rest.ok("POST", f"/v1/configuration/datasets/{unheard}", {"primary": second.node})
        while (moved := second.want())["id"] != unheard:
            pass
        assert (moved["owner"], moved["epoch"]) == (second.node, 2)


@pytest.mark.parametrize("used", [0, 5 << 30, None, "x", -1.5])
def test_usage(host, rest, used):
    """An agent that can't tell, or tells nonsense, costs the client nothing but that number."""
    with Agent(host) as agent:
        volume = create(rest, agent)
        for error in ({}, {"error": {"code": "io-error", "message": "x"}}):
            call = background(lambda: rest.ok("GET", f"{VOLUMES}/{volume['id']}?usage=1"))
            question = agent.hear()
            assert (question["type"], question["id"]) == ("usage", volume["id"])
            agent.say(type="reply", n=question["n"], **error, **({} if used is None else {"used": used}))
            assert call() == {**show(rest, volume), "used": used if isinstance(used, int) and not error else None}


@pytest.mark.parametrize("error", [{"code": "no-space", "message": "the pool is full"}, {"code": "no-space"}, {"message": "x"}, {}, 5, "x", []], ids=str)
def test_error_of_an_agent(host, rest, error):
    with Agent(host) as agent:
        volume = create(rest, agent)
        agent.report(volume, error=error)
        shown = wait_for("the error", lambda: show(rest, volume).get("error"))
        given = error if isinstance(error, dict) else {}
        assert shown["code"] == given.get("code", "io-error") and shown["description"] == given.get("message", shown["description"]) != ""
        agent.report(volume)
        wait_for("the end of the error", lambda: "error" not in show(rest, volume))


def test_wait(host, rest):
    """It ends with what the owner reports after the change: that it is done, or why not. What it said before does not count."""
    with Agent(host) as agent:
        volume = create(rest, agent)
        path = f"{VOLUMES}/{volume['id']}?wait=20"
        call = background(lambda: rest.ok("PATCH", path, {"size": SIZE}))
        want = agent.want()
        agent.report(volume)  # the revision before
        agent.report(want, revision=want["revision"] - 1, error={"code": "io-error", "message": "sparks"})
        assert call()["error"]["description"] == "sparks"
        call = background(lambda: rest.ok("PATCH", path, {"size": 2 * SIZE}))
        want = agent.want()
        time.sleep(0.3)
        agent.report(want)
        assert "error" not in call() and call()["size"] == 2 * SIZE


def test_wait_ends_with_control(host, flocker_binary, rest):
    """A client that waits while control is stopped is not left hanging."""
    with Agent(host) as agent:
        volume = create(rest, agent)
        connection = rest.connect()
        connection.request("PATCH", f"{VOLUMES}/{volume['id']}?wait=30", json.dumps({"size": SIZE}))
        agent.want()
        begin = time.monotonic()
        host.kill_flocker("control", 15)
        with pytest.raises(ConnectionError):
            connection.getresponse()
        assert agent.is_closed() and time.monotonic() - begin < 5
    wait_for("the end of control", lambda: not host.path("/run/flocker/control.pid").exists())
    up(host, flocker_binary)
    assert show(rest, volume)["size"] == SIZE


def test_removal(host, rest):
    """The agent's answer is the client's."""
    with Agent(host) as agent:
        volume = create(rest, agent, name="asked." + new_id()[:8])

        def removal(query=""):
            call = background(lambda: rest("DELETE", f"{VOLUMES}/{volume['id']}{query}"))
            question = agent.hear()
            assert (question["type"], question["id"]) == ("remove", volume["id"])
            return call, question["n"]

        call, number = removal()
        agent.say(type="reply", n=number, error={"code": "in-use", "message": "postgres has it"})
        assert error_code(call()) == (409, "in-use") and call().json["description"] == "postgres has it"
        call, late = removal("?wait=1")
        assert error_code(call()) == (504, "timeout") and agent.node in call().json["description"]
        call, number = removal()
        for stray in (late, 0, -1, 1 << 60, "x", None):
            agent.say(type="reply", n=stray, error={"code": "io-error", "message": "stray"})
        assert agent.ask(op="remove", id=volume["id"])["id"] == volume["id"]
        agent.say(type="reply", n=number)
        assert call().status == 200 and call().json["state"] == "trashed"
        assert agent.ask(op="remove", id=volume["id"])["id"] == volume["id"], "again: it is where it should be"


def test_client_leaves_during_its_removal(host, rest):
    with Agent(host) as agent:
        volume = create(rest, agent)
        connection = rest.connect()
        connection.putrequest("DELETE", f"{VOLUMES}/{volume['id']}")
        connection.endheaders()
        number = agent.hear()["n"]
        connection.close()
        time.sleep(0.1)
        agent.say(type="reply", n=number)
        assert agent.ask(op="remove", id=volume["id"])["id"] == volume["id"]
        assert show(rest, volume)["state"] == "trashed"


def test_purge(host, rest):
    with Agent(host) as agent:
        volume = create(rest, agent)
        agent.report(volume, present=False)
        assert agent.ask(op="nothing")["error"]
        assert show(rest, volume)["state"] == "live", "absence is no wish to delete"
        agent.report(volume)
        assert agent.ask(op="remove", id=volume["id"])["id"] == volume["id"]
        call = background(lambda: rest.ok("DELETE", f"{VOLUMES}/{volume['id']}?purge=1&wait=20"))
        want = agent.want()
        assert want["state"] == "purging"
        agent.report(want, present=False)
        assert call()["state"] == "deleted"
        assert agent.want()["state"] == "deleted"


def test_request_to_create(host, rest):
    with Agent(host) as agent:
        name = "made." + new_id()[:8]
        good = {"op": "create", "name": name, "size": SIZE, "metadata": {"a": "é"}, "options": OPTIONS}
        made = agent.ask(**good)
        assert agent.ask(**good) == made, "what is there is a success"
        shown = rest.ok("GET", f"{VOLUMES}/{name}")
        assert (shown["id"], shown["owner"], shown["size"], shown["options"]) == (made["id"], agent.node, SIZE, OPTIONS)
        for bad in ({"name": "a b"}, {"name": 5}, {"name": None}, {"size": -1}, {"size": 1}, {"size": "x"}, {"metadata": None}, {"metadata": {"a": 1}},
                    {"options": None}, {"options": {}}, {"options": {**OPTIONS, "uid": -1}}, {"options": {**OPTIONS, "uid": (1 << 32) - 1}},
                    {"options": {**OPTIONS, "gid": 1 << 40}}, {"options": {**OPTIONS, "mode": 0o10000}}, {"options": {**OPTIONS, "mode": -1}},
                    {"options": {**OPTIONS, "nocow": 1}}, {"metadata": {"é" * 257: "x"}}):
            reply = agent.ask(**{**good, "name": "other." + new_id()[:8], **bad})
            assert reply["error"]["code"] == "invalid" and reply["error"]["message"], (bad, reply)
        for request in ({}, {"op": 5}, {"op": "x"}, {"op": "remove"}, {"op": "remove", "id": "x"}, {"op": "remove", "id": new_id()}, {"op": "discard"}):
            assert agent.ask(**request)["error"]["code"] in ("unsupported", "invalid", "not-found")


def test_discard(host, rest):
    """What could not be made goes as if it had never been asked for; what has data does not."""
    with Agent(host) as agent:
        made = agent.ask(op="create", name="discarded." + new_id()[:8], size=0, metadata={}, options=OPTIONS)
        assert agent.ask(op="discard", id=made["id"])["id"] == made["id"]
        assert show(rest, made)["state"] == "deleted", "what there was of it the agent has destroyed before it asked"
        volume = create(rest, agent)
        reply = agent.ask(op="discard", id=volume["id"])
        assert reply["error"]["code"] == "conflict" and volume["id"] in reply["error"]["message"]
        assert show(rest, volume)["state"] == "live"


def test_held(host, rest):
    with Agent(host) as agent:
        volume = create(rest, agent)
        lease = {"dataset_id": volume["id"], "node_uuid": agent.node, "expires": 0.5}
        rest.ok("POST", "/v1/configuration/leases", lease, 201)
        assert agent.hear()["held"]
        assert not agent.hear()["held"], "it has run out"
        rest.ok("POST", "/v1/configuration/leases", {**lease, "node_uuid": new_id(), "expires": None}, 201)
        rest.ok("PATCH", f"{VOLUMES}/{volume['id']}", {"size": SIZE})
        assert not agent.hear()["held"], "for another node it is no matter here"


def test_many_who_wait(host, rest):
    """More clients that wait for an agent than there are connections: others are served, and who can't wait hears so at once."""
    with Agent(host) as agent:
        volumes, clients = [create(rest, agent) for _ in range(2)], []
        for number in range(600):
            connection = rest.connect()
            if number % 2:
                connection.request("DELETE", f"{VOLUMES}/{volumes[0]['id']}?wait=20")
            else:
                connection.request("PATCH", f"{VOLUMES}/{volumes[1]['id']}?wait=20", json.dumps({"size": SIZE + number * 1024}))
            clients.append(connection)
            if number % 50 == 49:
                begin = time.monotonic()
                assert rest("DELETE", f"{VOLUMES}/{new_id()}").status == 404
                assert time.monotonic() - begin < 2
        refused = clients[-1].getresponse()
        assert refused.status == 503
        for connection in clients:
            connection.close()
    assert rest.ok("GET", f"{VOLUMES}/{volumes[0]['id']}")["state"] == "live"


def test_agent_that_does_not_read(host, rest):
    """What waits for it is limited in time for clients, and it is its own trouble."""
    with Agent(host) as agent:
        volume = create(rest, agent)
        for size in range(300):
            rest.ok("PATCH", f"{VOLUMES}/{volume['id']}", {"size": SIZE + size * 1024})
        assert rest("DELETE", f"{VOLUMES}/{volume['id']}?wait=1").status == 504
        assert show(rest, volume)["size"] == SIZE + 299 * 1024
