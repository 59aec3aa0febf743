"""The main job on one host: a real engine's containers keep their data in Flocker volumes."""
import pytest

from conftest import start_docker

ENGINES = [pytest.param(version, marks=pytest.mark.docker(version)) for version in ("20", "26")]


@pytest.mark.parametrize("version", ENGINES)
def test_container_keeps_its_data(host, flocker_binary, version):
    host.start_flocker(flocker_binary)
    start_docker(host, version)
    host.load_image("busybox")
    run = ["run", "--rm", "-v", "db:/keep", "--volume-driver=flocker", "busybox"]
    host.docker(*run, "sh", "-c", "echo hello > /keep/greeting")
    assert host.docker(*run, "cat", "/keep/greeting").stdout == "hello\n"
    assert "flocker" in host.docker("volume", "ls").stdout
    host.docker("volume", "rm", "db")
    assert "db" not in host.docker("volume", "ls").stdout
