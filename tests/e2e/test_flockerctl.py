"""flockerctl and flocker-deploy over REST API v1: what people's scripts read, and what goes wrong."""
import os

import pytest

from conftest import start_docker
from paths import wait_for
from rest import SIZE, Rest, cluster, new_id

FLOCKERCTL, DEPLOY = "/tmp/flockerctl", "/tmp/flocker-deploy"
PENDING, ATTACHED = "pending \u231b", "attached \u2705"


@pytest.fixture(scope="module", name="host")
def host_of_module(module_hosts, flocker_binary):
    with cluster(module_hosts, flocker_binary) as host:
        for link in (FLOCKERCTL, DEPLOY):
            os.symlink(host.flocker_binary, host.path(link))
        yield host


@pytest.fixture(name="rest")
def rest_of_test(host):
    return Rest(host)


def ctl(host, *words, check=True, env=None):
    env = env if env is not None else {"FLOCKER_CERTS_PATH": "/etc/flocker", "FLOCKER_CONTROL_SERVICE": "127.0.0.1"}
    done = host.run([FLOCKERCTL, *words], check=False, env=env)
    assert done.stderr == "", "errors go to stdout, as in the original"
    assert not check or done.returncode == 0, done.stdout
    return done.stdout if check else (done.returncode, done.stdout)


def rows(text):
    """The cells of a table; its first line is blank."""
    lines = text.split("\n")
    assert lines[0].strip() == "" and lines[-1] == "" and len({len(line) for line in lines[:-1]}) == 1
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines[1:-1]]


def listed(host, dataset, *words):
    return {row[0]: row for row in rows(ctl(host, "list", *words))[1:]}.get(dataset)


def test_nodes(host, rest):
    node = rest.node()
    address = rest.ok("GET", "/v1/state/nodes")[0]["host"]
    assert rows(ctl(host, "list-nodes")) == [["SERVER", "ADDRESS"], [node[:8], address]]
    assert rows(ctl(host, "status", "-l")) == [["SERVER", "ADDRESS"], [node, address]]
    assert ctl(host, "list-nodes").split("\n")[1] == f"{'SERVER':8}   {'ADDRESS':{max(7, len(address))}}"


def test_a_dataset_from_create_to_destroy(host, rest):
    node, before = rest.node(), {d["dataset_id"] for d in rest.ok("GET", "/v1/configuration/datasets")}
    address = rest.ok("GET", "/v1/state/nodes")[0]["host"]
    assert "created dataset" in ctl(host, "create", "--node", node[:6], "-m", "name=orders,tier=gold", "--size", "1.5Gib")
    (dataset,) = {d["dataset_id"] for d in rest.ok("GET", "/v1/configuration/datasets")} - before
    rest.mounted(dataset)
    header = rows(ctl(host, "ls"))[0]
    assert header == ["DATASET", "SIZE", "METADATA", "STATUS", "SERVER"]
    shown = listed(host, dataset)
    assert shown[:2] + shown[3:] == [dataset, "1.50G", ATTACHED, f"{node[:8]} ({address})"]
    assert set(shown[2].split(",")) == {"name=orders", "tier=gold"}
    assert listed(host, dataset, "--long")[4] == f"{node} ({address})"
    # Where it is wanted, on a node that nobody knows, nothing can be.
    other = rest.ok("POST", "/v1/configuration/datasets", {"primary": new_id()}, 201)["dataset_id"]
    assert listed(host, other)[1:] == ["<no quota>", PENDING, "<missing>"]
    assert "initiating move" in ctl(host, "move", "-d", other, "-t", node[:8])
    wait_for("the move", lambda: listed(host, other)[2] == ATTACHED)
    assert "marking dataset as deleted" in ctl(host, "destroy", "--dataset", dataset[:30])
    wait_for("its end", lambda: not listed(host, dataset))
    assert listed(host, dataset, "-d")[3] == "deleted"


def test_what_is_wrong_is_told_on_stdout(host, rest):
    some = rest.create()["dataset_id"]
    rest.create()
    for words, expected in ((["create"], "--node"), (["destroy", "-d", "zz"], "No dataset found"), (["destroy", "-d", ""], "Ambiguous"),
                            (["move", "-d", some, "-t", "zz"], "No node found"), (["create", "-n", rest.node(), "-s", "12q"], "12q"),
                            (["create", "-n", rest.node(), "-m", "novalue"], "novalue"), (["frobnicate"], "frobnicate"),
                            (["list", "--frob"], "--frob"), (["create", "-n", rest.node(), "-s", "1000"], "schema")):
        status, text = ctl(host, *words, check=False)
        assert status == 1 and expected in text, (words, text)
    status, text = ctl(host, "list", check=False, env={"FLOCKER_CERTS_PATH": "/tmp", "FLOCKER_CONTROL_SERVICE": "127.0.0.1"})
    assert status == 1 and "/tmp/" in text
    assert "0.0.1" in ctl(host, "version", env={})
    assert "list-nodes" in ctl(host, "--help", env={}) and "--size" in ctl(host, "create", "--help", env={})


def test_options_environment_and_files_say_who_and_where(host):
    """Options go before the environment; a cluster.yml before both; agent.yml says where control is."""
    options = ["--certs-path=/etc/flocker", "--user=user", "--cluster-crt=cluster.crt", "--control-service=localhost", "--control-port=4523"]
    assert rows(ctl(host, *options, "list-nodes", env={"FLOCKER_CERTS_PATH": "/nowhere", "FLOCKER_USER": "nobody"}))
    folder = host.path("/tmp/cluster")
    folder.mkdir()
    for name in ("cluster.crt", "user.crt", "user.key"):
        (folder / name).write_bytes(host.path(f"/etc/flocker/{name}").read_bytes())
    (folder / "cluster.yml").write_text("cluster_name: x\nusers:\n  - user\nagent_nodes:\n  - {public: 10.0.0.1, private: 10.0.0.1}\n")
    (folder / "agent.yml").write_text("version: 1\ncontrol-service: {hostname: 127.0.0.1, port: 4524}\n")
    assert rows(ctl(host, "--cluster-yml=/tmp/cluster/cluster.yml", "list-nodes", env={}))
    assert rows(ctl(host, "--certs-path=/tmp/cluster", "list-nodes", env={}))
    # In a container, the host's files are below /host.
    os.symlink("/", host.path("/tmp/host-is-here"))
    status, text = ctl(host, "--certs-path=/etc/flocker", "--control-service=127.0.0.1", "list", check=False, env={"CONTAINERIZED": "1"})
    assert status == 1 and "/host/etc/flocker" in text
    status, text = ctl(host, "--certs-path=/etc/flocker", "--control-service=127.0.0.1", "--user=plugin", "list", check=False, env={})
    assert status == 1 and text


def test_deploy(host, rest):
    start_docker(host, "20")
    host.load_image("busybox")
    address = rest.ok("GET", "/v1/state/nodes")[0]["host"]
    host.path("/tmp/deployment.yml").write_text(f"version: 1\nnodes:\n  {address}: [db]\n")
    host.path("/tmp/application.yml").write_text('version: 1\napplications:\n  db:\n    image: "busybox"\n    environment: {SIZE: "7"}\n'
                                                 "    volume: {mountpoint: /data, maximum_size: 64M}\n")
    command = [DEPLOY, "--certificates-directory=/etc/flocker", "127.0.0.1", "/tmp/deployment.yml", "/tmp/application.yml"]
    assert "has been updated" in host.run(command).stdout
    (container,) = rest.ok("GET", "/v1/configuration/containers")
    assert container["name"] == "db" and container["environment"] == {"SIZE": "7"}
    assert rest.dataset(container["volumes"][0]["dataset_id"])["maximum_size"] == SIZE
    wait_for("it to be made", lambda: host.docker("ps", "-aq", "--filter", "name=^/flocker--db").stdout)
    host.path("/tmp/deployment.yml").write_text("version: 1\nnodes:\n  10.9.9.9: [db]\n")
    done = host.run(command, check=False)
    assert done.returncode == 1 and "10.9.9.9" in done.stdout
    host.path("/tmp/deployment.yml").write_text("version: 1\nnodes: {}\n")
    host.run(command)
    wait_for("it to go", lambda: not host.docker("ps", "-aq", "--filter", "name=^/flocker--db").stdout, 30)
