"""Training steps beside nanoGPT's: the same model, batch and text, each by its own command, in turn.

    python benchmarks/against_nanogpt.py --nanogpt PATH --shakespeare input.txt [--works cpu,baby,gpt2] [--turns 3]

PATH is a clone of https://github.com/karpathy/nanoGPT; it is copied, not written to. A figure is the median
time of a step after warm-up, logging and progress bar on; a ratio is the median of the turns' ratios.
`recommended` is what we would train instead, beside the same command of nanoGPT's.
"""

from __future__ import annotations

import argparse
import csv
import os
import pty
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import record
from rich.console import Console
from rich.table import Table

ITERATION = re.compile(r"^iter (\d+): loss ([\d.]+), time ([\d.]+)ms")
CHARACTERS = ["config/train_shakespeare_char.py"]
CONSTANT = ["schedule.min_lr_ratio=1", "schedule.warmup_steps=0"]


@dataclass(frozen=True)
class Work:
    """One comparison. ours: variants by name, each a command line's overrides; theirs: nanoGPT's."""

    steps: int
    warm_up: int
    theirs: list[str]
    ours: dict[str, list[str]]


WORKS = {
    "cpu": Work(  # the CPU setting of nanoGPT's README
        steps=220,
        warm_up=20,
        theirs=[
            *CHARACTERS, "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128",
            "--dropout=0.0", "--lr_decay_iters=220",
        ],
        ours={"same": ["experiment=shakespeare_char_cpu"]},
    ),
    "baby": Work(  # its baby GPT: 6 layers of 384, dropout everywhere
        steps=5,
        warm_up=1,
        theirs=[*CHARACTERS, "--decay_lr=False"],
        ours={
            "same": ["experiment=shakespeare_char_gpu", *CONSTANT],
            "recommended": ["experiment=shakespeare_char_gpu", "model.attn_dropout=0", *CONSTANT],
        },
    ),
    "gpt2": Work(  # GPT-2 124M, one whole window
        steps=5,
        warm_up=1,
        theirs=[
            "--dataset=shakespeare", "--batch_size=1", "--block_size=1024", "--gradient_accumulation_steps=1",
            "--learning_rate=6e-4", "--decay_lr=False",
        ],
        ours={
            "same": [
                "model=gpt2_small", "data=shakespeare", "model.bias=false", "model.activation=gelu",
                "data.global_batch_size=1", "optimizer.lr=6e-4", *CONSTANT,
            ]
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """Milliseconds of a step (the median), and the loss of the last one."""

    ms: float
    loss: float


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", type=Path, required=True, metavar="PATH", help="a clone of nanoGPT")
    p.add_argument("--shakespeare", type=Path, required=True, metavar="FILE", help="Tiny Shakespeare (input.txt)")
    p.add_argument("--works", default=",".join(WORKS), help="which of them (default: %(default)s)")
    p.add_argument("--turns", type=int, default=3, help="times that each is measured (default: 3)")
    record.add_option(p, "against_nanogpt")
    options = p.parse_args()
    if not (options.nanogpt / "train.py").is_file():
        p.error(f"--nanogpt={options.nanogpt}: no train.py in it")
    if unknown := set(options.works.split(",")) - set(WORKS):
        p.error(f"--works={','.join(sorted(unknown))}: choose from {', '.join(WORKS)}")
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as scratch:
        figures = compare(options, Path(scratch))
    show(figures)
    record.save(options.json, figures)


def compare(options: argparse.Namespace, scratch: Path) -> list[dict[str, object]]:
    """Rows of the table: a work and a variant each."""
    text = options.shakespeare.resolve()
    nanogpt = adopted(options.nanogpt, text, scratch / "nanogpt")
    rows: list[dict[str, object]] = []
    for name in options.works.split(","):
        work = WORKS[name]
        turns = [measure(work, nanogpt, text, scratch) for _ in range(options.turns)]
        for variant in work.ours:
            pairs = [(turn["nanogpt"], turn[variant]) for turn in turns]
            rows.append(
                {
                    "work": name,
                    "variant": variant,
                    "nanogpt_ms": [theirs.ms for theirs, _ in pairs],
                    "gptexp_ms": [ours.ms for _, ours in pairs],
                    "ratio": statistics.median(theirs.ms / ours.ms for theirs, ours in pairs),
                    "nanogpt_loss": pairs[-1][0].loss,
                    "gptexp_loss": pairs[-1][1].loss,
                    "steps": work.steps,
                }
            )
    return rows


def measure(work: Work, nanogpt: Path, text: Path, scratch: Path) -> dict[str, Timed]:
    """One turn: nanoGPT's command, then ours."""
    found = {"nanogpt": theirs(work, nanogpt)}
    return found | {variant: ours(work, overrides, text, scratch) for variant, overrides in work.ours.items()}


def theirs(work: Work, nanogpt: Path) -> Timed:
    """nanoGPT's train.py; it times its own iterations, the logging of the last one included."""
    fixed = ["--device=cpu", "--compile=False", "--eval_iters=1", "--log_interval=1", f"--max_iters={work.steps}"]
    lines = printed([sys.executable, "train.py", *work.theirs, *fixed], nanogpt)
    found = [match.groups() for line in lines if (match := ITERATION.match(line))]
    times = [float(ms) for step, _, ms in found if int(step) > work.warm_up]
    last = work.steps - 1  # it counts from 0, and goes a step further than it is told
    return Timed(statistics.median(times), next(float(loss) for step, loss, _ in found if int(step) == last))


def ours(work: Work, overrides: list[str], text: Path, scratch: Path) -> Timed:
    """gptexp's train; seconds of training as it records them, at every step."""
    folder = Path(tempfile.mkdtemp(dir=scratch, prefix="run-"))
    fixed = [f"data.path={text}", "data.val_bytes=4096", f"hydra.run.dir={folder}", "trainer.log_every_steps=1"]
    fixed += [f"trainer.max_steps={work.steps}", f"trainer.val_every_steps={work.steps}", "callbacks.samples.tokens=0"]
    printed([sys.executable, "-m", "gptexp.train", *overrides, *fixed], scratch)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [(int(row["step"]), float(row["seconds"]), float(row["train/loss"])) for row in csv.DictReader(file)]
    times = [1000 * (b[1] - a[1]) for a, b in pairwise(rows) if b[0] > work.warm_up]
    return Timed(statistics.median(times), rows[-1][2])


def adopted(nanogpt: Path, text: Path, copy: Path) -> Path:
    """A copy of nanoGPT with its two data sets made from the text: characters, and GPT-2's tokens."""
    import numpy as np

    from gptexp.config.tokenizer import GPT2TokenizerConfig
    from gptexp.tokenizers import train_tokenizer

    shutil.copytree(nanogpt, copy, ignore=shutil.ignore_patterns(".git", "out*", "*.bin", "*.pkl"))
    characters = copy / "data/shakespeare_char"
    shutil.copy(text, characters / "input.txt")
    printed([sys.executable, "prepare.py"], characters)
    tokens = train_tokenizer(GPT2TokenizerConfig()).encode(text.read_text(encoding="utf-8")).astype(np.uint16)
    cut = len(tokens) * 9 // 10
    for name, part in (("train", tokens[:cut]), ("val", tokens[cut:])):
        part.tofile(copy / f"data/shakespeare/{name}.bin")
    return copy


def printed(command: list[str], place: Path) -> list[str]:
    """Lines that a program writes to a terminal, so that progress bars are drawn."""
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def drain() -> None:
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:  # how Linux says that the other end is closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    done = subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    reader.join()
    os.close(ours)
    lines = b"".join(pieces).decode("utf-8", errors="replace").splitlines()
    if done.returncode:
        sys.exit("\n".join([" ".join(command), *lines[-20:]]))
    return lines


def show(rows: list[dict[str, object]]) -> None:
    table = Table("work", "variant", "nanoGPT, ms a step", "gptexp, ms a step", "ratio", "losses at the last step")
    for row in rows:
        medians = [f"{statistics.median(row[key]):,.1f}" for key in ("nanogpt_ms", "gptexp_ms")]  # type: ignore[call-overload]
        losses = f"{row['nanogpt_loss']:.3f} · {row['gptexp_loss']:.3f}"
        table.add_row(str(row["work"]), str(row["variant"]), *medians, f"{row['ratio']:.2f}", losses)
    Console().print(table)


if __name__ == "__main__":
    main()
