"""`make up` and `make down` on a host without systemd: what they start, that a second run changes nothing, and that nothing stays."""
import hashlib
import json
import os

import pytest

from paths import CHECKOUT

# What programs write about their own activity, not about what Flocker is set up to do.
NOISE = ("/var/log/flocker", "/var/lib/docker", "/var/lib/containers", "/run/containerd", "/run/docker", "/run/containers", "/run/libpod",
         "/run/lock", "/var/lib/flocker/pool/", "/run/crun", "/run/runc")


@pytest.fixture(scope="module")
def up_host(module_hosts, flocker_binary):
    """A host with a network of its own on which nothing runs; its dockerd must leave the network alone."""
    host = module_hosts("up", network=module_hosts.network())
    host.path("/etc/docker/daemon.json").write_text(json.dumps({"bridge": "none", "iptables": False, "ip6tables": False, "ip-forward": False}))
    host.path("/etc/containers/policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')  # as Debian's package has it
    host.binary = flocker_binary
    return host


def tool(host, name, **options):
    return host.run([CHECKOUT / "tools" / name, host.binary], timeout=180, **options)


def files(host):
    """{path: what it is} of the folders Flocker and the engines own, and of /etc."""
    found = {}
    for top in ("/etc", "/run", "/var/lib/flocker", "/flocker", "/tmp"):
        for folder, folders, names in os.walk(host.path(top)):
            inside = "/" + os.path.relpath(folder, host.path("/"))
            folders[:] = [name for name in folders if not f"{inside}/{name}".startswith(NOISE + (str(host.work),))]
            for name in names + folders:
                status = os.lstat(os.path.join(folder, name))
                found[f"{inside}/{name}"] = (oct(status.st_mode), status.st_uid, status.st_ino)
    return found


def config_digest(host):
    digest = hashlib.sha256()
    for top in ("/etc/flocker", "/etc/containers", "/etc/docker"):
        for file in sorted(host.path(top).rglob("*")):
            digest.update(str(file).encode() + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()


def state(host):
    mounts = [line.split(" - ")[0].split()[3:5] for line in host.path("/proc/1/mountinfo").read_text().splitlines()]
    return {"files": files(host), "config": config_digest(host), "mounts": sorted(mounts), "processes": sorted(host.processes().items()),
            "volumes": host.run(["docker", "volume", "ls", "-q"]).stdout, "images": host.run(["docker", "image", "ls", "-q"]).stdout,
            "status": json.loads(host.ask("/run/flocker/control.sock", "GET", "/v2/volumes?all=1")[1])}


def test_first_run_starts_and_checks(up_host):
    before = set(files(up_host))
    said = tool(up_host, "up").stdout
    assert "Self-check with docker passed" in said and "Self-check with podman passed" in said
    assert "dockerd started" in said and "docker run" in said
    now = state(up_host)
    assert (now["status"], now["volumes"], now["images"]) == ([], "", "")
    assert not [name for name in set(now["files"]) - before if "selfcheck" in name or name.startswith("/tmp/tmp")]


def test_second_run_changes_nothing(up_host):
    before = state(up_host)
    said = tool(up_host, "up").stdout
    assert "nothing was changed" in said
    assert state(up_host) == before


def test_self_check_alone_leaves_nothing(up_host):
    before = state(up_host)
    assert up_host.run([CHECKOUT / "tools/self-check"], timeout=120).stdout.count("passed") == 2
    assert state(up_host) == before


def test_an_engine_that_runs_nothing_is_left_out(up_host):
    podman = up_host.path("/usr/local/sbin/podman")
    podman.write_text('#!/bin/sh\n[ "$1" != run ] || { echo "no containers today" >&2; exit 126; }\nexec /usr/bin/podman "$@"\n')
    podman.chmod(0o755)
    before = state(up_host)
    said = up_host.run([CHECKOUT / "tools/self-check"], timeout=120).stdout
    podman.unlink()
    assert "Self-check with docker passed" in said
    assert "with podman left out: it can't run containers here, with or without a volume: no containers today" in said
    assert state(up_host)["volumes"] == before["volumes"]


def test_down_refuses_while_a_volume_is_in_use(up_host):
    up_host.load_image("busybox")
    up_host.docker("run", "-d", "--name=user", "--network=none", "-v", "db:/keep", "--volume-driver=flocker", "busybox", "sleep", "600")
    refused = tool(up_host, "down", check=False)
    assert refused.returncode and "in use" in refused.stderr
    assert up_host.docker("exec", "user", "touch", "/keep/still").returncode == 0
    up_host.docker("rm", "-f", "user")


def test_down_leaves_nothing_running(up_host):
    tool(up_host, "down")
    assert up_host.processes() == {}
    mountinfo = up_host.path("/proc/1/mountinfo").read_text()
    assert "/flocker/" not in mountinfo.replace(str(CHECKOUT), "") and "/var/lib/flocker/pool " not in mountinfo
    assert not up_host.loops()
    assert not up_host.path("/run/docker/plugins/flocker/flocker.sock").exists()
    assert not up_host.path("/run/flocker/dockerd.pid").exists()


def test_data_is_there_after_down_and_up(up_host):
    tool(up_host, "up")
    run = ["run", "--rm", "--network=none", "-v", "db:/keep", "--volume-driver=flocker", "busybox"]
    assert up_host.docker(*run, "ls", "/keep").stdout == "still\n"
    tool(up_host, "down")
