"""What a user of Docker waits for: commands beside the same with Docker's own `local` driver, and plugin calls with few and many volumes."""
from figures import Figure, median, p99, spread
from hosts import bench_hosts, progress

MANY = 5000
FEW = 8  # mounts on the host with few volumes go round these: each stays mounted for a moment after its Unmount
FILL_LIMIT_S = 100
CREATES, MOUNTS = 300, 200
CREATE_AIM_MS, MOUNT_AIM_MS = 50, 20


def measure(folder, binary, add):
    with bench_hosts(folder, binary, "few", "many") as (few, many):
        for host in (few, many):
            host.up()
        host_commands(few, add)
        took = many.call("fill", count=MANY, prefix="many-", limit_s=FILL_LIMIT_S)
        progress(f"({MANY} volumes in {took:.0f} s)")
        mounts(few, many, add)
        creates(few, many, add)


def host_commands(host, add):
    host.start_docker()
    host.load_image("busybox")
    create = [["docker", "volume", "create", "--driver", driver, f"create-{driver}-{{i}}"] for driver in ("flocker", "local")]
    figure(add, "docker.create", host.call("alternate", commands=create, rounds=40, limit_s=30), 1.3, "median; docker volume create")
    run = [["docker", "run", "--rm", "-v", f"run-{driver}:/data", f"--volume-driver={driver}", "busybox", "true"]
           for driver in ("flocker", "local")]
    figure(add, "docker.run", host.call("alternate", commands=run, rounds=20, limit_s=45), 1.1, "median; docker run --rm -v, volume is there")
    host.stop_docker()


def figure(add, name, times, aim, note):
    flocker, local = times
    add(Figure(name, median(flocker), "ms", median(local), aim, True, f"{note}; n={len(flocker)}, local p99 {p99(local):.0f}, ours {p99(flocker):.0f}"))


def mounts(few, many, add):
    few.call("fill", count=FEW, prefix="few-", limit_s=10)
    times = interleaved(MOUNTS, lambda i: few.call("mount", name=f"few-{i % FEW}"),
                        lambda i: many.call("mount", name=f"many-{i * 7919 % MANY}"))
    pair(add, "plugin.mount.p99_ms", times, MOUNT_AIM_MS)


def creates(few, many, add):
    times = interleaved(CREATES, lambda i: few.call("create", name=f"more-{i}"), lambda i: many.call("create", name=f"more-{i}"))
    pair(add, "plugin.create.p99_ms", times, CREATE_AIM_MS)


def interleaved(rounds, *functions):
    """The results of each function, called in turn: A B, B A, ..."""
    results = [[] for _ in functions]
    for i in range(rounds):
        for which in range(len(functions)) if i % 2 else reversed(range(len(functions))):
            results[which].append(functions[which](i))
    return results


def pair(add, name, times, aim):
    few, many = times
    add(Figure(f"{name}.1", p99(few), "ms", aim=aim, note=spread(few)))
    add(Figure(f"{name}.{MANY}", p99(many), "ms", p99(few), aim, note=f"{spread(many)}; reference: with few volumes"))
