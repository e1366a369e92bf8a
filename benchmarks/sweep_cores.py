"""Run eight small jobs: one process per core (`hydra/launcher=cores`), or one job at a time on all cores or on one.

    python benchmarks/sweep_cores.py [--steps 300] [--repeats 3]

All sweeps run with `python -m gptexp.train -m`. They take turns several times, and the times include the imports.
Prints the seconds of each sweep and the medians of the ratios. The ratio to one core is what the launcher gains; the
ratio to all cores is lower by what the threads of a single job gain.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

JOBS = "seed=1,2,3,4,5,6,7,8"
SETTINGS = ["data.val_bytes=8192", "callbacks.samples.tokens=8", "model.block_size=64"]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of each job (default: 300)")
    parser.add_argument("--repeats", type=int, default=3, help="number of measurements of each sweep (default: 3)")
    options = parser.parse_args()
    table = Table("repeat", "sequential, s", "on one core, s", "cores, s", "ratio", "to one core")
    ratios, to_one = [], []
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as place:
        _sweep(Path(place), "warm", [], 2)  # fill the token cache and the file cache
        for repeat in range(options.repeats):
            in_order = _sweep(Path(place), f"order{repeat}", [], options.steps)
            one = _sweep(Path(place), f"one{repeat}", [], options.steps, {"OMP_NUM_THREADS": "1"})
            cores = _sweep(Path(place), f"cores{repeat}", ["hydra/launcher=cores"], options.steps)
            ratios.append(in_order / cores)
            to_one.append(one / cores)
            cells = [f"{in_order:.1f}", f"{one:.1f}", f"{cores:.1f}", f"{ratios[-1]:.2f}", f"{to_one[-1]:.2f}"]
            table.add_row(str(repeat + 1), *cells)
    console = Console()
    console.print(table)
    gains = f"{statistics.median(ratios):.2f} times as fast, {statistics.median(to_one):.2f} times as one core"
    console.print(f"8 jobs of {options.steps} steps: cores is {gains} (medians)")


def _sweep(place: Path, name: str, launcher: list[str], steps: int, env: dict[str, str] | None = None) -> float:
    """Return the seconds of one sweep, started from the command line."""
    command = [sys.executable, "-m", "gptexp.train", "-m", JOBS, f"sweep.name={name}", f"trainer.max_steps={steps}"]
    command += [*SETTINGS, *launcher]
    begin = time.perf_counter()
    done = subprocess.run(
        command, cwd=place, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
