"""Test hosts with something inside that measures, so that no figure holds the time to get into a host."""
import contextlib
import json
import subprocess
import sys
from pathlib import Path

from host import Host

INSIDE = Path(__file__).resolve().with_name("inside.py")


class BenchHost(Host):
    """A host with inside.py running in it. `binary` is the flocker that runs there."""

    def __init__(self, name, folder, binary):
        super().__init__(name, folder)
        self.binary = binary
        self.inside = self.popen(["/usr/bin/python3", "-B", INSIDE], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def up(self, *options):
        self.run([self.binary, "up", *options])

    def call(self, function, **arguments):
        """What inside.py's function returns."""
        self.inside.stdin.write(json.dumps([function, arguments]) + "\n")
        self.inside.stdin.flush()
        line = self.inside.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: inside.py has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer["result"]


@contextlib.contextmanager
def bench_hosts(folder, binary, *names):
    """Hosts of these names, each with Flocker's daemons not yet started; all are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(BenchHost(name, folder / name, binary)) for name in names]


def progress(text):
    print(text, end=" ", file=sys.stderr, flush=True)
