"""How fast volumes move between two hosts, what that costs, and how long nobody can write."""
import json
import os
import subprocess
import time

from cluster import make_cluster, node_of
from conftest import HostMaker
from figures import Figure, median, spread
from hosts import progress
from paths import wait_for
from replay import SOCKET

EAGER_RUNS = 5
EAGER_RATIO_AIM = 1.11  # at least 90 % of the reference's rate
PAUSE_RUNS = 3
PAUSE_MS_AIM = 1000
POOL = "/var/lib/flocker/pool"
WRITER = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
block = os.urandom(65536)
n = 0
while True:
    os.pwrite(file, block, n % 256 * 65536)
    os.fdatasync(file)
    n += 1
    time.sleep(0.005)
"""


def measure(folder, binary, add):
    maker = HostMaker(folder)
    try:
        one, two = make_cluster(maker, binary, 2)
        for figure in eager(one, two):
            add(figure)
        for gib in (1, 4):
            add(pause(one, two, gib))
    finally:
        maker.close()


# ---- the transfer of an unused volume

def eager(one, two):
    """1 GiB of data that can't be compressed, moved; against `btrfs send | btrfs receive` by pipe, taken in turn."""
    moved, piped, moved_cpu, piped_cpu = [], [], [], []
    reference_pool(one)
    for number in range(EAGER_RUNS):
        progress(f"eager {number + 1}")
        name = f"eager{number}"
        fill(one, name, 1)
        os.sync()  # what one leaves to be written back is not the other's
        seconds, cpu = send_receive(one, volume(one, name)["id"])
        piped.append(seconds)
        piped_cpu.append(cpu)
        os.sync()
        before, begin = children_cpu(one) + children_cpu(two), time.monotonic()
        move(one, name, node_of(one, two)["id"])
        moved.append(time.monotonic() - begin)
        settled(one, name)
        moved_cpu.append(children_cpu(one) + children_cpu(two) - before)
        one.flocker("volume", "rm", "--purge", name, timeout=120)
    yield Figure("move.eager", median(moved), "s", median(piped), EAGER_RATIO_AIM, True, f"1 GiB; {spread(moved)}; reference {spread(piped)}")
    yield Figure("move.cpu_s_per_gib", median(moved_cpu), "s", median(piped_cpu), note=spread(moved_cpu))


def reference_pool(host):
    """A second btrfs on the same host, for the reference."""
    host.run(["sh", "-c", "truncate -s 8G /var/lib/flocker/reference.img && mkfs.btrfs -q /var/lib/flocker/reference.img && "
                          "mkdir -p /mnt/reference && mount -o loop,noatime /var/lib/flocker/reference.img /mnt/reference"])


def send_receive(host, volume_id):
    """Seconds, and seconds of CPU, until the copy is on disk."""
    source = f"{POOL}/volumes/{volume_id}/data"
    host.run(["btrfs", "-q", "subvolume", "snapshot", "-r", source, f"{POOL}/reference"])
    script = f"btrfs -q send {POOL}/reference | btrfs -q receive /mnt/reference && btrfs filesystem sync /mnt/reference && times"
    begin = time.monotonic()
    done = host.run(["bash", "-c", script], timeout=300)
    seconds = time.monotonic() - begin
    host.run(["btrfs", "-q", "subvolume", "delete", "/mnt/reference/reference", f"{POOL}/reference"])
    return seconds, sum(minutes(word) for word in done.stdout.split()[2:4])


def minutes(text):
    whole, _, rest = text.partition("m")
    return int(whole) * 60 + float(rest.rstrip("s"))


def children_cpu(host):
    """Seconds of CPU that ended workers of the agent have used."""
    pid = int(host.path("/run/flocker/agent.pid").read_text())
    fields = host.path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


# ---- the pause of a volume that is written to

def pause(one, two, gib):
    samples, name = [], f"pause{gib}"
    fill(one, name, gib)
    here, there = one, two
    for number in range(PAUSE_RUNS):
        progress(f"pause {gib} GiB {number + 1}")
        samples.append(pause_once(one, here, there, name))
        here, there = there, here
    one.flocker("volume", "rm", "--purge", name, timeout=120)
    return Figure(f"move.pause_ms.{gib}GiB", median(samples), "ms", None, PAUSE_MS_AIM, note=spread(samples))


def pause_once(control, here, there, name):
    """From the last write at one host to the first possible one at the other, by the calls that engines make."""
    path = plugin(here, "Mount", name)["Mountpoint"]
    writer = here.popen(["/usr/bin/python3", "-c", WRITER, f"{path}/written"], stdout=subprocess.DEVNULL)
    control.flocker("volume", "move", name, node_of(control, there)["id"])
    wait_for("the copy to catch up", lambda: volume(control, name).get("move", {}).get("stage") == "seal", 300, 0.1)
    time.sleep(1)
    writer.kill()
    writer.wait()
    begin = time.monotonic()
    plugin(here, "Unmount", name)
    wait_for("the volume at the other host", lambda: call(there, "Mount", name)[0] == 200, 60, 0.005)
    seconds = time.monotonic() - begin
    plugin(there, "Unmount", name)
    settled(control, name)
    return seconds * 1000


# ---- what both need

def call(host, verb, name):
    status, content = host.ask(SOCKET, "POST", f"/VolumeDriver.{verb}", json.dumps({"Name": name, "ID": "bench"}).encode())
    return status, json.loads(content)


def plugin(host, verb, name):
    status, reply = call(host, verb, name)
    assert status == 200, reply
    return reply


def volume(control, name):
    return control.flocker_json("volume", "inspect", name)[0]


def fill(host, name, gib):
    """A volume with that much data that can't be compressed, on disk and not in use."""
    plugin(host, "Create", name)
    path = plugin(host, "Mount", name)["Mountpoint"]
    host.run(["sh", "-c", f"for i in $(seq {gib * 4}); do head -c 268435456 /dev/urandom >{path}/$i; done; sync -f {path}"], timeout=600)
    plugin(host, "Unmount", name)
    wait_for("the unmount", lambda: not volume(host, name)["mounted"], 30)


def move(control, name, node):
    control.flocker("volume", "move", name, node, "--wait", timeout=600)


def settled(control, name):
    wait_for(f"the move of {name} to end", lambda: "move" not in volume(control, name), 120, 0.1)


