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


# ---- moves of volumes that are in use, and that are called off

WRITER = "i=0; while :; do i=$((i+1)); echo $i >>/keep/log; sync /keep/log; echo $i; done"


def start(host, volume, command, *options):
    return host.docker("run", "-d", *options, "-v", f"{volume}:/keep", "--volume-driver=flocker", "busybox", "sh", "-c", command).stdout.strip()


def stage(control, volume):
    return control.flocker_json("volume", "inspect", volume)[0].get("move", {}).get("stage")


def leftovers(host):
    """What moves may leave in a pool: copies and snapshots."""
    pool = host.path("/var/lib/flocker/pool")
    return [str(path.relative_to(pool)) for path in [*pool.glob("incoming/*"), *pool.glob("volumes/*/out.*")]]


def nothing_left(*hosts):
    wait_for("copies and snapshots to be gone", lambda: not any(leftovers(host) for host in hosts), 20)


def test_a_volume_in_use_moves_when_its_container_ends(pair):
    one, two = pair
    writer = start(one, "warm", WRITER)
    one.flocker("volume", "move", "warm", two.network.address(two))
    wait_for("the copy to catch up", lambda: stage(one, "warm") == "seal", 30)
    with pytest.raises(CommandFailed) as refused:
        run(one, "warm", "true")
    assert "is being moved to node" in refused.value.stderr
    one.docker("stop", "-t", "0", writer)
    seen = int(one.docker("logs", writer).stdout.split()[-1])
    one.docker("rm", writer)
    assert run(two, "warm", "wc -l </keep/log").stdout.strip() in (str(seen), str(seen + 1))
    assert settled(one, "warm")["owner"] == node_of(one, two)["id"]
    nothing_left(one, two)


def test_force_stops_the_containers(pair):
    one, two = pair
    writer = start(one, "forced", WRITER, "--restart=always")
    one.flocker("volume", "move", "forced", node_of(one, two)["id"][:8], "--force", "--wait")
    assert owner(one, "forced") == node_of(one, two)["id"]
    lines = run(two, "forced", "cat /keep/log").stdout.split()
    assert lines == [str(i + 1) for i in range(len(lines))] and lines
    one.docker("rm", "-f", writer)
    settled(one, "forced")
    nothing_left(one, two)


def test_a_move_can_be_called_off(pair):
    one, two = pair
    writer = start(one, "stays", WRITER)
    one.flocker("volume", "move", "stays", two.network.address(two))
    wait_for("the copy to catch up", lambda: stage(one, "stays") == "seal", 30)
    assert leftovers(two)
    assert "stays where it is" in one.flocker("volume", "move", "stays", "--cancel").stdout
    one.docker("restart", "-t", "0", writer)
    assert owner(one, "stays") == node_of(one, one)["id"]
    nothing_left(one, two)
    one.docker("rm", "-f", writer)
    with pytest.raises(CommandFailed) as refused:
        one.flocker("volume", "move", "stays", "--cancel")
    assert "is not being moved" in refused.value.stderr


def test_what_makes_no_sense_is_refused(pair):
    one, _ = pair
    run(one, "sense", "true")
    for words, expected in ((["nowhere"], "no such node: nowhere"), ([], "say to which node"), (["x", "--rate-limit", "fast"], "fast")):
        with pytest.raises(CommandFailed) as refused:
            one.flocker("volume", "move", "sense", *words)
        assert expected in refused.value.stderr, refused.value.stderr
    with pytest.raises(CommandFailed) as refused:
        one.flocker("volume", "move", "unknown", "10.77.0.2")
    assert "no such volume" in refused.value.stderr


def test_a_node_that_is_away_is_waited_for(pair):
    one, two = pair
    address = one.network.address(two)
    one.flocker("volume", "create", "patient", "--node", one.network.address(one))
    two.kill_flocker("agent")
    wait_for("the node to be down", lambda: node_of(one, two)["state"] == "down", 30)
    said = one.flocker("volume", "move", "patient", address).stdout
    assert said == f"patient moves to {address}: that node is not connected: the move waits for it\n"
    assert f"moves to {address}: that node is not connected" in one.flocker("volume", "ls").stdout
    two.flocker("up")
    assert settled(one, "patient")["owner"] == node_of(one, two)["id"]


def test_removed_during_its_move(pair):
    one, two = pair
    writer = start(one, "doomed", WRITER)
    one.flocker("volume", "move", "doomed", two.network.address(two))
    wait_for("the copy to catch up", lambda: stage(one, "doomed") == "seal", 30)
    one.docker("rm", "-f", writer)
    removed = two.docker("volume", "rm", "doomed", check=False)
    assert removed.returncode == 0 or "moved" in removed.stderr, removed.stderr
    if removed.returncode:
        settled(one, "doomed")
        two.docker("volume", "rm", "doomed")
    nothing_left(one, two)
    one.flocker("volume", "restore", "doomed")
    run(one, "doomed", "test -s /keep/log")


def test_a_large_volume_is_on_its_way(pair):
    one, two = pair
    run(one, "large", "dd if=/dev/urandom of=/keep/data bs=1M count=600 2>/dev/null; md5sum /keep/data >/keep/sum; sync")
    wait_until_unmounted(one)
    one.flocker("volume", "move", "large", two.network.address(two), "--rate-limit", "60M")
    with pytest.raises(CommandFailed) as refused:
        run(two, "large", "true")
    assert "on its way" in refused.value.stderr and "try again" in refused.value.stderr, refused.value.stderr
    assert "% of" in one.flocker("volume", "ls").stdout
    one.flocker("volume", "move", "large", two.network.address(two), "--wait", timeout=120)
    run(two, "large", "md5sum -c /keep/sum")
    settled(one, "large")
    nothing_left(one, two)
