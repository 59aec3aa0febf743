"""Containers of API v1 with a real engine: create, state, restart policies, delete, and what survives the death of agent and engine."""
import json
import signal
import subprocess
import time

import pytest

from cluster import make_cluster, node_of
from conftest import start_docker
from paths import wait_for
from rest import SIZE, Rest, cluster, new_id, up

CONTAINERS = "/v1/configuration/containers"
STATES = "/v1/state/containers"
COMPOSE = "/v1/configuration/_compose"
FOREVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


@pytest.fixture(scope="module", name="host")
def host_of_module(module_hosts, flocker_binary):
    with cluster(module_hosts, flocker_binary) as host:
        start_docker(host, "20")
        host.load_image("busybox")
        yield host
        for name in [c["name"] for c in Rest(host).ok("GET", CONTAINERS)]:
            Rest(host)("DELETE", f"{CONTAINERS}/{name}")
        wait_for("containers to go", lambda: not ours(host), 40)


@pytest.fixture(name="rest")
def rest_of_test(host):
    return Rest(host)


def ours(host):
    return host.docker("ps", "--all", "--quiet", "--filter", "name=^/flocker--").stdout.split()


def inspect(host, name):
    done = host.docker("inspect", f"flocker--{name}", check=False)
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def create(rest, name, status=201, **more):
    body = {"node_uuid": rest.node(), "name": name, "image": "busybox", "command_line": FOREVER, **more}
    return rest.ok("POST", CONTAINERS, body, status)


def state(rest, name):
    return {c["name"]: c for c in rest.ok("GET", STATES)}.get(name)


def wait_running(rest, name, running=True, timeout=20):
    return wait_for(f"{name} to be running: {running}",
                    lambda: (found := state(rest, name)) and found["running"] == running and found, timeout)


def delete(host, rest, name):
    reply = rest("DELETE", f"{CONTAINERS}/{name}")
    assert (reply.status, reply.text) == (200, b"null")
    wait_for(f"{name} to go", lambda: not inspect(host, name) and not state(rest, name), 30)


def test_one_runs_with_its_dataset_and_all_its_settings(host, rest):
    dataset = rest.create(maximum_size=SIZE, metadata={"name": "of-web"})["dataset_id"]
    settings = {"environment": {"KEY": "a=b c"}, "ports": [{"internal": 80, "external": 8080}, {"internal": 80, "external": 8081}],
                "links": [{"alias": "DB", "local_port": 5432, "remote_port": 15432}], "cpu_shares": 512, "memory_limit": 64 << 20,
                "volumes": [{"dataset_id": dataset, "mountpoint": "/var/data"}]}
    command = ["sh", "-c", "echo from-container > /var/data/file; while :; do sleep 0.1; done"]
    shown = create(rest, "web", command_line=command, swappiness=10, **settings)
    want = {"node_uuid": rest.node(), "name": "web", "image": "busybox:latest", "restart_policy": {"name": "never"}, "command_line": command,
            **settings, "links": [{"alias": "db", "local_port": 5432, "remote_port": 15432}]}
    assert shown == want
    assert want in rest.ok("GET", CONTAINERS)
    assert wait_running(rest, "web") == {**want, "running": True}
    made = inspect(host, "web")
    assert made["Config"]["Cmd"] == command and "KEY=a=b c" in made["Config"]["Env"]
    address = [n["host"] for n in rest.ok("GET", "/v1/state/nodes")][0]
    assert {f"DB_PORT_5432_TCP=tcp://{address}:15432", f"DB_PORT_5432_TCP_ADDR={address}", "DB_PORT_5432_TCP_PORT=15432",
            "DB_PORT_5432_TCP_PROTO=tcp"} <= set(made["Config"]["Env"])
    config = made["HostConfig"]
    assert config["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "", "HostPort": "8081"}]}
    assert (config["Memory"], config["CpuShares"], config["RestartPolicy"]["Name"]) == (64 << 20, 512, "no")
    file = host.path(f"/flocker/{dataset}/file")
    wait_for("the file", file.exists)
    assert file.read_text() == "from-container\n"
    # It counts as a user of the volume.
    done = host.flocker("volume", "rm", "of-web", check=False)
    assert done.returncode == 6 and "in use by container" in done.stderr, done.stderr
    delete(host, rest, "web")
    assert file.read_text() == "from-container\n", "the dataset stays"


def test_one_with_a_volume_of_the_plugin_mounts_it(host, rest):
    """Such a volume is mounted only while something uses it: the container is that."""
    host.docker("volume", "create", "--driver", "flocker", "of-plugin")
    dataset = [d for d in rest.ok("GET", "/v1/configuration/datasets") if d["metadata"].get("name") == "of-plugin"][0]["dataset_id"]
    assert not any("path" in d for d in rest.states(dataset))
    create(rest, "plain", volumes=[{"dataset_id": dataset, "mountpoint": "/data"}])
    wait_running(rest, "plain")
    assert rest.mounted(dataset)
    delete(host, rest, "plain")
    wait_for("the unmount", lambda: not any("path" in d for d in rest.states(dataset)))
    host.docker("volume", "rm", "of-plugin")


def test_what_contradicts_is_refused(host, rest):
    dataset = rest.create(metadata={"name": "of-first"})["dataset_id"]
    volume = [{"dataset_id": dataset, "mountpoint": "/data"}]
    create(rest, "first", ports=[{"internal": 1, "external": 9000}], volumes=volume)
    removed = rest.create()["dataset_id"]
    rest.ok("DELETE", f"/v1/configuration/datasets/{removed}")

    def refused(status, description, **more):
        body = create(rest, more.pop("name", "second"), status, **more)
        assert body == {"description": description}

    refused(409, "The container name already exists.", name="first")
    refused(409, "The container name already exists.", name="/first")
    refused(409, "A specified external port is already in use.", ports=[{"internal": 2, "external": 9000}])
    refused(409, "A specified external port is already in use.", ports=[{"internal": 2, "external": 5}, {"internal": 3, "external": 5}])
    refused(409, "Link aliases must be unique.",
            links=[{"alias": "a", "local_port": 1, "remote_port": 1}, {"alias": "A", "local_port": 2, "remote_port": 2}])
    refused(409, "The local ports in a container's links must be unique.",
            links=[{"alias": "a", "local_port": 1, "remote_port": 1}, {"alias": "b", "local_port": 1, "remote_port": 2}])
    refused(404, "Dataset not found.", volumes=[{"dataset_id": new_id(), "mountpoint": "/data"}])
    refused(404, "Dataset not found.", volumes=[{"dataset_id": removed, "mountpoint": "/data"}])
    refused(409, "The dataset is on another node.", volumes=volume, node_uuid=new_id())
    refused(409, "The dataset is being used by another container.", volumes=volume)
    for path, method, body in ((f"{CONTAINERS}/none", "DELETE", None), (f"{CONTAINERS}/none", "POST", {"node_uuid": new_id()})):
        reply = rest(method, path, body)
        assert (reply.status, reply.json) == (404, {"description": "Container not found."})
    assert [c["name"] for c in rest.ok("GET", CONTAINERS)] == ["first"]
    delete(host, rest, "first")


def restarts(host):
    file = host.path("/run/flocker/refs/containers.json")
    return {name: count["restarts"] for name, count in json.loads(file.read_text())["counts"].items()} if file.exists() else {}


def test_it_is_restarted_as_its_policy_says(host, rest):
    ends = ["sh", "-c", "exit 3"]
    create(rest, "never", command_line=ends)
    create(rest, "twice", command_line=ends, restart_policy={"name": "on-failure", "maximum_retry_count": 2})
    create(rest, "success", command_line=["true"], restart_policy={"name": "on-failure"})
    create(rest, "always", restart_policy={"name": "always"})
    for name in ("never", "twice", "success"):
        wait_running(rest, name, False)
    wait_running(rest, "always")
    begin = inspect(host, "always")["State"]["StartedAt"]
    host.docker("kill", "flocker--always")
    wait_for("the restart", lambda: (s := inspect(host, "always")["State"])["Running"] and s["StartedAt"] != begin)
    counts = {"twice": 2, "always": 1}
    wait_for("the restarts", lambda: restarts(host) == counts)
    time.sleep(2)  # for one too many
    assert restarts(host) == counts
    # One that ends at once is not restarted in a rush: 100 ms, 200 ms, 400 ms, ...
    create(rest, "rushed", command_line=["true"], restart_policy={"name": "always"})
    wait_for("restarts", lambda: restarts(host).get("rushed", 0) >= 2)
    time.sleep(5)
    assert restarts(host)["rushed"] < 8
    # Somebody removes it behind our back.
    host.docker("rm", "--force", "flocker--always")
    wait_for("it is made anew", lambda: (found := inspect(host, "always")) and found["State"]["Running"])
    wait_running(rest, "always")
    for name in ("never", "twice", "success", "always", "rushed"):
        delete(host, rest, name)


def test_it_goes_on_while_the_agent_is_killed(host, rest):
    dataset = rest.create()["dataset_id"]
    create(rest, "steady", restart_policy={"name": "always"}, volumes=[{"dataset_id": dataset, "mountpoint": "/data"}])
    wait_running(rest, "steady")
    pid = inspect(host, "steady")["State"]["Pid"]
    host.kill_flocker("agent")
    host.docker("exec", "flocker--steady", "touch", "/data/while-the-agent-was-away")
    up(host, host.flocker_binary)
    wait_running(rest, "steady")
    assert inspect(host, "steady")["State"]["Pid"] == pid
    # What ends while it is away is restarted when it is back; what is deleted meanwhile goes then.
    create(rest, "leaves")
    wait_running(rest, "leaves")
    host.kill_flocker("agent")
    host.docker("kill", "flocker--steady")
    assert rest("DELETE", f"{CONTAINERS}/leaves").status == 200
    host.kill_flocker("control", signal.SIGKILL)
    up(host, host.flocker_binary)
    wait_running(rest, "steady")
    wait_for("the deleted one to go", lambda: not inspect(host, "leaves"), 30)
    assert inspect(host, "steady")["State"]["Pid"] != pid
    # Also while control is away.
    pid = inspect(host, "steady")["State"]["Pid"]
    host.kill_flocker("agent")
    host.kill_flocker("control")
    host.docker("kill", "flocker--steady")
    agent = host.popen([host.flocker_binary, "agent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("the restart", lambda: (s := inspect(host, "steady")["State"])["Running"] and s["Pid"] != pid, 30)
    agent.terminate()
    agent.wait(10)
    up(host, host.flocker_binary)
    wait_running(rest, "steady")
    delete(host, rest, "steady")


def test_an_engine_that_is_away_is_an_error_in_the_state(host, rest):
    create(rest, "first", restart_policy={"name": "always"})
    wait_running(rest, "first")
    host.kill_docker()
    create(rest, "second")
    shown = wait_for("the error", lambda: (found := state(rest, "second")) and "error" in found and found)
    assert not shown["running"] and "container engine can't be asked" in shown["error"]
    # Volumes do not wait for it.
    dataset = rest.create()["dataset_id"]
    assert rest.mounted(dataset)
    start_docker(host, "20")
    wait_running(rest, "second", timeout=60)
    wait_running(rest, "first", timeout=60)
    assert "error" not in state(rest, "second")
    delete(host, rest, "first")
    delete(host, rest, "second")


def test_a_container_that_is_not_ours_is_left_alone(host, rest):
    host.docker("create", "--name", "flocker--mine", "busybox", "true")
    identity = inspect(host, "mine")["Id"]
    create(rest, "mine")
    shown = wait_for("the error", lambda: (found := state(rest, "mine")) and "error" in found and found)
    assert "did not make" in shown["error"]
    assert rest("DELETE", f"{CONTAINERS}/mine").text == b"null"
    wait_for("the entry to go", lambda: not state(rest, "mine"))
    assert inspect(host, "mine")["Id"] == identity
    host.docker("rm", "flocker--mine")


def test_compose_replaces_containers_and_keeps_data(host, rest):
    address = [n["host"] for n in rest.ok("GET", "/v1/state/nodes")][0]
    kept = rest.create(metadata={"name": "kept"})["dataset_id"]
    create(rest, "dropped")
    wait_running(rest, "dropped")
    applications = {"version": 1, "applications": {
        "db": {"image": "busybox", "volume": {"mountpoint": "/data", "maximum_size": "1G"}, "ports": [{"internal": 5432, "external": 5432}]},
        "idle": {"image": "busybox"}}}
    deployment = {"version": 1, "nodes": {address: ["db"]}}
    reply = rest("POST", COMPOSE, {"applications": applications, "deployment": deployment})
    assert (reply.status, reply.text) == (200, b"null")
    listed = rest.ok("GET", CONTAINERS)
    assert [c["name"] for c in listed] == ["db"]
    dataset = listed[0]["volumes"][0]["dataset_id"]
    assert rest.dataset(dataset)["metadata"] == {"name": "db"} and rest.dataset(dataset)["maximum_size"] == 1 << 30
    assert not rest.dataset(kept)["deleted"]
    wait_for("the old one to go", lambda: not inspect(host, "dropped"), 30)
    wait_for("the new one", lambda: inspect(host, "db"))
    # The same again changes nothing.
    identity = inspect(host, "db")["Id"]
    rest("POST", COMPOSE, {"applications": applications, "deployment": deployment})
    wait_for("its end", lambda: not inspect(host, "db")["State"]["Running"])
    assert inspect(host, "db")["Id"] == identity
    for bad, words in (({"version": 1, "nodes": {"10.9.9.9": ["db"]}}, "10.9.9.9"), ({"version": 1, "nodes": {address: ["none"]}}, "none"),
                       ({"version": 1, "nodes": {address: ["db", "db"]}}, "more than one node"), ({"nodes": {}}, "version")):
        reply = rest("POST", COMPOSE, {"applications": applications, "deployment": bad})
        assert reply.status == 400 and words in reply.json["description"], reply
    assert [c["name"] for c in rest.ok("GET", CONTAINERS)] == ["db"]
    rest("POST", COMPOSE, {"applications": {"version": 1, "applications": {}}, "deployment": {"version": 1, "nodes": {}}})
    wait_for("all to go", lambda: not ours(host), 30)
    assert not rest.dataset(dataset)["deleted"], "data is never dropped"


def test_after_a_reboot_it_runs_again_once_its_dataset_is_mounted(hosts, flocker_binary):
    """With the newer engine."""
    host = hosts(network=hosts.network())
    up(host, flocker_binary)
    start_docker(host, "26")
    host.load_image("busybox")
    rest = Rest(host)
    dataset = rest.create()["dataset_id"]
    create(rest, "db", volumes=[{"dataset_id": dataset, "mountpoint": "/data"}],
           command_line=["sh", "-c", "cat /proc/sys/kernel/random/boot_id >> /data/boots; while :; do sleep 0.1; done"])
    wait_running(rest, "db")
    boots = f"/flocker/{dataset}/boots"
    wait_for("the first boot", lambda: host.path(boots).exists() and host.path(boots).read_text().count("\n") == 1)
    host.reboot()
    start_docker(host, "26")
    up(host, flocker_binary)
    rest = Rest(host)
    wait_for("the second boot", lambda: host.path(boots).exists() and host.path(boots).read_text().count("\n") == 2, 30)
    delete(host, rest, "db")
    host.flocker("down")


def test_it_moves_to_another_host_with_its_data(hosts, flocker_binary):
    """The former host stops and removes it, then its data moves, and only then does it start on the other; and back again."""
    first, second = make_cluster(hosts, flocker_binary, 2)
    for host in (first, second):
        start_docker(host, "20")
        host.load_image("busybox")
    rest = Rest(first)
    ids = {host.name: node_of(first, host)["id"] for host in (first, second)}
    dataset = rest.create(primary=ids[first.name])["dataset_id"]
    create(rest, "db", node_uuid=ids[first.name], restart_policy={"name": "always"}, volumes=[{"dataset_id": dataset, "mountpoint": "/data"}],
           command_line=["sh", "-c", "trap 'exit 0' TERM; hostname >> /data/starts; while :; do date +%s%N >> /data/log; sync; sleep 0.05; done"])
    log = f"/flocker/{dataset}/log"
    for turn, (source, target) in enumerate(((first, second), (second, first))):
        wait_running(rest, "db")
        wait_for("some lines", lambda source=source: source.path(log).exists() and len(source.path(log).read_text().split("\n")) > 20)
        before = source.path(log).read_text()
        moved = rest.ok("POST", f"{CONTAINERS}/db", {"node_uuid": ids[target.name]})
        assert moved["node_uuid"] == ids[target.name] and rest.dataset(dataset)["primary"] == ids[target.name]
        wait_for("it to run there", lambda target=target: [s for s in rest.ok("GET", STATES) if s["node_uuid"] == ids[target.name] and s["running"]], 60)
        assert not inspect(source, "db")
        assert target.path(log).read_text().startswith(before)
        assert len(target.path(f"/flocker/{dataset}/starts").read_text().split()) == turn + 2, "it has run once on each"
        wait_for("the state", lambda target=target: [s["node_uuid"] for s in rest.ok("GET", STATES)] == [ids[target.name]])
    # A dataset that is moved by force: its container is stopped, and waits where it is until it is moved too.
    first.flocker("volume", "move", dataset, first.network.address(second), "--force", "--wait", timeout=60)
    wait_running(rest, "db", False)
    assert second.path(log).exists() and not first.path(log).exists()
    rest.ok("POST", f"{CONTAINERS}/db", {"node_uuid": ids[second.name]})
    wait_running(rest, "db", timeout=40)
    assert not inspect(first, "db") and inspect(second, "db")
    delete(second, rest, "db")
    assert second.path(log).exists()
    for host in (second, first):
        host.flocker("down")
