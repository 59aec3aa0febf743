"""Containers of API v1 between control and agents (docs/protocol.md): who is told what, over moves and restarts. The agents are the test's."""
import pytest

from paths import wait_for
from rest import Rest, cluster, new_id, up
from test_rest_agents import Agent

CONTAINERS = "/v1/configuration/containers"
STATES = "/v1/state/containers"


@pytest.fixture(scope="module", name="host")
def host_of_module(module_hosts, flocker_binary):
    with cluster(module_hosts, flocker_binary) as host:
        yield host


@pytest.fixture(name="rest")
def rest_of_test(host):
    return Rest(host, by_socket=True)


def order(agent):
    """The next order about a container; wants of volumes before it are skipped."""
    while (message := agent.hear())["type"] == "want":
        pass
    assert message["type"] == "container", message
    return message


def report(agent, name, **more):
    agent.say(**{"type": "container-report", "name": name, "present": True, "running": True, "image": "img:latest", **more})


def create(rest, node, name, **more):
    return rest.ok("POST", CONTAINERS, {"node_uuid": node, "name": name, "image": "img", **more}, 201)


def states(rest, name):
    return [c for c in rest.ok("GET", STATES) if c["name"] == name]


def test_it_moves_with_its_dataset(host, rest):
    """The former node is told to let go until it says that it has; the name can be seen at both meanwhile."""
    with Agent(host) as first, Agent(host) as second:
        dataset = rest.ok("POST", "/v1/configuration/datasets", {"primary": first.node}, 201)["dataset_id"]
        want = first.want()
        first.report(want, mounted=True, path=f"/flocker/{dataset}")
        shown = create(rest, first.node, "db", volumes=[{"dataset_id": dataset, "mountpoint": "/data"}], swappiness=5)
        told = order(first)
        assert told["name"] == "db" and told["want"]["revision"] == 1 and told["want"]["container"] == {**shown, "swappiness": 5}
        report(first, "db")
        wait_for("the state", lambda: states(rest, "db") == [{**shown, "running": True}])
        moved = rest.ok("POST", f"{CONTAINERS}/db", {"node_uuid": second.node})
        assert moved == {**shown, "node_uuid": second.node} and moved in rest.ok("GET", CONTAINERS)
        assert rest.dataset(dataset)["primary"] == second.node
        assert order(first) == {"type": "container", "name": "db", "absent": True}
        assert order(second)["want"]["container"]["node_uuid"] == second.node
        assert states(rest, "db") == [{**moved, "node_uuid": first.node, "running": True}]
        report(second, "db", running=False, error={"code": "unavailable", "message": "no engine"})
        report(first, "db", present=False)
        wait_for("the first to let go", lambda: states(rest, "db") == [{**moved, "running": False, "error": "no engine"}])
        # A move to where it is changes nothing.
        rest.ok("POST", f"{CONTAINERS}/db", {"node_uuid": second.node})
        assert rest("DELETE", f"{CONTAINERS}/db").text == b"null"
        assert order(second) == {"type": "container", "name": "db", "absent": True}
        report(second, "db", present=False)
        wait_for("its end", lambda: not states(rest, "db"))
    with Agent(host, second.node) as again:
        create(rest, again.node, "last")
        assert order(again)["name"] == "last", "of what is over nobody is told"
        rest("DELETE", f"{CONTAINERS}/last")
        order(again)
        report(again, "last", present=False)


def test_an_order_to_let_go_outlives_agent_and_control(host, rest):
    with Agent(host) as agent:
        create(rest, agent.node, "web", environment={"A": "1"})
        order(agent)
    rest("DELETE", f"{CONTAINERS}/web")
    assert not [c for c in rest.ok("GET", CONTAINERS) if c["name"] == "web"]
    host.kill_flocker("control")
    up(host, host.flocker_binary)
    with Agent(host, agent.node) as again:
        assert order(again) == {"type": "container", "name": "web", "absent": True}
        # Made anew before the old one has gone: another revision, so that the node tells them apart.
        create(rest, again.node, "web", environment={"A": "2"})
        assert order(again)["want"]["revision"] == 2
        host.kill_flocker("control")
        up(host, host.flocker_binary)
    with Agent(host, agent.node) as again:
        told = order(again)["want"]
        assert told["revision"] == 2 and told["container"]["environment"] == {"A": "2"}
        rest("DELETE", f"{CONTAINERS}/web")
        order(again)
        report(again, "web", present=False, error={"code": "io-error", "message": "it does not go"})
        wait_for("the error", lambda: states(rest, "web"))
        report(again, "web", present=False)
        wait_for("its end", lambda: not states(rest, "web"))
        create(rest, again.node, "web")
        assert order(again)["want"]["revision"] == 1
        rest("DELETE", f"{CONTAINERS}/web")
        order(again)
        report(again, "web", present=False)


def test_a_node_that_never_was_leaves_nothing_behind(host, rest):
    nowhere = new_id()
    create(rest, nowhere, "lost")
    rest.ok("POST", f"{CONTAINERS}/lost", {"node_uuid": new_id()})
    rest("DELETE", f"{CONTAINERS}/lost")
    with Agent(host, nowhere) as agent:
        create(rest, agent.node, "found")
        assert order(agent)["name"] == "found"
        rest("DELETE", f"{CONTAINERS}/found")
        order(agent)
        report(agent, "found", present=False)


def test_reports_that_nobody_asked_for_change_nothing(host, rest):
    with Agent(host) as agent, Agent(host) as liar:
        create(rest, agent.node, "mine")
        order(agent)
        report(liar, "mine")
        report(liar, "unknown")
        report(agent, "mine", image=7, error="text", running="yes")
        wait_for("the report", lambda: states(rest, "mine"))
        assert [s["node_uuid"] for s in states(rest, "mine")] == [agent.node] and not states(rest, "unknown")
        assert states(rest, "mine")[0]["running"] is False
        liar.say(type="container-report")
        assert liar.is_closed()
        rest("DELETE", f"{CONTAINERS}/mine")
        order(agent)
        report(agent, "mine", present=False)
        wait_for("its end", lambda: not states(rest, "mine"))


@pytest.mark.parametrize("body", [{}, [], {"node_uuid": "x"}, {"node_uuid": new_id, "primary": new_id}])
def test_a_move_takes_a_node_and_nothing_else(rest, body):
    body = {key: value() if callable(value) else value for key, value in body.items()} if isinstance(body, dict) else body
    reply = rest("POST", f"{CONTAINERS}/none", body)
    assert reply.status == 400 and reply.json["errors"]


def test_a_body_that_breaks_the_schema_says_where(rest):
    reply = rest("POST", CONTAINERS, {"name": "a", "image": "img", "ports": [], "colour": "red"})
    assert reply.status == 400 and reply.json["description"] == "The provided JSON doesn't match the required schema."
    text = " ".join(reply.json["errors"])
    assert len(reply.json["errors"]) == 4 and all(word in text for word in ("'node_uuid'", "'name'", "'ports'", "'colour'"))
    assert rest("POST", CONTAINERS, b"{").status == 400
