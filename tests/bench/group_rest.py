"""The REST API with many datasets. The reference is the same bytes over the same kind of TLS from a server that does nothing else: what is
left is work of ours."""
import uuid

from figures import Figure, median, spread
from hosts import bench_hosts, progress

DATASETS = 10000
FILL_LIMIT_S = 60
ROUNDS = 30


def measure(folder, binary, add):
    with bench_hosts(folder, binary, "rest") as (host,):
        host.up("--backend=memory")
        took = host.call("fill_datasets", count=DATASETS, primary=str(uuid.UUID(int=7, version=4)), limit_s=FILL_LIMIT_S)
        progress(f"({DATASETS} datasets in {took:.0f} s)")
        times = host.call("compare", rounds=ROUNDS)
        add(Figure(f"rest.list_ms.{DATASETS}", median(times["ours"]), "ms", median(times["theirs"]),
                   note=f"{times['bytes'] / 1e6:.1f} MB; {spread(times['ours'])}; reference: static, over the same TLS"))
