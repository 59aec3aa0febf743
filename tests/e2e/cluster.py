"""A cluster of test hosts: the first has the control service, the others join it."""
from pathlib import Path

from paths import wait_for

AGENTS = "0.0.0.0:4524"


def token(control, *words):
    return control.flocker("node", "token", *words).stdout.strip()


def start_control(host, binary, env=None):
    """Starts Flocker on a host so that others can reach it."""
    host.flocker_binary = Path(binary).resolve()
    host.flocker("up", f"--agents={AGENTS}", "--rest=0.0.0.0:4523", f"--host={host.network.address(host)}", timeout=60, env=env)
    return host


def join(host, control, *words, env=None):
    host.flocker_binary = control.flocker_binary
    return host.flocker("join", control.network.address(control), "--token", token(control), *words, timeout=60, env=env)


def make_cluster(hosts, binary, count, env=None, **options):
    """`count` hosts on one network, with these options of Host; the first has control and an agent of its own."""
    network = hosts.network()
    members = [hosts(f"host{number}", network=network, **options) for number in range(1, count + 1)]
    start_control(members[0], binary, env)
    for member in members[1:]:
        join(member, members[0], env=env)
    return members


def nodes(control):
    """{host: node} as `flocker node ls` shows them."""
    return {node["host"]: node for node in control.flocker_json("node", "ls")}


def node_of(control, host):
    return nodes(control)[host.network.address(host)]


def wait_state(control, host, state, timeout=30):
    return wait_for(f"{host.name} to be {state}", lambda: node_of(control, host)["state"] == state, timeout)


def agent_log(host):
    return (host.path("/var/log/flocker/agent.log")).read_text()


def control_log(host):
    return (host.path("/var/log/flocker/control.log")).read_text()
