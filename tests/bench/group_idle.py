"""What Flocker costs a host on which nothing happens, and how quickly it is there after a start: 1000 volumes."""
import shutil
import subprocess
import time

from figures import Figure, median, spread
from hosts import bench_hosts, progress

VOLUMES = 1000
FILL_LIMIT_S = 60
WARM, COLD = 15, 7
SETTLE_S, IDLE_S = 3, 20
MEMORY_AIM_MIB, START_AIM_MS = 12, 200
MIB = 1 << 20


def measure(folder, binary, add):
    binary_size(folder, binary, add)
    with bench_hosts(folder, binary, "idle") as (host,):
        host.up()
        took = host.call("fill", count=VOLUMES, prefix="volume-", limit_s=FILL_LIMIT_S)
        progress(f"({VOLUMES} volumes in {took:.0f} s)")
        busy = host.call("idle", seconds=0)
        starts(host, "start.cold_ms", False, COLD, None, add, "as after a boot: the pool is to be mounted")
        starts(host, "start.ready_ms", True, WARM, START_AIM_MS, add, "restart: the pool is mounted")
        time.sleep(SETTLE_S)
        quiet = host.call("idle", seconds=IDLE_S)
        for role in ("agent", "control"):
            now = quiet[role]
            add(Figure(f"idle.{role}_rss_mib", now["rss"], "MiB", aim=MEMORY_AIM_MIB,
                       note=f"Pss {now['pss']:.1f}, private {now['private']:.1f}; Rss after making them {busy[role]['rss']:.1f}"))
        counts = {role: now["switches"] for role, now in quiet.items()}
        add(Figure("idle.wakeups_per_s", sum(counts.values()) / IDLE_S, "1/s", aim=0.1,
                   note=", ".join(f"{role}: {n}" for role, n in counts.items()) + f" in {IDLE_S} s"))


def starts(host, name, keep_mounted, rounds, aim, add, note):
    times = []
    for _ in range(rounds):
        host.call("stop", binary=str(host.binary), keep_mounted=keep_mounted)
        times.append(host.call("start", binary=str(host.binary), known=f"volume-{VOLUMES // 2}"))
    add(Figure(name, median(times), "ms", aim=aim, note=f"{note}; {spread(times)}"))


def binary_size(folder, binary, add):
    copy = folder / "stripped"
    shutil.copy(binary, copy)
    subprocess.run(["strip", copy], check=True)
    add(Figure("binary.mib", copy.stat().st_size / MIB, "MiB", aim=5, note="stripped"))
