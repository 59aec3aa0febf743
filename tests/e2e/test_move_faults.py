"""Moves of volumes survive whatever fails: one owner, all data, nothing left over, and the move ends by itself.

FLOCKER_FAULT_ROUNDS=N   with more than 10 each failpoint is met many more times
FLOCKER_FAULT_SEED=N     the storm's seed; without it a new one is drawn. It is printed when the test fails.
FLOCKER_STORM_S=N        how long the storm lasts (`make soak` has it last for minutes)
"""
import concurrent.futures
import hashlib
import json
import os
import random
import socket
import ssl
import subprocess
import time

import pytest

from faults import POOL, failpoints
from moves import MIB, Movers, Watch
from rest import network_of, tls_context
from test_rest_agents import Agent

LONG = int(os.environ.get("FLOCKER_FAULT_ROUNDS", "10")) > 10
SEED = int(os.environ.get("FLOCKER_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
STORM_S = int(os.environ.get("FLOCKER_STORM_S", "15"))


@pytest.fixture(scope="module", name="movers")
def movers_of_module(module_hosts, flocker_binary):
    movers = Movers(module_hosts, flocker_binary, 3)
    yield movers
    movers.check_logs()


@pytest.fixture(autouse=True)
def start_clean(movers):
    """Nothing of a test before is there, every daemon runs, and the logs are this test's."""
    movers.restore()
    movers.forget_logs()


def arm(flocker, point):
    """The daemon that comes to that failpoint is started anew, with it."""
    flocker.kill("control" if point.startswith("control.") else "agent")
    started = flocker.up(point, check=False)
    assert started.returncode == 0 or fired(flocker, point), started.stderr + flocker.log()[-3000:]


def fired(flocker, point):
    return f"failpoint {point.split(':')[0]} in process" in flocker.log()


def wait_fired(movers, flocker, point):
    movers.wait(f"{point} on {flocker.host.name}", lambda: fired(flocker, point))


# ---- kill -9 at each failpoint

# How a volume goes from one host to another, so that each failpoint is passed.


def there_and_back(volume, here, there):
    """In use when it is moved there, by control; free when it comes back, by a mount."""
    volume.move(there)
    volume.wait_stage("seal")
    volume.write(here, 100000)
    volume.unmount(here)
    volume.mount(there)
    volume.verify(there)
    volume.write(there, MIB)
    volume.unmount(there)
    volume.mount(here)


def taken(volume, here, there):
    """Free, and mounted by a host that knows nothing of it; then taken back."""
    volume.unmount(here)
    there.get(volume.name)  # as an engine does first
    volume.mount(there)
    volume.verify(there)
    volume.unmount(there)
    volume.mount(here)


def called_off(volume, here, there):
    volume.move(there)
    volume.wait_stage("seal")
    volume.cancel()
    volume.write(here, 100000)


def slow(volume, here, there):
    """It takes so long that there are checkpoints, which are made every 10 s."""
    volume.write(here, 2 * MIB)
    volume.unmount(here)
    volume.move(there, rate_limit=400000)
    volume.wait_owner(there)
    volume.mount(there)
    volume.verify(there)
    volume.unmount(there)
    volume.mount(here)


# (journey, failpoint, how many times it is worth being met on the first host, on the second)
ON_CONTROL = [(there_and_back, "control.written", 7), (there_and_back, "control.committed", 7), (there_and_back, "control.report", 6),
              (there_and_back, "control.rest-reply", 1), (there_and_back, "control.hello", 1),
              (taken, "control.told", 3), (called_off, "control.committed", 4)]
ON_AGENTS = [(there_and_back, "agent.want", 6, 6), (there_and_back, "agent.step-start", 6, 6), (there_and_back, "agent.step-done", 6, 6),
             (there_and_back, "agent.step-reported", 3, 3), (there_and_back, "worker.start", 5, 5), (there_and_back, "worker.done", 3, 3),
             (there_and_back, "file.written", 3, 3), (there_and_back, "file.renamed", 3, 3), (there_and_back, "update.limited", 2, 2),
             (there_and_back, "update.recorded", 2, 2), (there_and_back, "destroy.staged", 1, 1), (there_and_back, "destroy.data-deleted", 1, 1),
             (there_and_back, "destroy.cleared", 1, 1), (there_and_back, "transfer.snapshot", 2, 1), (there_and_back, "transfer.dropped", 2, 1),
             (there_and_back, "transfer.granted", 2, 2), (there_and_back, "transfer.chosen", 2, 2), (there_and_back, "transfer.sent", 2, 2),
             (there_and_back, "transfer.noted", 2, 2), (there_and_back, "transfer.asked", 2, 2), (there_and_back, "transfer.part-made", 1, 2),
             (there_and_back, "transfer.applied", 2, 2), (there_and_back, "transfer.checked", 2, 2), (there_and_back, "transfer.copied", 2, 2),
             (there_and_back, "transfer.shared", 1, 1), (there_and_back, "transfer.placed", 1, 1), (taken, "agent.found", 0, 1),
             (taken, "agent.released", 1, 1), (called_off, "transfer.discarded", 0, 1), (slow, "transfer.mark-noted", 0, 1),
             (slow, "transfer.marked", 0, 1)]
FURTHER = 3 if LONG else 1
KILLS = [("control", journey, name, hit) for journey, name, hits in ON_CONTROL for hit in range(1, FURTHER * hits + 1)]
KILLS += [(where, journey, name, hit) for journey, name, *hits in ON_AGENTS for where, number in zip(("first", "second"), hits)
          for hit in range(1, FURTHER * number + 1)]


@pytest.mark.parametrize("where, journey, name, hit", KILLS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_killed_at(movers, where, journey, name, hit):
    first, second, _ = movers.flockers
    armed = second if where == "second" else first
    volume = movers.volume(first)
    arm(armed, f"{name}:{hit}")
    with Watch(movers, volume):
        journey(volume, first, second)
        volume.verify(first)
        volume.unmount(first)
        movers.settled(volume)
        assert volume.owner() is first
    assert hit > 1 or fired(armed, name), f"{name} was never reached"


def test_every_failpoint_of_transfers_is_tried():
    """A new one has to be put into the list above."""
    assert {name for name in failpoints() if name.startswith("transfer.")} <= {name for _, name, *_ in ON_AGENTS}


# ---- volumes in each stage of a move at once


class Stages:
    """Moves from one host to another, each brought to a stage and held there as long as it takes."""

    def __init__(self, movers, source, target):
        self.movers, self.source, self.target = movers, source, target
        self.settle = self.held(target, "transfer.shared", "settle")
        self.release = self.held(source, "destroy.staged", "release")
        self.transfer = movers.volume(source, 8)
        self.warm, self.seal = movers.volume(source, 8), movers.volume(source)
        self.transfer.unmount(source)
        self.seal.move(target)
        self.seal.wait_stage("seal")
        self.warm.move(target, rate_limit=2 * MIB)
        self.transfer.move(target, rate_limit=2 * MIB)
        self.transfer.wait_bytes()
        assert self.warm.stage() == "warm"
        self.all = [self.warm, self.seal, self.transfer, self.settle, self.release]

    def held(self, flocker, point, stage):
        """A volume whose move can't go on because a worker hangs."""
        arm(flocker, f"{point}:1:hang")
        volume = self.movers.volume(self.source)
        volume.unmount(self.source)
        volume.move(self.target)
        wait_fired(self.movers, flocker, point)
        volume.wait_stage(stage)
        return volume

    def let_go(self):
        """The workers that hang, and the users."""
        for flocker in (self.source, self.target):
            while flocker.host.holder and flocker.kill("worker"):  # the transfers go on from their checkpoints, or anew
                pass
        for volume in (self.warm, self.seal):
            if volume.is_mounted(self.source):  # it has not been rebooted
                volume.write(self.source, 100000)
                volume.step(self.source, "Unmount", ID="user")

    def arrived(self):
        """All of them."""
        for volume in self.all:
            volume.wait_owner(self.target)
        self.movers.settled(*self.all)
        for volume in self.all:
            volume.mount(self.target)
            volume.verify(self.target)
            volume.unmount(self.target)


def test_worker_killed_while_it_noted_a_digest(movers):
    """What it was writing goes with the snapshot that it belongs to."""
    _, source, target = movers.flockers
    volume = movers.volume(source)
    volume.move(target)
    volume.wait_stage("seal")
    folder = source.host.path(f"{POOL}/volumes/{volume.id}")
    snapshots = [path for path in folder.glob("out.*") if path.is_dir()]
    for path in snapshots:
        path.with_name(path.name + ".digest.tmp").write_text("0")
    assert snapshots
    volume.unmount(source)
    volume.wait_owner(target)
    movers.settled(volume)
    volume.mount(source)
    volume.verify(source)
    volume.unmount(source)


# ---- links

CUT_S = 2
LINKS = [("cut", "source", CUT_S), ("cut", "target", CUT_S), ("in", "source", CUT_S), ("out", "source", CUT_S), ("in", "target", CUT_S),
         ("out", "target", CUT_S), ("cut", "source", 22)]  # the last one for longer than it takes to be seen as dead


def break_link(network, host, how):
    if how == "cut":
        network.cut(host)
    else:
        network.cut_one_way(host, how)


@pytest.mark.parametrize("how, end, seconds", LINKS)
def test_link(movers, how, end, seconds):
    """Cut at one end, in both directions or in one, in each stage of a move, and healed."""
    _, source, target = movers.flockers
    stages = Stages(movers, source, target)
    host = getattr(stages, end).host
    break_link(movers.network, host, how)
    stages.let_go()
    time.sleep(seconds)  # it is cut for so long
    for volume in stages.all:
        assert not volume.is_mounted(target)
    movers.restore_links()
    stages.arrived()


def test_packets_are_lost(movers):
    """30 % of them, in both directions, for the whole move."""
    _, source, target = movers.flockers
    volume = movers.volume(source)
    volume.unmount(source)
    movers.network.lose(source.host, 0.3)
    volume.move(target)
    volume.wait_owner(target, 180)
    movers.settled(volume, timeout=180)
    movers.restore_links()
    volume.mount(target)
    volume.verify(target)
    volume.unmount(target)


# ---- control


def test_control_is_down_for_the_whole_transfer(movers):
    _, source, target = movers.flockers
    volume = movers.volume(source, 8)
    volume.unmount(source)
    volume.move(target, rate_limit=4 * MIB)
    volume.wait_bytes()
    movers.control.kill("control")
    movers.wait("all of it to be there", lambda: f"volume {volume.id}: snapshot" in target.log())
    volume.mount(source)  # it is not sealed yet
    volume.write(source, 100000)
    volume.unmount(source)
    movers.control.up()
    volume.arrive(target)


def test_control_is_killed_in_each_stage(movers):
    _, source, target = movers.flockers
    stages = Stages(movers, source, target)
    movers.control.kill("control")
    stages.let_go()
    movers.control.up()
    stages.arrived()


# ---- power


@pytest.mark.parametrize("end", ["source", "target"])
def test_power_cut_in_each_stage(movers, end):
    _, source, target = movers.flockers
    stages = Stages(movers, source, target)
    dead = getattr(stages, end)
    dead.host.reboot()
    stages.let_go()
    dead.up()
    stages.arrived()


# ---- clocks


def test_boot_clocks_that_jump(movers):
    """The agent of each end starts anew in each stage, with a boot clock that is an hour later: no time that it has noted counts any more."""
    _, source, target = movers.flockers
    stages = Stages(movers, source, target)
    for flocker in (source, target):
        flocker.kill("agent")
        flocker.up_later(3600)
    stages.let_go()
    stages.arrived()
    for flocker in (source, target):
        flocker.kill("agent")
        flocker.up()


# ---- a full pool


class Filled:
    """A host's pool in which but some MiB are left."""

    def __init__(self, flocker, left_mib):
        self.host = flocker.host
        free = int(self.host.run(["stat", "--file-system", "--format=%a", POOL]).stdout) * int(
            self.host.run(["stat", "--file-system", "--format=%S", POOL]).stdout)
        size = free - left_mib * MIB
        while size > MIB and self.host.run(["fallocate", "--length", str(size), f"{POOL}/filler"], check=False).returncode:
            size -= size // 50
        self.number = 0
        while self.host.run(["fallocate", "--length", str(left_mib * MIB), f"{POOL}/filler{self.number}"], check=False).returncode == 0:
            self.number += 1

    def free(self):
        self.host.run(["sh", "-c", f"rm -f {POOL}/filler* && btrfs filesystem sync {POOL}"])


def test_full_pool_at_the_target(movers):
    one, source, target = movers.flockers
    stays, goes = movers.volume(source, 90), movers.volume(source, 90)
    for volume in (stays, goes):
        volume.move(target, rate_limit=8 * MIB)  # that slow, so that the pool is filled on the way
    filled = Filled(target, 40)
    try:
        for volume in (stays, goes):
            movers.wait("the error", lambda v=volume: "full" in v.error())
            assert "full" in one.host.flocker("volume", "inspect", volume.name).stdout
        assert "full" in one.host.flocker("volume", "ls").stdout
        stays.cancel()
        stays.write(source, MIB)
        stays.unmount(source)
        stays.mount(source)
        stays.verify(source)
        stays.unmount(source)
        movers.wait("its copy to go", lambda: not target.host.path(f"{POOL}/incoming/{stays.id}").exists())
    finally:
        filled.free()
    goes.unmount(source)
    goes.wait_owner(target)
    movers.settled(stays, goes)
    goes.mount(target)
    goes.verify(target)
    goes.unmount(target)
    assert stays.owner() is source


GIB = 1 << 30


def pool_of(movers, flocker):
    """Free bytes of a node's pool: as control knows them, and as they are."""
    node = movers.control.control("GET", f"/v2/nodes/{movers.id(flocker)}")[1]
    free = flocker.host.run(["stat", "--file-system", "--format=%a %S", POOL]).stdout.split()
    return node["pool"]["size"] - node["pool"]["used"], int(free[0]) * int(free[1])


def test_move_that_does_not_fit_is_refused(movers):
    """At once, by all ways; and accepted at once when there is room again, although nobody has told control."""
    one, source, target = movers.flockers
    volume = movers.volume(source, 300)
    source.host.run(["btrfs", "filesystem", "sync", POOL])
    filled = Filled(target, 1024 + 200)  # of which 1 GiB stays free for others
    try:
        target.kill("agent")
        target.up()  # it tells of its pool when it has begun
        movers.wait("control to hear of it", lambda: pool_of(movers, target)[0] < 4 * GIB)
        for version, path in (("v2", f"volumes/{volume.name}/move"), ("v1", f"configuration/datasets/{volume.id}")):
            body = {"node" if version == "v2" else "primary": movers.id(target)}
            status, answer = movers.control.control("POST", f"/{version}/{path}", body)
            assert status == 507, (status, answer)
            for words in ("does not fit", movers.id(target), "full", "MiB", "1GiB free for other volumes", "flocker pool grow", "another node"):
                assert words in answer["description"], (words, answer)
        refused = one.host.flocker("volume", "move", volume.name, movers.id(target), check=False)
        assert refused.returncode == 8 and "does not fit" in refused.stderr, refused
        assert "move" not in volume.shown()
    finally:
        filled.free()
    movers.wait("the room", lambda: pool_of(movers, target)[1] > 4 * GIB)
    assert pool_of(movers, target)[0] < 4 * GIB
    volume.move(target)
    volume.unmount(source)
    volume.arrive(target)


def test_target_keeps_room_for_others(movers):
    """A pool that is filled meanwhile: the move waits before it takes the rest, says so, and goes on when there is room."""
    one, source, target = movers.flockers
    volume = movers.volume(source, 300)
    volume.move(target, rate_limit=20 * MIB)
    volume.wait_bytes()
    filled = Filled(target, 1024 + 60)
    try:
        movers.wait("the error", lambda: "the pool is too full" in volume.error())
        for _ in range(10):
            assert pool_of(movers, target)[1] > GIB - 64 * MIB
            time.sleep(0.2)  # more would come by now
        shown = one.host.flocker("volume", "inspect", volume.name).stdout
        assert "the pool is too full" in shown and "1GiB free for other volumes" in shown, shown
    finally:
        filled.free()
    volume.unmount(source)
    volume.arrive(target)


def test_more_than_a_volume_can_hold(movers):
    """Data that shrinks in the source's pool, and would not in the target's: it stops, says what to do, and goes on when that is done."""
    one, source, target = movers.flockers
    volume = movers.volume(source)
    volume.control("PATCH", "", {"size": 64 * MIB})
    source.host.run(["btrfs", "property", "set", f"{POOL}/volumes/{volume.id}/data", "compression", "zstd"])
    content = b"".join(hashlib.sha256(bytes([number])).digest() * 32768 for number in range(250))
    (volume.folder(source) / "shrinks").write_bytes(content)
    volume.written["shrinks"] = hashlib.sha256(content).hexdigest()
    volume.unmount(source)
    volume.move(target)
    movers.wait("the error", lambda: "more than the volume can hold" in volume.error())
    shown = one.host.flocker("volume", "inspect", volume.name).stdout
    assert "size limit" in shown and "larger" in shown, shown
    assert volume.owner() is source
    volume.control("PATCH", "", {"size": 256 * MIB})
    volume.arrive(target)


# ---- missing data


def lose(flocker, volume):
    """What a volume has in a pool; the agent does not run meanwhile. What brings it back."""
    flocker.kill("agent")
    folder, hidden = (flocker.host.path(f"{POOL}/{name}") for name in (f"volumes/{volume.id}", f"lost-{volume.id}"))
    folder.rename(hidden)
    flocker.up()

    def bring_back():
        flocker.kill("agent")
        hidden.rename(folder)
        flocker.up()
    return bring_back


def test_missing_data_is_not_moved(movers):
    """Refused as soon as its owner has said so; a move that was under way shows it, without trying, and goes on when the data is back."""
    one, source, target = movers.flockers
    never, moving = movers.volume(source), movers.volume(source)
    for volume in (never, moving):
        volume.unmount(source)
    target.kill("agent")
    movers.wait("the target to be gone", lambda: not movers.is_up(target))
    moving.move(target)
    back = [lose(source, volume) for volume in (never, moving)]
    movers.wait("the owner to say so", lambda: all("is not there" in (v.shown().get("error") or {}).get("description", "") for v in (never, moving)))
    target.up()
    movers.wait("the target to be back", lambda: movers.is_up(target))
    for version, path in (("v2", f"volumes/{never.name}/move"), ("v1", f"configuration/datasets/{never.id}")):
        status, answer = movers.control.control("POST", f"/{version}/{path}", {"node" if version == "v2" else "primary": movers.id(target)})
        assert status == 500 and "data is missing on its node" in answer["description"], (status, answer)
    assert "move" not in never.shown()
    target.get(never.name)  # as an engine does first
    status, answer = target.plugin("Mount", Name=never.name, ID="user")
    assert status == 500 and "is not there" in answer["Err"], answer
    assert "move" not in never.shown()
    assert "data is missing" in moving.shown()["move"]["error"]["description"]
    assert "is not there" in one.host.flocker("volume", "inspect", moving.name).stdout
    before = source.log().count("a node's fetch from here")
    time.sleep(3)  # some tries would be made by then
    assert source.log().count("a node's fetch from here") == before
    for bring_back in back:
        bring_back()
    moving.wait_owner(target)
    movers.settled(moving)
    for volume, where in ((moving, target), (never, source)):
        volume.mount(where)
        volume.verify(where)
        volume.unmount(where)


# ---- several wishes at once


def test_two_targets_at_once(movers):
    """Told to go to two nodes at the same time, and mounted on both: it gets to one of them, and the other one is told so."""
    source, *targets = movers.flockers
    for _ in range(3):
        volume = movers.volume(source)
        volume.unmount(source)
        with Watch(movers, volume), concurrent.futures.ThreadPoolExecutor(4) as pool:
            moves = [pool.submit(volume.move, target, check=False) for target in targets]
            mounts = [pool.submit(target.plugin, "Mount", Name=volume.name, ID="user") for target in targets]
            answers = [mount.result() for mount in mounts]
            assert all(move.result()[0] in (200, 202, 409) for move in moves)
        got = [target for target, answer in zip(targets, answers) if answer[0] == 200]
        assert len(got) < 2, answers
        for target in got:
            volume.verify(target)
            volume.unmount(target)
        movers.wait("the last move", lambda v=volume: v.stage() == "none" and v.owner() is not source)
        movers.settled(volume)
        volume.mount(volume.owner())
        volume.verify(volume.owner())
        volume.unmount(volume.owner())


def remove(volume):
    return volume.movers.control.control("DELETE", f"/v2/volumes/{volume.id}")


def test_removed_in_each_stage(movers):
    """What is in use is not removed; all else ends in the trash of one node, with its data, and can be restored."""
    _, source, target = movers.flockers
    stages = Stages(movers, source, target)
    for volume in (stages.warm, stages.seal):
        status, body = remove(volume)
        assert status == 409 and "in use" in body["description"], body
    answers = {volume: remove(volume) for volume in (stages.transfer, stages.settle, stages.release)}
    stages.let_go()
    for volume, (status, body) in answers.items():
        if status != 200:
            assert status in (409, 503, 504), (status, body)
            movers.wait("its removal", lambda v=volume: remove(v)[0] in (200, 404))
    movers.settled()
    for volume in answers:
        assert movers.control.control("POST", f"/v2/volumes/{volume.id}/restore", {})[0] == 200
    for volume in stages.all:
        volume.mount(target)
        volume.verify(target)
        volume.unmount(target)
    movers.settled(*stages.all)


def test_resized_in_each_stage(movers):
    _, source, target = movers.flockers
    stages = Stages(movers, source, target)
    for number, volume in enumerate(stages.all):
        assert volume.control("PATCH", "", {"size": (600 + number) * MIB})[1]["size"] == (600 + number) * MIB
    stages.let_go()
    stages.arrived()
    for number, volume in enumerate(stages.all):
        record = json.loads(target.host.path(f"{POOL}/volumes/{volume.id}/volume.json").read_text())
        assert record["size"] == volume.shown()["size"] == (600 + number) * MIB
        limits = target.host.run(["btrfs", "qgroup", "show", "-r", "--raw", POOL]).stdout
        assert str((600 + number) * MIB) in limits.split(), limits


# ---- API v1


def v1(movers, method, path, body=None, expected=(200, 201)):
    status, answer = movers.control.control(method, f"/v1/{path}", body)
    assert status in expected, (status, answer)
    return answer


def test_held_by_a_lease(movers):
    """Moved and deleted while a lease holds it: it stays, a user can end and begin anew, and after the release it moves, or goes."""
    _, source, target = movers.flockers
    moved, deleted = movers.volume(source), movers.volume(source)
    for volume in (moved, deleted):
        v1(movers, "POST", "configuration/leases", {"dataset_id": volume.id, "node_uuid": movers.id(source), "expires": None})
    v1(movers, "POST", f"configuration/datasets/{moved.id}", {"primary": movers.id(target)})
    v1(movers, "DELETE", f"configuration/datasets/{deleted.id}")
    for volume in (moved, deleted):
        volume.step(source, "Unmount", ID="user")
    time.sleep(2)  # for so long it stays
    assert moved.owner() is source and moved.is_mounted(source) and deleted.is_mounted(source)
    moved.mount(source)
    moved.verify(source)
    moved.write(source, 1000)
    moved.unmount(source)
    for volume in (moved, deleted):
        v1(movers, "DELETE", f"configuration/leases/{volume.id}")
    moved.wait_owner(target, 15)  # at once: before the copy would be brought up to date again, which is done each 30 s
    movers.wait("it to be mounted there", lambda: moved.is_mounted(target))
    moved.verify(target)
    movers.wait("the other one to be unmounted", lambda: not deleted.is_mounted(source))
    movers.settled(moved)


def test_moved_and_deleted_by_v1(movers):
    _, source, target = movers.flockers
    volume = movers.volume(source)
    v1(movers, "POST", f"configuration/datasets/{volume.id}", {"primary": movers.id(target)})
    v1(movers, "DELETE", f"configuration/datasets/{volume.id}")
    volume.step(source, "Unmount", ID="user")
    movers.settled()
    states = [volume["state"] for volume in movers.control.control("GET", "/v2/volumes?all=1")[1]]
    assert states == ["trashed"]
    v1(movers, "POST", f"configuration/datasets/{volume.id}", {"primary": movers.id(source)}, (405,))
    assert movers.control.control("POST", f"/v2/volumes/{volume.id}/restore", {})[0] == 200
    volume.mount(source)
    volume.verify(source)
    volume.unmount(source)


# ---- agents that lie


@pytest.fixture
def liar(movers):
    """A node of which the test is the agent, and a volume of another node that is on its way there."""
    one = movers.control.host
    with Agent(one) as agent:
        yield agent
    one.flocker("node", "rm", agent.node, "--force", check=False)


def ask_to_come(movers, agent):
    """A free volume that is sealed to move to that agent, and the agent's order."""
    volume = movers.volume(movers.flockers[0])
    volume.unmount(movers.flockers[0])
    volume.control("POST", "/move", {"node": agent.node})
    agent.report(stage_of_want(agent, volume, "warm"), present=False, copy={"warm": True})
    return volume, stage_of_want(agent, volume, "seal")


def stage_of_want(agent, volume, stage):
    return next(want for want in iter(agent.want, None) if want["id"] == volume.id and want["move"]["stage"] == stage)


def digest(character):
    return character * 64


ABSURD = [{"snapshot": {"number": 196608, "final": True, "digest": digest("0")}}, {"snapshot": {"number": 196608, "final": True}},
          {"snapshot": {"number": -1, "final": True, "digest": digest("0")}}, {"snapshot": {"number": 2 ** 63 - 1, "final": True, "digest": digest("f")}},
          {"snapshot": {"number": 1.5}}, {"snapshot": {"number": "1", "digest": digest("z")}}, {"snapshot": {"number": 1, "digest": "00"}},
          {"snapshot": []}, {"snapshot": 5}, {"bytes": -5, "total": 2 ** 63 - 1, "rate": -1}, {"bytes": 2 ** 63 - 1, "total": 1, "rate": 0},
          {"bytes": "many", "total": None, "rate": []}, {"warm": 5, "bytes": 1e300}]


def test_target_that_lies_about_its_copy(movers, liar):
    """Its word alone moves nothing: the switch takes the digest that the owner names."""
    owner = movers.flockers[0]
    volume, want = ask_to_come(movers, liar)
    for copy in ABSURD:
        liar.report(want, present=False, copy=copy)
        assert owner.host.flocker("volume", "ls").returncode == 0
    for said in ({"epoch": 2 ** 62, "revision": 2 ** 62}, {"epoch": -1, "revision": -1}, {"epoch": want["epoch"] + 1}):
        liar.report(want, present=True, **said)
    liar.ask(op="find", id=volume.id)  # all that was before it has been read
    assert volume.owner() is owner and volume.stage() == "seal"
    volume.cancel()
    volume.mount(owner)
    volume.verify(owner)
    volume.unmount(owner)


def test_owner_of_nothing(movers, liar):
    """A node says that it has another node's volume: that changes nothing, and it gets no say."""
    owner = movers.flockers[0]
    volume = movers.volume(owner)
    shown = volume.shown()
    for changes in ({}, {"mounted": True, "path": "/flocker/x"}, {"epoch": 2 ** 62}, {"present": False}, {"error": {"code": "io", "message": "x"}},
                    {"snapshot": {"number": 5, "final": True, "digest": digest("0")}}):
        liar.report({"id": volume.id, "epoch": shown["epoch"], "revision": 2 ** 40}, **changes)
    for op in ("remove", "discard"):
        reply = liar.ask(op=op, id=volume.id)
        assert "error" in reply, reply
    assert volume.shown() == shown
    volume.verify(owner)
    volume.unmount(owner)


def test_target_learns_where_the_source_is_when_that_connects(movers, liar):
    """After a start of control the target may be there before the source."""
    one, source, _ = movers.flockers
    volume = movers.volume(source)
    volume.move(one)
    volume.wait_stage("seal")
    movers.network.cut(source.host)
    one.kill("control")
    volume.step(source, "Unmount", ID="user")
    one.up()
    movers.wait("control to know nothing of the source", lambda: not movers.is_up(source))
    with Agent(one.host, liar.node) as again:
        volume.control("POST", "/move", {"node": liar.node})
        while (message := again.hear())["volume"]["id"] != volume.id:
            pass
        assert "peer" not in message
        movers.restore_links()
        again.socket.settimeout(30)
        while "peer" not in message:
            message = again.hear()
        assert message["peer"]["node"] == movers.id(source) and message["peer"]["port"] == 4525
    volume.cancel()


def test_copy_of_a_move_that_was_called_off_meanwhile(movers, liar):
    """A node that comes back with a copy is told that it is of no use, before the end of all orders."""
    volume, _ = ask_to_come(movers, liar)
    liar.socket.close()
    liar.lines.close()
    volume.cancel()
    with Agent(movers.control.host, liar.node, hello=False) as again:
        again.say(**again.hello())
        assert again.hear()["type"] == "welcome"
        again.report({"id": volume.id, "epoch": 0, "revision": 0}, present=False, copy={"bytes": 5})
        again.say(type="inventory-end")
        want = again.want()
        assert want["id"] == volume.id and want["target"] == want["owner"] and "move" not in want


# ---- port 4525

FRAME_AGAIN = b"\x03" + bytes(19)


def peer_socket(movers, host, context=None, timeout=10):
    """A connection to the port for agents of the second host, made from a host."""
    with network_of(host):
        plain = socket.socket()
    plain.settimeout(timeout)
    plain.connect((movers.network.address(movers.hosts[1]), 4525))
    if not context:
        return plain
    context.check_hostname = False
    return context.wrap_socket(plain)


def said(stream, line):
    """What is answered; empty if the connection ends, which may be with an alert."""
    try:
        stream.sendall(line)
        return b"".join(iter(lambda: stream.recv(65536), b"")).strip()
    except (ssl.SSLError, ConnectionError):
        return b""


def foreign(movers, folder):
    """A certificate that says what the target's does, of another authority."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    f"/CN=node-{movers.id(movers.flockers[2])}", "-keyout", folder / "user.key", "-out", folder / "user.crt"], check=True,
                   capture_output=True)
    return folder


def request(wanted, **changes):
    return json.dumps({"type": "fetch", "protocol": 1, "volume": wanted.id, "epoch": 1, **changes}).encode() + b"\n"


def test_strangers_at_port_4525(movers, tmp_path):
    """Only the target gets a volume; and whatever comes there, the next real move goes through."""
    one, source, target = movers.flockers
    volume = movers.volume(source)
    volume.move(target)
    volume.wait_stage("seal")
    right = tls_context(target.host, "node")
    for host, certificate, expected in ((one.host, "node", b"does not move from here"), (source.host, "node", b"does not move from here"),
                                        (one.host, "user", b"is not the certificate of a node"), (target.host, None, b"")):
        with peer_socket(movers, host, tls_context(host, certificate)) as stream:
            assert expected in said(stream, request(volume)), certificate
    stranger = tls_context(target.host, foreign(movers, tmp_path))
    with peer_socket(movers, target.host, stranger) as stream:
        assert said(stream, request(volume)) == b""
    for changes in ({"epoch": 2}, {"epoch": 0}, {"epoch": -1}, {"protocol": 2}, {"volume": volume.id[:-1]}, {"base": {"seq": 2 ** 63 - 1, "digest": "0"}},
                    {"part": {"seq": 1, "offset": 5, "digest": digest("0")}}, {"part": {"seq": -1, "offset": 1 << 62, "digest": digest("0")}}):
        with peer_socket(movers, target.host, right) as stream:
            answer = said(stream, request(volume, **changes))
            assert b'"error"' in answer or answer.endswith(FRAME_AGAIN), (changes, answer)
    for line in (b"\n", b"{}\n", b"null\n", b"x" * 4095 + b"\n", b"x" * 100000, b"[" * 4000 + b"\n", b"\0" * 100 + b"\n", b"\xff\n"):
        with peer_socket(movers, target.host, right) as stream:
            answer = said(stream, line)
            assert answer == b"" or b'"error"' in answer, answer
    for line in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70000, os.urandom(1000)):
        with peer_socket(movers, target.host) as stream:
            assert b"volume" not in said(stream, line)
    volume.unmount(source)
    volume.arrive(target)


def moved_in(movers, volume, source, target, strangers):
    """How long a move takes, in seconds, while there are these connections that say nothing."""
    volume.unmount(source)
    begin = time.monotonic()
    volume.move(target)
    volume.wait_owner(target)
    took = time.monotonic() - begin
    for stream in strangers:
        stream.close()
    movers.settled(volume)
    volume.mount(target)
    volume.verify(target)
    volume.unmount(target)
    return took


def test_silent_strangers_at_port_4525(movers):
    """More connections than an agent serves at once: they give way to a move."""
    _, source, target = movers.flockers
    volume = movers.volume(source)
    silent = [peer_socket(movers, target.host, timeout=60) for _ in range(70)]
    assert moved_in(movers, volume, source, target, silent) < 9, "they have 10 s each, if nobody else comes"


def test_many_strangers_of_one_host_at_port_4525(movers):
    """Others are served as if they were not there."""
    one, source, target = movers.flockers
    volume = movers.volume(source)
    silent = [peer_socket(movers, one.host, timeout=60) for _ in range(400)]
    assert moved_in(movers, volume, source, target, silent) < 5, "400 of them took more than 10 s when each had its turn"


def first_line(stream):
    line = b""
    while not line.endswith(b"\n"):
        more = stream.recv(1)
        if not more:
            break
        line += more.lstrip(b"\n") if not line else more
    return line


def test_one_node_at_port_4525(movers):
    """A target asks for its volume again and again: it gets some of the places, and others are served from the rest."""
    one, source, target = movers.flockers
    greedy, other = movers.volume(source), movers.volume(source)
    greedy.move(target)
    greedy.wait_stage("seal")
    right = tls_context(target.host, "node")
    streams, answers = [], []
    for _ in range(40):
        streams.append(peer_socket(movers, target.host, right))
        streams[-1].sendall(request(greedy))
        answers.append(first_line(streams[-1]))
        if b"error" in answers[-1]:
            streams.pop().close()
    granted = [answer for answer in answers if b'"seq"' in answer]
    refused = [answer for answer in answers if b"the most that one node can have" in answer]
    assert 12 <= len(granted) <= 20 and len(granted) + len(refused) == 40, answers
    other.unmount(source)
    other.move(one)
    other.wait_owner(one, 9)
    for stream in streams:
        stream.close()
    greedy.unmount(source)
    greedy.wait_owner(target)
    movers.settled(greedy, other)
    for volume, where in ((greedy, target), (other, one)):
        volume.mount(where)
        volume.verify(where)
        volume.unmount(where)


# ---- random moments


class Storm:
    """Volumes are moved, mounted, written and taken back by whoever, while daemons, workers and links fail."""

    def __init__(self, movers, rng):
        self.movers, self.rng, self.failed = movers, rng, {}
        self.volumes = [movers.volume(rng.choice(movers.flockers), 1) for _ in range(4)]
        for volume in self.volumes:
            volume.unmount(volume.owner())
        self.moves = 0

    def use(self, volume, seed, end):
        """One user: mounts it anywhere, finds all that was written, writes more, unmounts, sometimes with a move by control meanwhile."""
        rng = random.Random(seed)
        while time.monotonic() < end:
            here = rng.choice(self.movers.flockers)
            volume.mount(here)
            volume.verify(here)
            volume.write(here, rng.randrange(1, 300000))
            if rng.random() < 0.4:
                volume.move(rng.choice(self.movers.flockers), check=False, force=False)
                if rng.random() < 0.3:
                    volume.control("DELETE", "/move", check=False)
            volume.unmount(here)
            self.moves += 1

    def fail(self):
        flocker = self.rng.choice(self.movers.flockers)
        kind = self.rng.choice(["worker", "worker", "agent", "control", "cut", "in", "out"])
        self.failed[kind] = self.failed.get(kind, 0) + 1
        if kind in ("worker", "agent", "control"):
            (self.movers.control if kind == "control" else flocker).kill(kind)
        else:
            break_link(self.movers.network, flocker.host, kind)
            time.sleep(self.rng.uniform(0.1, 1))
            self.movers.restore_links()


def test_storm(movers):
    print(f"FLOCKER_FAULT_SEED={SEED}")
    rng = random.Random(SEED)
    storm = Storm(movers, rng)
    end = time.monotonic() + STORM_S
    with Watch(movers, storm.volumes[0]), concurrent.futures.ThreadPoolExecutor(len(storm.volumes)) as pool:
        users = [pool.submit(storm.use, volume, rng.random(), end) for volume in storm.volumes]
        while time.monotonic() < end and not any(user.done() for user in users):
            storm.fail()
            time.sleep(rng.uniform(0.05, 0.6))
        for user in users:
            user.result()
        movers.settled(*storm.volumes)
    for volume in storm.volumes:
        volume.mount(volume.owner())
        volume.verify(volume.owner())
        volume.unmount(volume.owner())
    print(f"rounds: {storm.moves}, faults: {storm.failed}")
    assert storm.moves > len(storm.volumes)
