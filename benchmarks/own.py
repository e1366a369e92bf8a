"""Measure gptexp alone: training steps, overhead of the Trainer, start-up time, data loader. `make bench`; no network.

    python benchmarks/own.py [--only steps,overhead,starts,loader,precision] [--turns 3]

Every figure is the median of several measurements, and compared programs take turns. The part `steps` uses a GPU if
there is one. The parts `overhead`, `starts` and `loader` use the CPU. Two parts take long and run only with `--only`:
`precision` compares float32 and bf16, and `memory` measures GPT-2 124M without and with `trainer.recompute=blocks`.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import record
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
# nanoGPT's CPU configuration
CPU = ["model.block_size=64", "model.position=learned", "model.bias=false", "optimizer=adamw"]
WORKS = {  # overrides, number of steps
    "bigram, T 64, B 12": (["model=bigram"], 2000),
    "4 × 128, T 64, B 12": (CPU, 200),
    "4 × 128, T 128, B 12 (default)": ([], 120),
    "modern_gpt": (["model=modern_gpt"], 120),
    "baby GPT, T 256, B 64": (["model=baby_gpt", "data.global_batch_size=64"], 4),
    "GPT-2 124M, T 1024, B 1": (["model=gpt2_small", "data.global_batch_size=1"], 10),
}
QUIET = ["data.val_bytes=2048", "callbacks.samples.tokens=0"]


def main() -> None:
    parts = {"steps": steps, "overhead": overhead, "starts": starts, "loader": loader}
    parts |= {"precision": precision, "memory": memory}
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="steps,overhead,starts,loader", help="parts to run (default: %(default)s)")
    p.add_argument("--turns", type=int, default=3, help="number of measurements of each figure (default: 3)")
    record.add_option(p, "own")
    options = p.parse_args()
    if unknown := set(options.only.split(",")) - set(parts):
        p.error(f"--only={','.join(sorted(unknown))}: choose from {', '.join(parts)}")
    figures = {}
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as scratch:
        for name in options.only.split(","):
            figures[name] = parts[name](Path(scratch), options.turns)
            show(figures[name])
    import torch

    record.save(options.json, figures, "cuda" if torch.cuda.is_available() else "cpu")  # the choice of trainer=auto


def show(rows: list[Row]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,.4g}" for value in row.values()))
    Console().print(table)


def command(*words: str, place: Path, expect: int = 0) -> float:
    """Return the seconds that a command takes."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=place, capture_output=True, text=True, check=False)
    if done.returncode != expect:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - begin


# ------------------------------------------------------------------------------- steps


def steps(place: Path, turns: int) -> list[Row]:
    """Return the milliseconds per step of `python -m gptexp.train`, with logging at every step."""
    del turns  # each figure is already a median over steps
    return [{"training": name, **_step(overrides, n, place)} for name, (overrides, n) in WORKS.items()]


def _step(overrides: list[str], n: int, place: Path) -> Row:
    folder = Path(tempfile.mkdtemp(dir=place, prefix="run-"))
    ends = [f"trainer.max_steps={n}", f"trainer.val_every_steps={n}", "trainer.log_every_steps=1"]
    command("-m", "gptexp.train", *overrides, *QUIET, *ends, f"hydra.run.dir={folder}", place=place)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = rows[len(rows) // 10 :]  # without the first steps, which allocate memory
    times = [1000 * (float(b["seconds"]) - float(a["seconds"])) for a, b in pairwise(rows)]
    rates = [float(row["tokens_per_second"]) for row in rows[1:]]
    return {"ms per step": statistics.median(times), "tokens/s": statistics.median(rates)}


# ------------------------------------------------------------------------------- precision


def precision(place: Path, turns: int) -> list[Row]:
    """Compare `trainer.precision=auto` with the two precisions that it chooses from."""
    kinds, rows = ["32-true", "bf16-mixed", "auto"], []
    for name in ("4 × 128, T 64, B 12", "baby GPT, T 256, B 64", "GPT-2 124M, T 1024, B 1"):
        overrides, n = WORKS[name]
        times = [
            [_step([*overrides, f"trainer.precision={kind}"], n, place)["ms per step"] for kind in kinds]
            for _ in range(turns)
        ]
        medians = map(statistics.median, zip(*times, strict=True))
        rows.append({"ms per step": name, **dict(zip(kinds, medians, strict=True))})
    return rows


# ------------------------------------------------------------------------------- memory


def memory(place: Path, turns: int) -> list[Row]:
    """Compare peak memory and time of GPT-2 124M (T 1024, B 4, float32, CPU) by `trainer.recompute`."""
    if not hasattr(os, "wait4"):
        sys.exit("--only memory: this system does not report the peak memory of a process; leave the part out")
    settings = ["model=gpt2_small", "data.micro_batch_size=4", "data.global_batch_size=4", "trainer=cpu"]
    figures: dict[str, list[tuple[float, float]]] = {"none": [], "blocks": []}
    for _ in range(turns):
        for kind, measured in figures.items():
            changes = [*settings, "trainer.precision=32-true", f"trainer.recompute={kind}"]
            measured.append(_peak_and_step(changes, 4, place))
    rows = []
    for kind, measured in figures.items():
        peaks, times = (statistics.median(values) for values in zip(*measured, strict=True))
        rows.append({"trainer.recompute": kind, "peak memory, GiB": peaks, "seconds per step": times})
    return rows


def _peak_and_step(overrides: list[str], n: int, place: Path) -> tuple[float, float]:
    """Return the peak memory of a run in GiB and the median seconds of its steps."""
    folder = Path(tempfile.mkdtemp(dir=place, prefix="run-"))
    ends = [f"trainer.max_steps={n}", f"trainer.val_every_steps={n}", "trainer.log_every_steps=1"]
    words = [sys.executable, "-m", "gptexp.train", *overrides, *QUIET, *ends]
    with (place / "output.txt").open("w") as output:
        process = subprocess.Popen([*words, f"hydra.run.dir={folder}"], cwd=place, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit((place / "output.txt").read_text())
    unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes, Linux KiB
    return usage.ru_maxrss * unit / 2**30, statistics.median(_seconds(folder))


def _seconds(folder: Path) -> list[float]:
    """Return the seconds of the steps of a run, without the first."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(b["seconds"]) - float(a["seconds"]) for a, b in pairwise(csv.DictReader(file))]


# ------------------------------------------------------------------------------- overhead


def overhead(place: Path, turns: int) -> list[Row]:
    """Compare the Trainer with a minimal loop over the same model, batches and optimizer."""
    from rich.console import Console

    from gptexp.compose.composition import compose
    from gptexp.training.build import build_experiment
    from gptexp.training.run import fit

    rows = []
    for name, overrides, n in (("bigram, T 64, B 12", ["model=bigram"], 1500), ("4 × 128, T 64, B 12", CPU, 400)):
        pairs = []
        for turn in range(turns):
            ends = [f"trainer.max_steps={n}", f"trainer.val_every_steps={n}", f"paths.cache={place}/cache"]
            config = compose([*overrides, *QUIET, *ends, "trainer=cpu"])
            built = build_experiment(config, place / f"{name}-{turn}", console=Console(quiet=True))
            by_hand = _by_hand(built, n)
            built = build_experiment(config, place / f"{name}-{turn}", console=Console(quiet=True))
            fit(built)
            pairs.append((by_hand, 1000 * built.record.throughput.seconds / n))
        ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
        rows.append({"training": name, "minimal loop, ms": ours, "gptexp, ms": theirs, "overhead, ms": theirs - ours})
    return rows


def _by_hand(built: Any, n: int) -> float:
    """Return the milliseconds per step of a minimal loop with the same training."""
    import torch

    from gptexp.models.kernels.fastest import fastest_kernels
    from gptexp.training.optimizers import build_optimizer

    precision = built.trainer.precision_plugin
    optimizer = build_optimizer(built.model, built.config.optimizer, built.config.lr)
    batches = built.objective.train_batches(built.data, built.config, built.plan, rank=0, first_step=0, last_step=n)
    built.model.train()
    begin = time.perf_counter()
    with fastest_kernels(built.model):
        for step in range(n):
            with precision.forward_context():
                loss = built.objective.loss(built.model, batches[step])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(built.model.parameters(), 1.0)
            optimizer.step()
    return 1000 * (time.perf_counter() - begin) / n


# ------------------------------------------------------------------------------- starts


def starts(place: Path, turns: int) -> list[Row]:
    """Return the seconds from the start of a command to its end, and the ratio to an import of Lightning per turn."""
    train = ["-m", "gptexp.train"]
    one_step = [*train, "trainer.max_steps=1", "trainer.val_every_steps=1", *QUIET, "data.global_batch_size=1"]
    programs = {
        "import torch": (["-c", "import torch"], 0),
        "import lightning.pytorch": (["-c", "import lightning.pytorch"], 0),
        "gptexp.train, one step": (one_step, 0),
        "gptexp.train, a typo": ([*train, "model.n_lyer=6"], 2),
        "gptexp.train --help": ([*train, "--help"], 0),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(turns + 1):  # the first turn fills the caches
        for name, (words, expect) in programs.items():
            times[name].append(command(*words, place=place, expect=expect))
    base = times["import lightning.pytorch"]
    rows = []
    for name, found in times.items():
        ratios = [seconds / import_ for seconds, import_ in zip(found[1:], base[1:], strict=True)]
        rows.append(
            {"program": name, "seconds": statistics.median(found[1:]), "of the import": statistics.median(ratios)}
        )
    return rows


# ------------------------------------------------------------------------------- loader


def loader(place: Path, turns: int) -> list[Row]:
    """Measure reading windows from memory-mapped shards, 64 × 256 tokens per batch, on one core."""
    import psutil

    from gptexp.compose.composition import compose
    from gptexp.training.build import build_experiment

    overrides = ["data=python_stdlib", "model=bigram", "model.block_size=256", "data.global_batch_size=64", *QUIET]
    config = compose([*overrides, "trainer.max_steps=100000", "trainer=cpu", f"paths.cache={place}/cache"])
    built = build_experiment(config, place / "loader", console=Console(quiet=True))
    batches = built.objective.train_batches(built.data, config, built.plan, rank=0, first_step=0, last_step=100_000)
    process, warm_up, rates = psutil.Process(), 1000, []
    n = (len(batches) - warm_up) // turns
    for first in range(warm_up):  # load the pages of the shards
        batches[first]
    resident = process.memory_info().rss
    for turn in range(turns):
        begin = time.perf_counter()
        for step in range(warm_up + turn * n, warm_up + (turn + 1) * n):
            batches[step]
        rates.append(n * 64 * 256 / (time.perf_counter() - begin))
    grown = (process.memory_info().rss - resident) / 2**20
    return [{"loader": "64 × 256", "million tokens/s": statistics.median(rates) / 1e6, "memory growth, MiB": grown}]


if __name__ == "__main__":
    main()
