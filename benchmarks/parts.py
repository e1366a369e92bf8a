"""Measure `gptexp prepare` in parts: one worker, two workers, and one process without parts, which uses all cores.

    python benchmarks/parts.py [--megabytes 200] [--parts 8] [--workers 1,2] [--turns 3]

A worker is a process of `hydra/launcher=cores` and uses one core. The programs take turns. Times are those of whole
commands: imports, reading, fingerprint, tokens by GPT-2's vocabulary, and the join. The text is that of prepare.py.
Every result is compared with that of one process, byte by byte. The load of the machine is printed, because other
programs on the same cores make the ratio meaningless.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import prepare
import record
from rich.console import Console
from rich.table import Table


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the text (default: 200)")
    parser.add_argument("--parts", type=int, default=8, help="number of parts (default: 8)")
    parser.add_argument("--workers", default="1,2", help="numbers of workers (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="number of measurements of each program (default: 3)")
    record.add_option(parser, "parts")
    options = parser.parse_args()
    workers = [int(number) for number in options.workers.split(",")]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as scratch:
        place = Path(scratch)
        size = prepare.collect(place / "text", options.megabytes * 1_000_000)
        for turn in range(options.turns):
            print(f"turn {turn + 1}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
            expected = measure("one process, all cores", [], place, seconds)
            for number in workers:
                launcher = [f"prepare.parts={options.parts}", "hydra/launcher=cores", f"hydra.launcher.n_jobs={number}"]
                found = measure(f"{number} worker{'s' * (number > 1)}", launcher, place, seconds)
                require_equal(found, expected)
                shutil.rmtree(found.parent)
            shutil.rmtree(expected.parent)
    first = seconds[f"{workers[0]} worker{'s' * (workers[0] > 1)}"]
    table = Table(f"{size / 1e6:,.0f} MB in {options.parts} parts", "seconds", "MB/s", "times as fast as the first")
    for name, found_seconds in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(first, found_seconds, strict=True))
        median = statistics.median(found_seconds)
        table.add_row(name, f"{median:.1f}", f"{size / 1e6 / median:.1f}", f"{ratio:.2f}")
    Console().print(table)
    record.save(options.json, {"bytes": size, "parts": options.parts, "seconds": seconds})


def measure(name: str, launcher: list[str], place: Path, seconds: dict[str, list[float]]) -> Path:
    """Run one command with a cache of its own; note its seconds and return the folder of the tokens."""
    cache = place / f"cache-{len(seconds)}-{sum(map(len, seconds.values()))}"
    cost = prepare.run([*prepare.OURS, f"paths.cache={cache}", *launcher], place)
    seconds.setdefault(name, []).append(cost.seconds)
    (manifest,) = cache.glob("*/manifest.json")
    return manifest.parent


def require_equal(found: Path, expected: Path) -> None:
    """End the program if the two folders differ."""
    names = sorted(path.name for path in expected.iterdir())
    _, different, missing = filecmp.cmpfiles(expected, found, names, shallow=False)
    if different or missing or names != sorted(path.name for path in found.iterdir()):
        sys.exit(f"{found} differs from {expected}: {different + missing}")


if __name__ == "__main__":
    main()
