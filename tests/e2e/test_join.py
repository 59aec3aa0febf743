"""Hosts become nodes of a cluster, and cease to be; their certificates are renewed while they run."""
import time

import pytest

from cluster import agent_log, control_log, join, make_cluster, node_of, nodes, start_control, token, wait_state
from faults import Flocker
from host import CommandFailed
from paths import wait_for

PLUGIN = "/run/docker/plugins/flocker/flocker.sock"


@pytest.fixture(scope="module", name="pair")
def pair_of_module(module_hosts, flocker_binary):
    return make_cluster(module_hosts, flocker_binary, 2)


def refused(host, *words, env=None):
    with pytest.raises(CommandFailed) as caught:
        host.flocker(*words, env=env, timeout=60)
    return caught.value.stderr


def refused_join(host, control, text):
    return refused(host, "join", control.network.address(control), "--token", text)


def newcomer(maker, control, name):
    host = maker(name, network=control.network)
    host.flocker_binary = control.flocker_binary
    return host


def serial(host, name="node"):
    return host.run(["openssl", "x509", "-in", f"/etc/flocker/{name}.crt", "-noout", "-serial"]).stdout


def pid(host, role="agent"):
    return host.path(f"/run/flocker/{role}.pid").read_text()


def test_a_host_joins_and_serves_volumes(pair):
    one, two = pair
    assert {node["state"] for node in nodes(one).values()} == {"up"}
    node = node_of(one, two)
    assert node["id"] in two.run(["openssl", "x509", "-in", "/etc/flocker/node.crt", "-noout", "-subject"]).stdout
    assert not two.path("/etc/flocker/cluster.key").exists()
    assert not two.path("/run/flocker/control.sock").exists()
    reply = two.ask(PLUGIN, "POST", "/VolumeDriver.Create", b'{"Name":"far","Opts":{}}')
    assert reply[0] == 200 and b'"Err":""' in reply[1].replace(b" ", b""), reply
    volume = one.flocker_json("volume", "inspect", "far")[0]
    assert volume["owner"] == node["id"] and volume["ready"], volume
    assert "ERA AGE" in one.flocker("node", "ls").stdout


def test_status_of_a_host_without_control(pair):
    _, two = pair
    said = two.flocker("status").stdout
    assert "control: at 10.77.0.1 port 4524, connected" in said and "agent: up" in said
    assert "agent is running" in two.flocker("up").stdout, "and control is not started here"
    assert not two.path("/var/lib/flocker/control.db").exists()


def test_status_of_a_host_that_has_joined_and_is_not_started(hosts, flocker_binary):
    one = start_control(hosts("one", network=hosts.network()), flocker_binary)
    two = newcomer(hosts, one, "two")
    join(two, one, "--no-start")
    assert "this host's agent is down: start it with `flocker up`; control is on 10.77.0.1" in refused(two, "status")


def test_options_are_kept_on_the_first_host_and_on_those_that_join(hosts, flocker_binary):
    """Plain `flocker up` is enough from then on; volumes still move."""
    one = start_control(hosts("one", network=hosts.network()), flocker_binary)
    two = newcomer(hosts, one, "two")
    join(two, one, "--pool=/var/lib/flocker/mine.img", "--pool-size=512M", "--peers=0.0.0.0:4600")
    assert two.path("/etc/flocker/flocker.conf").read_text().splitlines()[1:] == [
        "pool=/var/lib/flocker/mine.img", "pool-size=512M", "peers=0.0.0.0:4600"]
    flockers = [Flocker(host, flocker_binary) for host in (one, two)]
    flockers[0].ok("Create", Name="db")
    for host in (one, two):
        host.reboot()
    for host in (one, two):
        host.flocker("up", timeout=60)
    for host in (one, two):
        wait_state(one, host, "up")
    assert not two.path("/var/lib/flocker/pool.img").exists()
    for flocker in (flockers[1], flockers[0]):
        wait_for("a mount", lambda f=flocker: f.plugin("Mount", Name="db", ID="1")[0] == 200, 30)
        flocker.ok("Unmount", Name="db", ID="1")


def test_the_command_line_from_any_host(pair):
    one, two = pair
    assert "`flocker ca user NAME`" in refused(two, "volume", "ls")
    one.flocker("ca", "user", "alice", "-o", "/tmp")
    two.path("/tmp/certs").mkdir()
    for name in ("alice.crt", "alice.key"):
        two.path(f"/tmp/certs/{name}").write_bytes(one.path(f"/tmp/{name}").read_bytes())
    two.path("/tmp/certs/cluster.crt").write_bytes(one.path("/etc/flocker/cluster.crt").read_bytes())
    flags = ["--control-service", "10.77.0.1", "--certs-path", "/tmp/certs", "--user", "alice"]
    assert "10.77.0.2" in two.flocker("node", "ls", *flags).stdout
    environment = {"FLOCKER_CONTROL_SERVICE": "10.77.0.1", "FLOCKER_CERTS_PATH": "/tmp/certs", "FLOCKER_USER": "alice"}
    assert "10.77.0.2" in two.flocker("node", "ls", env=environment).stdout
    assert "port 4600" in refused(two, "volume", "ls", "--control-port", "4600", env=environment)
    # agent.yml says where control is, and one's own certificate is found beside it.
    for name in ("crt", "key"):
        two.path(f"/etc/flocker/user.{name}").write_bytes(two.path(f"/tmp/certs/alice.{name}").read_bytes())
    assert "10.77.0.2" in two.flocker("node", "ls").stdout
    one.flocker("user", "revoke", "alice")
    said = refused(two, "status")
    assert "control is not known" in said and "certificates were revoked" in said and "as root" not in said
    for name in ("crt", "key"):
        two.path(f"/etc/flocker/user.{name}").unlink()


def test_a_token_works_once(hosts, flocker_binary):
    one = start_control(hosts("one", network=hosts.network()), flocker_binary)
    two, three = newcomer(hosts, one, "two"), newcomer(hosts, one, "three")
    text = token(one)
    two.flocker("join", one.network.address(one), "--token", text, timeout=60)
    assert "was used" in refused_join(three, one, text)
    assert "already" in refused_join(two, one, token(one))
    # It is in no file of control's, and survives its restart.
    text = token(one)
    stored = b"".join(file.read_bytes() for file in one.path("/var/lib/flocker").glob("control.db*"))
    assert text.encode() not in stored
    one.kill_flocker("control")
    start_control(one, flocker_binary)
    three.flocker("join", f"{one.network.address(one)}:4524", "--token", text, timeout=60)
    wait_state(one, three, "up")
    assert text not in control_log(one)


def test_tokens_that_are_no_good(hosts, flocker_binary):
    network = hosts.network()
    one = start_control(hosts("one", network=network), flocker_binary)
    other = start_control(hosts("other", network=network), flocker_binary)
    two = newcomer(hosts, one, "two")
    assert "join1." in refused_join(two, one, "nonsense")
    assert "--agents" in refused(two, "join", "10.77.0.1:4523", "--token", token(one)), "that is the port of the REST API"
    assert "--agents=0.0.0.0:4524" in refused(two, "join", "10.77.0.3", "--token", token(one)), "nobody listens there"
    short = token(one, "--ttl=1")
    end = time.monotonic() + 1.1
    wait_for("the token's end", lambda: time.monotonic() > end)
    assert "expired" in refused_join(two, one, short)
    assert "not the control service that the token is of" in refused_join(two, one, token(other))
    good = token(one)
    assert "wrong, or was used" in refused_join(two, one, good[:-2] + ("AA" if good[-2:] != "AA" else "BA"))
    assert not two.path("/etc/flocker/node.crt").exists()
    assert "belongs to another cluster" in refused_join(other, one, token(one))
    assert wait_for("the log", lambda: "wrong token" in control_log(one))
    two.flocker("join", one.network.address(one), "--token", good, timeout=60)
    # Who could not join can still have a cluster of one host, with the keys that the attempt has left.
    three = newcomer(hosts, one, "three")
    assert "wrong, or was used" in refused_join(three, one, good)
    three.flocker("up", timeout=60)


def test_without_the_key_of_the_cluster_nobody_joins(hosts, flocker_binary):
    one = start_control(hosts("one", network=hosts.network()), flocker_binary)
    text = token(one)
    one.path("/etc/flocker/cluster.key").rename(one.path("/etc/flocker/elsewhere"))
    assert "cluster.key" in refused(one, "node", "token")
    two = newcomer(hosts, one, "two")
    assert "cluster.key" in refused_join(two, one, text)
    one.path("/etc/flocker/elsewhere").rename(one.path("/etc/flocker/cluster.key"))
    two.flocker("join", one.network.address(one), "--token", text, timeout=60)  # it was not used up


def test_a_control_of_one_host_alone_gives_no_token(host, flocker_binary):
    host.start_flocker(flocker_binary)
    assert "--agents" in refused(host, "node", "token")


def test_a_removed_node_is_refused(hosts, flocker_binary):
    one, two = make_cluster(hosts, flocker_binary, 2)
    gone = node_of(one, two)["id"]
    two.ask(PLUGIN, "POST", "/VolumeDriver.Create", b'{"Name":"db","Opts":{}}')
    assert "own host" in refused(one, "node", "rm", "10.77.0.1") and node_of(one, one)["state"] == "up"
    assert "db" in refused(one, "node", "rm", "10.77.0.2") and node_of(one, two)["state"] == "up"
    one.flocker("node", "rm", gone[:8], "--force")
    assert node_of(one, two)["state"] == "removed"
    wait_for("the reason in the agent's log", lambda: "was removed" in agent_log(two))
    assert b"was removed" in two.ask(PLUGIN, "POST", "/VolumeDriver.Create", b'{"Name":"late","Opts":{}}')[1], "and who wants a volume is told"
    two.kill_flocker("agent")
    assert "was removed" in refused(two, "up")
    one.kill_flocker("control")
    start_control(one, flocker_binary)
    assert nodes(one)["10.77.0.2"]["state"] == "removed"
    assert "can only join as a new node" in refused(one, "node", "token", "--node", gone)
    # Its host can come back, as another node.
    two.flocker("down", "--keep-mounted")
    for name in ("node.crt", "node.key"):
        two.path(f"/etc/flocker/{name}").unlink()
    join(two, one)
    states = sorted(node["state"] for node in one.flocker_json("node", "ls"))
    assert states == ["removed", "up", "up"]


def test_a_lost_certificate_is_made_anew_for_the_same_node(hosts, flocker_binary):
    one, two = make_cluster(hosts, flocker_binary, 2)
    before = node_of(one, two)["id"]
    two.flocker("down")
    two.path("/etc/flocker/node.crt").unlink()
    text = token(one, "--node", "10.77.0.2")
    two.flocker("join", "10.77.0.1", "--token", text, timeout=60)
    assert wait_state(one, two, "up") and node_of(one, two)["id"] == before


def test_a_control_service_that_has_a_name(hosts, flocker_binary):
    """The agent looks the name up, and again when it changes; the certificate need not hold it."""
    one = start_control(hosts("one", network=hosts.network()), flocker_binary)
    two = newcomer(hosts, one, "two")
    two.path("/etc/hosts").write_text("127.0.0.1 localhost\n10.77.0.99 control.example\n10.77.0.1 control.example\n")
    assert "nowhere.example" in refused(two, "join", "nowhere.example", "--token", token(one))
    two.flocker("join", "control.example", "--token", token(one), timeout=60)
    assert "hostname: \"control.example\"" in two.path("/etc/flocker/agent.yml").read_text()
    assert "control: at control.example port 4524, connected" in two.flocker("status").stdout
    assert node_of(one, two)["state"] == "up"


def test_a_certificate_that_has_expired(hosts, flocker_binary):
    """The agent says so, and what to do; that helps."""
    one, two = make_cluster(hosts, flocker_binary, 2)
    node = node_of(one, two)["id"]
    one.flocker("ca", "node", node, "-o", "/tmp", env={"FLOCKER_CERTIFICATE_S": "1"})
    two.kill_flocker("agent")
    for name in ("crt", "key"):
        two.path(f"/etc/flocker/node.{name}").write_bytes(one.path(f"/tmp/{node}.{name}").read_bytes())
    expired = ["openssl", "x509", "-in", "/etc/flocker/node.crt", "-noout", "-checkend", "0"]
    wait_for("its end", lambda: two.run(expired, check=False).returncode == 1)
    refused(two, "up")
    wait_for("the reason", lambda: "flocker node token --node" in agent_log(two), 20)
    two.flocker("down", "--keep-mounted")
    two.path("/etc/flocker/node.crt").unlink()
    two.flocker("join", "10.77.0.1", "--token", token(one, "--node", node), timeout=60)
    assert node_of(one, two) and nodes(one)["10.77.0.2"]["id"] == node


def test_certificates_are_renewed_without_a_restart(hosts, flocker_binary):
    short = {"FLOCKER_CERTIFICATE_S": "15"}
    one, two = make_cluster(hosts, flocker_binary, 2, env=short)
    pids = [pid(one, "control"), pid(one), pid(two)]
    before = [serial(one, "control-service"), serial(one), serial(two)]

    def have_all_changed():
        return not set(before) & {serial(one, "control-service"), serial(one), serial(two)}

    wait_for("all three renewals", have_all_changed, 30)
    first = serial(two)
    wait_for("the second renewal", lambda: serial(two) != first, 30)  # the first certificate is over, or nearly
    assert pids == [pid(one, "control"), pid(one), pid(two)]
    one.kill_flocker("control")
    start_control(one, flocker_binary, short)  # a new connection needs a certificate that is good now
    wait_state(one, two, "up")
    assert pids[1:] == [pid(one), pid(two)]
    command = "openssl s_client -connect 127.0.0.1:4523 </dev/null 2>/dev/null | openssl x509 -noout -checkend 0"
    assert "will not expire" in one.run(["sh", "-c", command]).stdout
