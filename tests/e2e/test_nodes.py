"""Nodes that are lost and come back, that leave the cluster, that are drained, and a store that is rebuilt from what nodes have."""
import os
import time

import pytest

from cluster import agent_log, join, make_cluster, node_of, nodes, start_control, wait_state
from conftest import start_docker
from faults import Flocker
from host import CommandFailed
from paths import wait_for


def flockers(hosts, binary, count):
    """A cluster, each host with calls of its plugin."""
    return [Flocker(host, binary) for host in make_cluster(hosts, binary, count)]


def volumes(one):
    return {volume["name"]: volume for volume in one.host.flocker_json("volume", "ls", "--all")}


def volume(one, name):
    return one.host.flocker_json("volume", "inspect", name)[0]


def address(host):
    return host.network.address(host)


def write(where, name, text):
    """By a container that mounts it and ends."""
    where.ok("Create", Name=name)
    path = where.ok("Mount", Name=name, ID="w")["Mountpoint"]
    where.host.path(f"{path}/keep").write_text(text)
    where.host.run(["sync", "-f", path])
    where.ok("Unmount", Name=name, ID="w")


def read(where, name):
    """Mounts it, as an engine that tries again."""
    wait_for(f"a mount of {name}", lambda: where.plugin("Mount", Name=name, ID="r")[0] == 200, 30)
    path = where.get(name)["Mountpoint"]
    text = where.host.path(f"{path}/keep").read_text()
    where.ok("Unmount", Name=name, ID="r")
    return text


def refused(host, *words):
    with pytest.raises(CommandFailed) as failure:
        host.flocker(*words)
    return failure.value.stderr


def refused_mount(where, name):
    """The error, which comes in time for every engine."""
    began = time.monotonic()
    status, answer = where.plugin("Mount", Name=name, ID="r")
    assert status == 500 and time.monotonic() - began < 4, answer
    return answer["Err"]


def test_a_host_that_is_gone_and_back(hosts, flocker_binary):
    """What is there shows as unavailable, with the reason; after its reboot all goes on by itself, and v1's datasets are mounted again."""
    one, two = flockers(hosts, flocker_binary, 2)
    write(two, "db", "hello")
    node = node_of(one.host, two.host)
    assert one.get("db")["Status"]["owner"] == node["id"]
    made = one.control("POST", "/v1/configuration/datasets", {"primary": node["id"], "metadata": {"name": "kept"}})[1]["dataset_id"]
    wait_for("the dataset to be mounted", lambda: volume(one, "kept")["mounted"])
    two.host.power_cut()
    wait_state(one.host, two.host, "down")
    seen = volume(one, "db")
    assert not seen["ready"] and seen["error"]["code"] == "unavailable" and "10.77.0.2" in seen["error"]["description"], seen
    assert "is not connected since 20" in seen["error"]["description"] and "unavailable" in one.host.flocker("volume", "ls").stdout
    error = refused_mount(one, "db")
    assert all(word in error for word in ("10.77.0.2", node["id"], "not connected since", "start that host")), error
    wait_for("the plugin to tell", lambda: "not connected since" in one.get("db")["Status"].get("error", ""))
    assert made in [state["dataset_id"] for state in one.control("GET", "/v1/state/datasets")[1]]  # until 120 s are over
    two.host.power_on()
    two.up()
    wait_state(one.host, two.host, "up")
    assert node_of(one.host, two.host)["era"] != node["era"] and node_of(one.host, two.host)["id"] == node["id"]
    wait_for("the volume to be there", lambda: volume(one, "db")["ready"] and volume(one, "kept")["mounted"], 20)
    wait_for("the plugin to forget", lambda: "error" not in one.get("db")["Status"])
    assert read(one, "db") == "hello"


def test_a_host_that_is_lost(hosts, flocker_binary):
    """Removed by force: its volumes stay as entries that say so, and can be removed; its host comes back as another, and keeps them."""
    one, two = flockers(hosts, flocker_binary, 2)
    for name in ("db", "old", "purged"):
        write(two, name, name)
    for name in ("old", "purged"):
        one.host.flocker("volume", "rm", name)
    seen = volume(one, "db")
    two.host.power_cut()
    wait_state(one.host, two.host, "down")
    assert "3 volumes" in refused(one.host, "node", "rm", "10.77.0.2")
    assert "is not connected since" in refused(one.host, "volume", "rm", "--purge", "purged")
    said = one.host.flocker("node", "rm", "10.77.0.2", "--force").stdout
    assert "2 volumes were only there, and are lost" in said, said
    all_of = volumes(one)
    assert all_of["db"]["node_state"] == "removed" and "purged" not in all_of and all_of["old"]["state"] == "trashed"
    assert "lost" in one.host.flocker("volume", "ls").stdout
    assert "was removed from the cluster" in refused_mount(one, "db")
    one.ok("Remove", Name="db")
    assert volumes(one)["db"]["state"] == "trashed"
    one.kill("control")
    one.up("control.committed:1")
    refused(one.host, "volume", "rm", "--purge", "old")  # control dies between the order to destroy it and the note that it is gone
    one.up()
    assert set(volumes(one)) == {"db"}
    one.host.flocker("volume", "rm", "--purge", seen["id"])
    assert not volumes(one)
    write(one, "db", "new")
    two.host.power_on()
    for name in ("node.crt", "node.key"):
        two.host.path(f"/etc/flocker/{name}").unlink()
    join(two.host, one.host)
    wait_for("the log", lambda: f"volume {seen['id']} (db) is in this node's pool" in agent_log(two.host))
    assert "3 volumes that are not this node's" in two.host.flocker("status", check=False).stdout
    assert read(two, "db") == "new"
    assert two.host.path(f"/var/lib/flocker/pool/volumes/{seen['id']}/data/keep").read_text() == "db"


def stage(one, name):
    return volume(one, name).get("move", {}).get("stage")


def test_moves_to_a_host_that_is_lost(hosts, flocker_binary):
    """Called off; and one that had just moved there, and was not yet known to be safe there, is its former node's again."""
    one, two = flockers(hosts, flocker_binary, 2)
    for name in ("stays", "back"):
        write(one, name, name)
    one.ok("Mount", Name="stays", ID="1")
    two.kill("agent")
    two.up("transfer.shared:1:hang")
    one.host.flocker("volume", "move", "back", "10.77.0.2")
    wait_for("the switch", lambda: stage(one, "back") == "settle", 30)
    one.host.flocker("volume", "move", "stays", "10.77.0.2")
    two.host.power_cut()
    wait_state(one.host, two.host, "down")
    said = one.host.flocker("node", "rm", "10.77.0.2", "--force").stdout
    assert "1 volumes that were on their way are where there is another copy" in said and "lost" not in said, said
    wait_for("both to be ready", lambda: all(volume(one, name)["ready"] for name in ("stays", "back")))
    for name in ("stays", "back"):
        seen = volume(one, name)
        assert "move" not in seen and seen["target"] == node_of(one.host, one.host)["id"], seen
    one.ok("Unmount", Name="stays", ID="1")
    assert read(one, "stays") == "stays" and read(one, "back") == "back"


def test_hosts_that_are_away_when_a_move_ends(hosts, flocker_binary):
    """The new owner, before it has the volume in place, and the former one, before it has let go: both go on when they are back."""
    one, two = flockers(hosts, flocker_binary, 2)
    write(one, "db", "text")
    two.kill("agent")
    two.up("transfer.shared:1:hang")
    one.host.flocker("volume", "move", "db", "10.77.0.2")
    wait_for("the switch", lambda: stage(one, "db") == "settle", 30)
    two.host.power_cut()
    wait_state(one.host, two.host, "down")
    seen = volume(one, "db")
    assert seen["host"] == "10.77.0.2" and not seen["ready"]
    wait_for("the other node to be told", lambda: "not connected since" in refused_mount(one, "db"), 10)
    one.kill("agent")
    one.up("destroy.staged:1:hang")
    two.host.power_on()
    two.up()
    wait_for("the former owner to be told", lambda: stage(one, "db") == "release", 30)
    assert read(two, "db") == "text"
    one.kill("agent")
    one.kill("worker")
    assert stage(one, "db") == "release"
    one.up()
    wait_for("it to let go", lambda: stage(one, "db") is None, 30)
    assert not list(one.host.path("/var/lib/flocker/pool/volumes").iterdir())
    assert read(one, "db") == "text"


def test_drain(hosts, flocker_binary):
    """All volumes leave, those in use when they are free; none comes; then the node can go."""
    one, two, three = flockers(hosts, flocker_binary, 3)
    for name in ("a", "b", "used"):
        write(two, name, name)
    two.ok("Mount", Name="used", ID="1")
    node = node_of(one.host, two.host)["id"]
    wait_for("pools to be told", lambda: all("pool" in known for known in one.host.flocker_json("node", "ls")))
    said = one.host.flocker("node", "drain", "10.77.0.2").stdout
    assert "volumes left" in said, said
    wait_for("the free ones to leave", lambda: node_of(one.host, two.host)["volumes"] == 1, 30)
    known = node_of(one.host, two.host)
    assert known["state"] == "draining" and known["in_use"] == 1 and known["leaving"] == 1, known
    assert "1 volumes left, 1 of them in use" in one.host.flocker("node", "ls").stdout
    for answer in (two.plugin("Create", Name="new"), one.control("POST", "/v2/volumes", {"name": "new", "owner": node})):
        assert answer[0] in (409, 500) and "being drained" in str(answer[1]), answer
    two.ok("Create", Name="a")  # it is there already
    assert "being drained" in refused(one.host, "volume", "move", "a", "10.77.0.2")
    assert "being drained" in refused_mount(two, "a")
    one.kill("control")
    start_control(one.host, flocker_binary)
    wait_state(one.host, two.host, "draining")
    two.ok("Unmount", Name="used", ID="1")
    assert "nothing is left on it" in one.host.flocker("node", "drain", "10.77.0.2", "--wait").stdout
    wait_state(one.host, two.host, "drained")
    assert {volume(one, name)["host"] for name in ("a", "b", "used")} <= {"10.77.0.1", "10.77.0.3"}
    assert read(three, "used") == "used"
    one.host.flocker("node", "undrain", "10.77.0.2")
    two.ok("Create", Name="new")
    one.host.flocker("volume", "rm", "--purge", "new")
    one.host.flocker("node", "drain", "10.77.0.2", "--wait")
    wait_for("nothing to be left", lambda: one.host.flocker("node", "rm", "10.77.0.2", check=False).returncode == 0, 20)


def test_new_volumes_go_where_there_is_room(hosts, flocker_binary):
    """If nobody says where: to the node with most free space, which takes volumes."""
    one, two = flockers(hosts, flocker_binary, 2)
    one.ok("Create", Name="large")
    path = one.ok("Mount", Name="large", ID="w")["Mountpoint"]
    one.host.path(f"{path}/data").write_bytes(os.urandom(300 << 20))
    one.host.run(["sync", "-f", path])
    one.ok("Unmount", Name="large", ID="w")
    one.host.flocker("volume", "create", "small", "--node", "10.77.0.1")  # and its agent tells how full its pool is
    wait_for("that to be told", lambda: node_of(one.host, one.host).get("pool", {}).get("used", 0) > 300 << 20)
    wait_for("the other one's", lambda: "pool" in node_of(one.host, two.host))
    assert one.host.flocker("volume", "create", "new").stdout == "new\n"
    assert volume(one, "new")["host"] == "10.77.0.2" and volume(one, "new")["ready"]
    one.host.flocker("node", "drain", "10.77.0.2", "--wait")
    one.host.flocker("volume", "create", "newer")
    assert volume(one, "newer")["host"] == "10.77.0.1"
    one.host.flocker("node", "undrain", "10.77.0.2")
    two.host.power_cut()
    wait_state(one.host, two.host, "down")
    one.host.flocker("volume", "create", "newest")
    assert volume(one, "newest")["host"] == "10.77.0.1"
    one.kill("agent")
    wait_state(one.host, one.host, "down")
    assert "no node is connected that takes volumes" in refused(one.host, "volume", "create", "none")


def test_drain_by_force(hosts, flocker_binary):
    """Containers that use a volume are stopped; what they have written is on the other host."""
    one, two = flockers(hosts, flocker_binary, 2)
    start_docker(two.host, "20")
    two.host.load_image("busybox")
    command = "echo all of it >/data/keep; sync; exec sleep 600"
    container = two.host.docker("run", "-d", "-v", "db:/data", "--volume-driver=flocker", "busybox", "sh", "-c", command).stdout.strip()
    assert "1 volumes left" in one.host.flocker("node", "drain", "10.77.0.2").stdout
    wait_for("the volume to wait for its container", lambda: volume(one, "db").get("move", {}).get("stage") == "seal", 30)
    assert two.host.docker("inspect", "-f", "{{.State.Running}}", container).stdout.strip() == "true"
    assert "nothing is left" in one.host.flocker("node", "drain", "10.77.0.2", "--force", "--wait").stdout
    assert two.host.docker("inspect", "-f", "{{.State.Running}}", container).stdout.strip() == "false"
    assert read(one, "db") == "all of it\n"


def test_a_lost_store_is_rebuilt(hosts, flocker_binary):
    """From the inventories of two hosts: volumes as they were, one that has moved, one in the trash; a container goes on all the time."""
    one, two = flockers(hosts, flocker_binary, 2)
    for name in ("used", "moved", "gone"):
        write(one, name, name)
    assert read(two, "moved") == "moved"
    wait_for("the move to be over", lambda: "move" not in volume(one, "moved"), 20)
    one.host.flocker("volume", "rm", "gone")
    path = one.ok("Mount", Name="used", ID="1")["Mountpoint"]
    writer = one.host.popen(["sh", "-c", f"exec 3>>{path}/log; i=0; while sleep 0.05; do i=$((i+1)); echo $i >&3; done"])
    before = volumes(one)
    wait_for("records to be written", lambda: volume(one, "used")["mounted"])
    one.stop("control")
    one.host.run(["sh", "-c", "mkdir /tmp/lost && mv /var/lib/flocker/control.db* /tmp/lost"])
    start_control(one.host, flocker_binary)
    for host in (one.host, two.host):
        wait_state(one.host, host, "up")
    assert not volumes(one)
    assert "recover" in one.plugin("Create", Name="used")[1]["Err"]
    shown = one.host.flocker("control", "recover", "--dry-run").stdout
    assert "3 volumes would be taken in; nothing is changed yet" in shown and not volumes(one), shown
    said = one.host.flocker("control", "recover").stdout
    assert "3 volumes are taken in" in said and "containers of API v1" in said, said
    wait_for("all to be ready", lambda: all(volume(one, name)["ready"] for name in ("used", "moved")))
    after = volumes(one)
    for name, was in before.items():
        now = after[name]
        assert {key: was[key] for key in ("id", "state", "owner", "size", "epoch", "created")} == {key: now[key] for key in
                                                                                              ("id", "state", "owner", "size", "epoch", "created")}
    assert writer.poll() is None and after["used"]["mounted"]
    lines = len(one.host.path(f"{path}/log").read_text().split())
    wait_for("the container to go on", lambda: len(one.host.path(f"{path}/log").read_text().split()) > lines)
    assert "0 volumes are taken in" in one.host.flocker("control", "recover").stdout
    writer.kill()
    writer.wait(10)
    one.ok("Unmount", Name="used", ID="1")
    assert read(two, "used") == "used" and read(one, "moved") == "moved"
    one.host.flocker("volume", "restore", "gone")
    assert read(two, "gone") == "gone"


def test_a_volume_whose_later_state_is_elsewhere_waits(hosts, flocker_binary):
    """Its former owner, which was away when it was to let go, does not get it back while the new one is away."""
    one, two = flockers(hosts, flocker_binary, 2)
    write(one, "db", "old")
    path = one.ok("Mount", Name="db", ID="1")["Mountpoint"]
    one.host.flocker("volume", "move", "db", "10.77.0.2")
    wait_for("the seal", lambda: volume(one, "db").get("move", {}).get("stage") == "seal", 30)
    assert path
    two.kill("agent")
    one.ok("Unmount", Name="db", ID="1")
    one.stop("control")
    one.host.run(["sh", "-c", "rm /var/lib/flocker/control.db*"])
    start_control(one.host, flocker_binary)
    wait_state(one.host, one.host, "up")
    shown = one.host.flocker("control", "recover").stdout
    assert "0 volumes are taken in" in shown and "left out: a later state of it may be on" in shown, shown
    two.up()
    wait_state(one.host, two.host, "up")
    assert "1 volumes are taken in" in one.host.flocker("control", "recover").stdout
    wait_for("the volume", lambda: volume(one, "db")["ready"])
    assert volume(one, "db")["host"] == "10.77.0.1"
    assert read(one, "db") == "old" and read(two, "db") == "old"


def test_a_lost_store_and_a_pool_of_before(hosts, flocker_binary):
    """A host whose pool comes from a backup has older data than what another host has, or has a copy of. Nobody gets that unasked."""
    one, two = flockers(hosts, flocker_binary, 2)
    for name in ("moved", "copied"):
        write(two, name, "old")
    two.host.flocker("down")
    two.host.run(["cp", "--sparse=always", "/var/lib/flocker/pool.img", "/tmp/before.img"])
    two.up()
    assert read(one, "moved") == "old"
    write(one, "moved", "new")
    two.ok("Mount", Name="copied", ID="1")
    one.host.flocker("volume", "move", "copied", "10.77.0.1")
    wait_for("the copy", lambda: volume(one, "copied").get("move", {}).get("stage") == "seal", 30)
    one.stop("control")
    two.ok("Unmount", Name="copied", ID="1")
    two.host.flocker("down")
    two.host.run(["cp", "--sparse=always", "/tmp/before.img", "/var/lib/flocker/pool.img"])
    two.up(check=False)  # it is not ready without control, and serves what it has
    two.ok("Mount", Name="moved", ID="1")
    one.host.run(["sh", "-c", "rm /var/lib/flocker/control.db*"])
    start_control(one.host, flocker_binary)
    wait_for("both nodes", lambda: len(nodes(one.host)) == 2, 30)
    for host in (one.host, two.host):
        wait_state(one.host, host, "up")
    said = one.host.flocker("control", "recover").stdout
    assert "0 volumes are taken in" in said, said
    assert "older data of it is in use on 10.77.0.2" in said and "10.77.0.1 has a copy of a later state" in said, said
    said = one.host.flocker("control", "recover", "--force").stdout
    assert "1 volumes are taken in" in said and "older data of it is in use on 10.77.0.2" in said, said
    two.ok("Unmount", Name="moved", ID="1")
    said = one.host.flocker("control", "recover").stdout
    assert "0 volumes are taken in" in said and "mounted on 10.77.0.2, by no container" in said, said
    assert "1 volumes are taken in" in one.host.flocker("control", "recover", "--force").stdout
    assert read(one, "moved") == "new" and read(two, "copied") == "old"
