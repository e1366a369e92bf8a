"""Measure for how long a checkpoint stops training: written before the next step, and written while training continues.

    python benchmarks/checkpoints.py [--steps 8] [--turns 3] [model=mini_gpt …]

Trains with a checkpoint after every second step, on the CPU, once with each value of callbacks.checkpoint.asynchronous
in every turn. Prints the seconds that a save takes from the training loop, those that its thread takes, those of the
whole run, and the size of the file. Further arguments are settings of the run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import record
from rich.console import Console
from rich.table import Table

SETTING = "callbacks.checkpoint.asynchronous"
MODEL = ["model.n_layer=6", "model.n_head=8", "model.n_embd=512", "model.block_size=128", "tokenizer=bpe_8k"]
RUN = ["trainer=cpu", "trainer.val_every_steps=1000000", "callbacks.checkpoint.every_steps=2"]
RUN += ["callbacks.samples.tokens=0", "data.val_bytes=2000", "data.global_batch_size=4", "trainer.compile=false"]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps (default: 8)")
    parser.add_argument("--turns", type=int, default=3, help="number of runs with each value (default: 3)")
    parser.add_argument("overrides", nargs="*", help="settings of the run")
    record.add_option(parser, "checkpoints")
    options = parser.parse_args()
    settings = [*MODEL, *RUN, *options.overrides, f"trainer.max_steps={options.steps}"]
    rows: dict[str, list[dict[str, float]]] = {"false": [], "true": []}
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as place:
        for turn in range(options.turns):
            print(f"turn {turn + 1}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
            for value, found in rows.items():
                found.append(measure(Path(place), f"{turn}-{value}", [*settings, f"{SETTING}={value}"]))
    table = Table(SETTING, "stall per save, s", "writing, s", "whole run, s", "MB")
    for value, found in rows.items():
        medians = [statistics.median(one[name] for one in found) for name in ("stall", "writing", "run", "megabytes")]
        table.add_row(value, f"{medians[0]:.3f}", f"{medians[1]:.3f}", f"{medians[2]:.1f}", f"{medians[3]:.0f}")
    Console().print(table)
    record.save(options.json, rows)


def measure(place: Path, name: str, settings: list[str]) -> dict[str, float]:
    """Train once; return the median seconds of a save and of a write, the seconds of the run, and the file's size."""
    from gptexp.compose.composition import compose
    from gptexp.runs import checkpoint
    from gptexp.training.callbacks.checkpoints import Checkpoints
    from gptexp.training.experiment import run_experiment

    stalls, writes = list[float](), list[float]()

    def timed(function: Any, seconds: list[float]) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                seconds.append(time.perf_counter() - begin)

        return call

    kept = Checkpoints._save, checkpoint.rotate
    Checkpoints._save, checkpoint.rotate = timed(kept[0], stalls), timed(kept[1], writes)  # type: ignore[method-assign]
    begin = time.perf_counter()
    try:
        run_experiment(compose([*settings, f"paths.cache={place / 'cache'}"]), place / name)
    finally:
        Checkpoints._save, checkpoint.rotate = kept  # type: ignore[method-assign]
    seconds = time.perf_counter() - begin
    size = (place / name / "checkpoints/last.ckpt").stat().st_size / 1e6
    return {
        "stall": statistics.median(stalls[:-1]),  # the last one follows the last step
        "writing": statistics.median(writes),
        "run": seconds,
        "megabytes": size,
    }


if __name__ == "__main__":
    main()
