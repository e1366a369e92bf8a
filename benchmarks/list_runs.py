"""Measure `gptexp runs` on thousands of runs, which are copies of the files of two real ones.

    python benchmarks/list_runs.py --runs 2000 [--keep FOLDER]

Trains a small GPT and a bigram for a few steps, and copies their folders with other seeds, settings and results: half
of them as jobs of sweeps of 50, one in 40 without a result, one in 200 damaged. Then it starts `gptexp runs` as a user
does, cold (no index) and warm, and prints the median seconds and the median of the processor's seconds, which other
work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record
import yaml

TINY = [
    *("data.val_bytes=2048", "data.global_batch_size=4", "model.block_size=32", "trainer=cpu", "logger=csv"),
    *("trainer.max_steps=60", "trainer.val_every_steps=20", "trainer.log_every_steps=10", "callbacks.samples.tokens=8"),
]
KINDS = (["model.n_layer=1", "model.n_head=2", "model.n_embd=16"], ["model=bigram"])
JOBS, TURNS = 50, 3


def main() -> None:
    """Print the table and write it as JSON."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", type=int, default=2000, help="number of runs (default: %(default)s)")
    p.add_argument("--keep", type=Path, help="make the runs in this folder, or take those that it has, and keep them")
    record.add_option(p, "list_runs")
    options = p.parse_args()
    place = options.keep or Path(tempfile.mkdtemp(prefix="gptexp-list-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        if not (place / "logs").exists():
            generate(place, options.runs)
        figures = measure(place)
    finally:
        if options.keep is None:
            shutil.rmtree(place)
    for name, (seconds, processor) in figures.items():
        print(f"{name:<50} {seconds:6.2f} s, {processor:6.2f} s of the processor")
    record.save(options.json, {"runs": options.runs, "seconds": figures})


def generate(place: Path, runs: int) -> None:
    """Train the two runs, and copy them into logs/."""
    templates = []
    for number, kind in enumerate(KINDS):
        folder = place / f"template-{number}"
        subprocess.run(
            [sys.executable, "-m", "gptexp.train", *TINY, *kind, f"hydra.run.dir={folder}"],
            cwd=place, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        templates.append(folder)
    random.seed(1)
    for number in range(runs):
        group, job = divmod(number, JOBS)
        alone, of_sweep = f"runs/mini-{group}/2026-11-{number:05d}", f"sweeps/sweep-{group}/seed={job}"
        copy(templates[number % len(templates)], place / "logs" / (of_sweep if group % 2 else alone), number)
    for sweep in place.glob("logs/sweeps/*"):
        names = sorted(path.name for path in sweep.iterdir())
        jobs = [{"name": name, "config": yaml.safe_load((sweep / name / "config.yaml").read_text())} for name in names]
        (sweep / "sweep.yaml").write_text(yaml.dump({"format": 1, "search": None, "jobs": jobs}))
    time.sleep(2.5)  # files that changed in the last two seconds are not put into the index


def copy(template: Path, folder: Path, number: int) -> None:
    """Copy a run with another seed, learning rate and result."""
    shutil.copytree(template, folder)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["seed"], settings["optimizer"]["lr"] = number, round(10 ** random.uniform(-4, -2), 6)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    result = json.loads((folder / "result.json").read_text())
    for part in ("metrics", "best"):
        result[part]["val/bpb"] *= random.uniform(0.8, 1.2)
    (folder / "result.json").write_text(json.dumps(result, indent=2))
    if number % 40 == 0:
        (folder / "result.json").unlink()
    if number % 200 == 1:
        (folder / "result.json").write_text("{")


def measure(place: Path) -> dict[str, tuple[float, ...]]:
    """Return the median seconds, and those of the processor, of each command."""
    index = place / "logs/.runs-index.json"
    commands = {
        "gptexp runs, without an index": [],
        "gptexp runs": [],
        "gptexp runs --where 'n_layer<2 and val/bpb<5'": ["--where", "n_layer<2 and val/bpb<5"],
        "gptexp runs --jobs --sort val/bpb": ["--jobs", "--sort", "val/bpb"],
        "gptexp runs --json": ["--json"],
        "gptexp runs watch, one look": ["watch"],
        "gptexp runs --help": ["--help"],
    }
    figures = {}
    for name, arguments in commands.items():
        turns = []
        for _ in range(1 if "without" in name else TURNS):
            if "without" in name:
                index.unlink(missing_ok=True)
            turns.append(timed([sys.executable, "-m", "gptexp", "runs", *arguments], place))
        figures[name] = tuple(statistics.median(seconds) for seconds in zip(*turns, strict=True))
    return figures


def timed(command: list[str], place: Path) -> tuple[float, float]:
    """Return the seconds and the seconds of the processor that a command takes."""
    began, used = time.perf_counter(), os.times()
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    now = os.times()
    spent = now.children_user + now.children_system - used.children_user - used.children_system
    return time.perf_counter() - began, spent


if __name__ == "__main__":
    main()
