"""flocker diagnostics: one archive with what a report of a bug needs, and without secrets."""
import gzip
import tarfile

from conftest import start_docker
from paths import wait_for
from rest import Rest, up

MEMBERS = {"flocker-version", "flocker-control_startup.gz", "flocker-dataset-agent_startup.gz", "service-status", "control-status", "nodes",
           "volumes", "containers", "pool", "mounts", "docker-version", "docker-info", "uname", "os-release", "ip-addr", "hostname", "fdisk",
           "lsblk", "lshw"}
SECRET = "hunter2-very-secret"


def read(host, archive):
    with tarfile.open(host.path(archive)) as tar:
        content = {member.name.split("/")[-1]: tar.extractfile(member).read() for member in tar if member.isfile()}
    return {name: (gzip.decompress(data) if name.endswith(".gz") else data).decode() for name, data in content.items()}


def test_everything_is_in_it_but_secrets(hosts, flocker_binary):
    host = hosts(network=hosts.network())
    up(host, flocker_binary)
    start_docker(host, "20", args=["--label", f"password={SECRET}"])
    host.load_image("busybox")
    rest = Rest(host)
    dataset = rest.create(metadata={"name": "orders", "note": SECRET})["dataset_id"]
    rest.ok("POST", "/v1/configuration/containers", {
        "node_uuid": rest.node(), "name": "web", "image": "busybox", "environment": {"PLAIN": SECRET}, "command_line": ["sleep", SECRET]}, 201)
    wait_for("the container", lambda: rest.ok("GET", "/v1/state/containers"))
    with open(host.work / "disk/var/log/flocker/agent.log", "a", encoding="utf-8") as log:
        log.write(f"Authorization: Bearer {SECRET}\nhttps://user:{SECRET}@proxy/\n--token {SECRET}\n"
                  f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----\n")
    host.path("/tmp/flocker-diagnostics").symlink_to(flocker_binary)
    archive = host.run(["sh", "-c", "cd /tmp && ./flocker-diagnostics"]).stdout.strip()
    assert archive.startswith("/tmp/clusterhq_flocker_logs_") and archive.endswith(".tar")
    assert host.path(archive).stat().st_mode & 0o077 == 0
    content = read(host, archive)
    assert set(content) == MEMBERS
    for name, words in (("flocker-version", "flocker "), ("flocker-control_startup.gz", "ready"), ("flocker-dataset-agent_startup.gz", "ready"),
                        ("volumes", dataset), ("containers", "busybox"), ("pool", "backend"), ("control-status", "version"),
                        ("docker-info", "Server Version"), ("uname", "Linux"), ("mounts", "flocker"), ("lsblk", "NAME")):
        assert words in content[name], (name, content[name])
    keys = [host.path(f"/etc/flocker/{name}.key").read_text().split("\n")[1] for name in ("cluster", "node", "user", "control-service")]
    for name, text in content.items():
        assert SECRET not in text, name
        assert not any(key in text for key in keys), name
    assert not [path for path in host.path("/tmp").iterdir() if path.name.startswith("flocker-diagnostics-")]
    # Also while nothing runs.
    host.flocker("down", "--keep-mounted")
    assert set(read(host, host.run(["sh", "-c", "cd /tmp && ./flocker-diagnostics"]).stdout.strip())) == MEMBERS
    up(host, flocker_binary)
    rest("DELETE", "/v1/configuration/containers/web")
    wait_for("it to go", lambda: not rest.ok("GET", "/v1/state/containers"), 30)
    host.flocker("down")
