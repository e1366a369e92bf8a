"""Until the loss: nanoGPT's CPU setting on Tiny Shakespeare, and `experiment=speedrun_cpu` to the same loss.

    python benchmarks/speedrun.py --nanogpt PATH --shakespeare input.txt [--turns 3] [--picture FILE.png]

nanoGPT trains its 2,000 steps by its own command; its checkpoint is then scored over the whole validation part in
windows of 64, which is what ours are scored on. Seconds are of training: iterations without their evaluations, and
without imports. The picture has one more run, nanoGPT's setting trained by gptexp.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import record
from against_nanogpt import ITERATION, WORKS, adopted, printed
from rich.console import Console
from rich.table import Table

STEPS, EVERY = 2000, 200
EVALUATION = re.compile(r"^step (\d+): train loss [\d.]+, val loss ([\d.]+)")
SCORE = """
import numpy, torch
from model import GPT, GPTConfig
stored = torch.load("out-shakespeare-char/ckpt.pt", weights_only=False)
model = GPT(GPTConfig(**stored["model_args"]))
model.load_state_dict(stored["model"])
model.eval()
tokens = torch.from_numpy(numpy.fromfile("data/shakespeare_char/val.bin", dtype=numpy.uint16).astype(numpy.int64))
last, nats = len(tokens) - 1, 0.0
with torch.no_grad():
    for start in range(0, last, 64):
        end = min(start + 64, last)
        loss = model(tokens[None, start:end], tokens[None, start + 1 : end + 1])[1]
        nats += float(loss) * (end - start)
print("score", nats / last)
"""
Curve = list[tuple[float, float]]  # seconds, nats a character


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", type=Path, required=True, metavar="PATH", help="a clone of nanoGPT")
    p.add_argument("--shakespeare", type=Path, required=True, metavar="FILE", help="Tiny Shakespeare (input.txt)")
    p.add_argument("--turns", type=int, default=3, help="times that both are trained (default: 3)")
    p.add_argument("--picture", type=Path, metavar="FILE", help="loss against seconds, as PNG")
    record.add_option(p, "speedrun")
    options = p.parse_args()
    text = options.shakespeare.resolve()
    turns = []
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as scratch:
        place = Path(scratch)
        nanogpt = adopted(options.nanogpt, text, place / "nanogpt")
        for turn in range(1, options.turns + 1):
            theirs = nanogpt_run(nanogpt)
            ours = gptexp_run(["experiment=speedrun_cpu", f"seed={turn}"], text, place / f"speedrun-{turn}")
            turns.append({"nanogpt": theirs, "gptexp": ours, "ratio": theirs["seconds"] / ours["seconds"]})
            print(f"turn {turn}: {theirs['seconds']:.1f} s, {ours['seconds']:.1f} s", file=sys.stderr)
        if options.picture:
            curves = {"nanoGPT, its CPU setting": turns[-1]["nanogpt"]["curve"]}
            same = ["experiment=shakespeare_char_cpu", f"trainer.val_every_steps={EVERY}", "callbacks.samples.tokens=0"]
            curves["gptexp, the same setting"] = gptexp_run(same, text, place / "same")["curve"]
            often = ["experiment=speedrun_cpu", "seed=1", "trainer.val_every_steps=30"]
            curves["gptexp, speedrun_cpu"] = gptexp_run(often, text, place / "often")["curve"]
            draw(curves, options.picture)
    table = Table("", "seconds of training", "loss over the whole part")
    for name in ("nanogpt", "gptexp"):
        seconds = statistics.median(turn[name]["seconds"] for turn in turns)
        table.add_row(name, f"{seconds:.1f}", " · ".join(f"{turn[name]['loss']:.4f}" for turn in turns))
    Console().print(table)
    print(f"ratio {statistics.median(turn['ratio'] for turn in turns):.1f}")
    record.save(options.json, turns)


def nanogpt_run(nanogpt: Path) -> dict[str, Any]:
    """nanoGPT's train.py on its CPU setting; an iteration that evaluates counts as a median one."""
    settings = [word for word in WORKS["cpu"].theirs if not word.startswith("--lr_decay_iters")]
    settings += [f"--max_iters={STEPS}", f"--lr_decay_iters={STEPS}", f"--eval_interval={EVERY}", "--eval_iters=20"]
    settings += ["--device=cpu", "--compile=False", "--log_interval=1", "--always_save_checkpoint=True"]
    lines = printed([sys.executable, "train.py", *settings], nanogpt)
    times = {int(m[1]): float(m[3]) / 1000 for line in lines if (m := ITERATION.match(line))}
    usual = statistics.median(times.values())
    passed = list(accumulate(usual if step % EVERY == 0 else times[step] for step in range(STEPS)))
    found = [(int(m[1]), float(m[2])) for line in lines if (m := EVALUATION.match(line))]
    curve = [(passed[step - 1] if step else 0.0, loss) for step, loss in found]
    score = next(line for line in printed([sys.executable, "-c", SCORE], nanogpt) if line.startswith("score"))
    return {"seconds": passed[-1], "loss": float(score.split()[1]), "curve": curve}


def gptexp_run(overrides: list[str], text: Path, folder: Path) -> dict[str, Any]:
    """gptexp's train, into the folder."""
    command = [sys.executable, "-m", "gptexp.train", *overrides, f"data.path={text}", f"hydra.run.dir={folder}"]
    printed(command, folder.parent)
    result = json.loads((folder / "result.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    curve = [(float(row["seconds"]), float(row["val/loss"])) for row in rows]
    return {"seconds": result["training_seconds"], "loss": result["metrics"]["val/loss"], "curve": curve}


def draw(curves: dict[str, Curve], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*[point for point in curve if point[1] < 2.6], strict=True), marker="o", label=name)
    axes.axhline(1.898, color="0.6", linewidth=1, linestyle="--")
    axes.annotate("1.898", (0, 1.898), xytext=(0, 4), textcoords="offset points", color="0.4")
    axes.set_xlabel("seconds of training on two CPU cores")
    axes.set_ylabel("validation loss, nats a character")
    axes.set_title("Tiny Shakespeare: loss against time")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
