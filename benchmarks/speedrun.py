"""Compare the time to a given loss: nanoGPT's configurations for Tiny Shakespeare, and gptexp's speedruns.

    python benchmarks/speedrun.py --nanogpt PATH --shakespeare input.txt [--work baby --device cuda] [--turns 3]

nanoGPT's command trains 2,000 steps of its CPU configuration (`--work cpu`), or 5,000 steps of its baby GPT
(`--work baby`), of which the best evaluation counts. Its checkpoint is then scored on the whole validation text in
windows of the block size, like gptexp's models. The seconds are training time, without evaluations and imports.
`--picture FILE.png` plots the loss over time. It adds one more run: nanoGPT's configuration, trained with gptexp.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import record
from against_nanogpt import ITERATION, WORKS, add_peer, prepared_copy, terminal_lines
from rich.console import Console
from rich.table import Table

QUIET = ["callbacks.samples.tokens=0"]
EVALUATION = re.compile(r"^step (\d+): train loss [\d.]+, val loss ([\d.]+)")
SCORE = """
import numpy, torch
from model import GPT, GPTConfig
stored = torch.load("out-shakespeare-char/ckpt.pt", weights_only=False, map_location="cpu")
model = GPT(GPTConfig(**stored["model_args"]))
model.load_state_dict({name.removeprefix("_orig_mod."): value for name, value in stored["model"].items()})
model.eval()
tokens = torch.from_numpy(numpy.fromfile("data/shakespeare_char/val.bin", dtype=numpy.uint16).astype(numpy.int64))
block, last, nats = stored["model_args"]["block_size"], len(tokens) - 1, 0.0
with torch.no_grad():
    for start in range(0, last, block):
        end = min(start + block, last)
        loss = model(tokens[None, start:end], tokens[None, start + 1 : end + 1])[1]
        nats += float(loss) * (end - start)
print("score", nats / last)
"""
Curve = list[tuple[float, float]]  # seconds, nats per character


@dataclass(frozen=True)
class Race:
    """nanoGPT's configuration, and gptexp's speedrun to the same loss.

    every: steps between nanoGPT's evaluations. batches: batches per evaluation. same, ours: experiments of gptexp.
    overfits: the best evaluation counts, not the last one.
    """

    steps: int
    every: int
    batches: int
    same: str
    ours: str
    loss: float
    overfits: bool = False


RACES = {
    "cpu": Race(2000, 200, 20, "shakespeare_char_cpu", "speedrun_cpu", 1.898),
    "baby": Race(5000, 250, 200, "shakespeare_char_gpu", "speedrun_baby", 1.4697, overfits=True),
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peer(p)
    p.add_argument("--work", choices=list(RACES), default="cpu", help="default: %(default)s")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    p.add_argument("--turns", type=int, default=3, help="number of training runs of each program (default: 3)")
    p.add_argument("--picture", type=Path, metavar="FILE", help="plot the loss over time into this PNG file")
    record.add_option(p, "speedrun")
    options = p.parse_args()
    race, text = RACES[options.work], options.shakespeare
    trainer = "trainer=gpu" if options.device == "cuda" else "trainer=cpu"
    turns = []
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as scratch:
        place = Path(scratch)
        nanogpt = prepared_copy(options.nanogpt, text, place / "nanogpt")
        for turn in range(1, options.turns + 1):
            theirs = nanogpt_run(options.work, nanogpt, options.device)
            words = [f"experiment={race.ours}", trainer, f"seed={turn}"]
            ours = gptexp_run(words, text, place / f"speedrun-{turn}")
            turns.append({"nanogpt": theirs, "gptexp": ours, "ratio": theirs["seconds"] / ours["seconds"]})
            times = f"nanoGPT {theirs['seconds']:.1f} s, gptexp {ours['seconds']:.1f} s"
            print(f"turn {turn}: {times}", file=sys.stderr)
        if options.picture:
            curves = {"nanoGPT": turns[-1]["nanogpt"]["curve"]}
            words = [f"experiment={race.same}", trainer, f"trainer.val_every_steps={race.every}"]
            curves["gptexp, the same configuration"] = gptexp_run([*words, *QUIET], text, place / "same")["curve"]
            words = [f"experiment={race.ours}", trainer, "seed=1", "trainer.val_every_steps=30"]
            curves[f"gptexp, {race.ours}"] = gptexp_run([*words, *QUIET], text, place / "often")["curve"]
            where = "a GPU" if options.device == "cuda" else "two CPU cores"
            draw(curves, race.loss, f"seconds of training on {where}", options.picture)
    table = Table("", "seconds of training", "loss on the whole validation text")
    for name in ("nanogpt", "gptexp"):
        seconds = statistics.median(turn[name]["seconds"] for turn in turns)
        table.add_row(name, f"{seconds:.1f}", " · ".join(f"{turn[name]['loss']:.4f}" for turn in turns))
    Console().print(table)
    print(f"ratio {statistics.median(turn['ratio'] for turn in turns):.1f}")
    record.save(options.json, turns, options.device)


def nanogpt_run(name: str, nanogpt: Path, device: str) -> dict[str, Any]:
    """Run nanoGPT's train.py and score its checkpoint.

    An iteration with an evaluation, including the first one, which compiles, counts as the median iteration.
    """
    race = RACES[name]
    settings = replace(WORKS[name], steps=race.steps).nanogpt(device)
    settings += ["--decay_lr=True", f"--always_save_checkpoint={not race.overfits}"]
    settings += [f"--eval_interval={race.every}", f"--eval_iters={race.batches}", "--log_interval=1"]
    lines = terminal_lines([sys.executable, "train.py", *settings], nanogpt)
    times = {int(m[1]): float(m[3]) / 1000 for line in lines if (m := ITERATION.match(line))}
    usual = statistics.median(times.values())
    passed = list(accumulate(usual if step % race.every == 0 else times[step] for step in range(race.steps)))
    found = [(int(m[1]), float(m[2])) for line in lines if (m := EVALUATION.match(line))]
    curve = [(passed[step - 1] if step else 0.0, loss) for step, loss in found]
    seconds = min(curve, key=lambda point: point[1])[0] if race.overfits else passed[-1]
    score = next(line for line in terminal_lines([sys.executable, "-c", SCORE], nanogpt) if line.startswith("score"))
    return {"seconds": seconds, "loss": float(score.split()[1]), "curve": curve}


def gptexp_run(overrides: list[str], text: Path, folder: Path) -> dict[str, Any]:
    """Run gptexp's train command with the folder as run folder."""
    command = [sys.executable, "-m", "gptexp.train", *overrides, f"data.path={text}", f"hydra.run.dir={folder}"]
    terminal_lines(command, folder.parent)
    result = json.loads((folder / "result.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    curve = [(float(row["seconds"]), float(row["val/loss"])) for row in rows]
    return {"seconds": result["training_seconds"], "loss": result["metrics"]["val/loss"], "curve": curve}


def draw(curves: dict[str, Curve], goal: float, seconds: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*[point for point in curve if point[1] < goal + 0.7], strict=True), marker="o", label=name)
    axes.axhline(goal, color="0.6", linewidth=1, linestyle="--")
    axes.annotate(f"{goal}", (0, goal), xytext=(0, 4), textcoords="offset points", color="0.4")
    axes.set_xlabel(seconds)
    axes.set_ylabel("validation loss (nats per character)")
    axes.set_title("Tiny Shakespeare: loss over time")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
