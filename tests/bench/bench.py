"""Runs groups of measurements; prints a table and keeps the figures, one JSON object per line. See tools/bench."""
import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import group_control  # noqa: E402  pylint: disable=wrong-import-position
import group_docker  # noqa: E402  pylint: disable=wrong-import-position
import group_idle  # noqa: E402  pylint: disable=wrong-import-position
import group_move  # noqa: E402  pylint: disable=wrong-import-position
import group_rest  # noqa: E402  pylint: disable=wrong-import-position

GROUPS = {"control": group_control.measure, "docker": group_docker.measure, "idle": group_idle.measure, "move": group_move.measure,
          "rest": group_rest.measure}
HEAD = ("figure", "value", "unit", "reference", "ratio", "aim", "", "note")


def main():
    options = arguments()
    results, failed = [], []
    for group in options.groups or GROUPS:
        print(f"{group}: ", end="", file=sys.stderr, flush=True)
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="flocker-bench-") as folder:
            try:
                GROUPS[group](Path(folder), options.binary, results.append)
            except Exception as error:  # pylint: disable=broad-except
                failed.append(f"{group}: {error}")
        print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
    print_table(results)
    busy = os.getloadavg()[0] / os.cpu_count()
    if busy > 1:
        print(f"The machine is busy with other work (load {busy:.1f} per processor): what is not a ratio is too high.")
    save(options.results, results)
    if failed:
        sys.exit("\n".join(["bench: could not measure all:", *failed]))


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measures Flocker.")
    parser.add_argument("--binary", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"any of: {', '.join(GROUPS)}; none: all")
    options = parser.parse_args()
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    return options


def print_table(results):
    rows = [HEAD] + [figure.row() for figure in results]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    for row in rows:
        cells = [cell.rjust(width) if i in (1, 3, 4) else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def save(path, results):
    """Writes the figures; those of other groups, which did not run, are kept."""
    now = {figure.name: figure.as_json() for figure in results}
    kept = []
    if path.exists():
        kept = [row for row in map(json.loads, path.read_text().splitlines()) if row["name"] not in now]
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *now.values()]))
    os.replace(fresh, path)


if __name__ == "__main__":
    main()
