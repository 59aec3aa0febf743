"""Volumes move between hosts: with real Docker engines, over TLS, from one btrfs pool to another."""
import pytest

from cluster import make_cluster, node_of
from host import CommandFailed
from paths import wait_for
from replay import wait_until_unmounted


@pytest.fixture(scope="module", name="pair")
def pair_of_module(module_hosts, flocker_binary):
    one, two = make_cluster(module_hosts, flocker_binary, 2)
    for host in (one, two):
        host.start_docker("20")
        host.load_image("busybox")
    return one, two


def run(host, volume, command, **options):
    return host.docker("run", "--rm", "-v", f"{volume}:/keep", "--volume-driver=flocker", "busybox", "sh", "-c", command, **options)


def owner(control, volume):
    return control.flocker_json("volume", "inspect", volume)[0]["owner"]


def settled(control, volume):
    """Waits until nothing of a move is left, and returns the volume."""
    def done():
        seen = control.flocker_json("volume", "inspect", volume)[0]
        return seen if "move" not in seen and seen["ready"] else None
    return wait_for(f"the move of {volume} to end", done, 30)


def test_container_finds_its_data_on_the_other_host(pair):
    one, two = pair
    run(one, "db", "echo hello >/keep/greeting; sync")
    wait_until_unmounted(one)
    assert run(two, "db", "cat /keep/greeting").stdout == "hello\n"
    assert settled(one, "db")["owner"] == node_of(one, two)["id"]
    run(two, "db", "echo again >>/keep/greeting")
    wait_until_unmounted(two)
    assert run(one, "db", "cat /keep/greeting").stdout == "hello\nagain\n"
    assert settled(one, "db")["owner"] == node_of(one, one)["id"]
    assert list(two.path("/var/lib/flocker/pool/volumes").iterdir()) == []


def test_a_volume_in_use_is_refused_and_its_user_named(pair):
    one, two = pair
    run(one, "busy", "true")
    container = one.docker("run", "-d", "-v", "busy:/keep", "--volume-driver=flocker", "busybox", "sleep", "600").stdout.strip()
    with pytest.raises(CommandFailed) as refused:
        run(two, "busy", "true")
    assert "in use by container " + container[:12] in refused.value.stderr, refused.value.stderr
    one.docker("rm", "-f", container)
    wait_until_unmounted(one)
    run(two, "busy", "true")
