"""Compare the training speed of gptexp and nanoGPT on the same model, batch and text. The two commands take turns.

    python benchmarks/against_nanogpt.py --nanogpt PATH --shakespeare input.txt [--works cpu,baby,gpt2] [--turns 3]

PATH is a clone of https://github.com/karpathy/nanoGPT. It is copied and not modified. Each time is the median of the
steps after the warm-up, with logging and the progress bar enabled. Each ratio is the median over the turns.
`recommended` compares the settings that we recommend with the same nanoGPT command. On a GPU (`--device cuda`), both
programs compile the model, and GPT-2 uses twelve windows per step.
"""

from __future__ import annotations

import argparse
import csv
import os
import pty
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import record
from rich.console import Console
from rich.table import Table

ITERATION = re.compile(r"^iter (\d+): loss ([\d.]+), time ([\d.]+)ms")
CHARACTERS = ["config/train_shakespeare_char.py"]
CONSTANT = ["schedule.min_lr_ratio=1", "schedule.warmup_steps=0"]


@dataclass(frozen=True)
class Work:
    """One comparison.

    batch: windows per step. block: tokens per window. theirs: options of nanoGPT. ours: overrides of gptexp by variant.
    """

    steps: int
    warm_up: int
    batch: int
    block: int
    theirs: list[str]
    ours: dict[str, list[str]]

    def nanogpt(self, device: str) -> list[str]:
        """Return the arguments of nanoGPT's train.py."""
        sizes = [f"--batch_size={self.batch}", f"--block_size={self.block}"]
        steps = [f"--max_iters={self.steps}", f"--lr_decay_iters={self.steps}"]
        return [*self.theirs, *sizes, *steps, f"--device={device}", f"--compile={device == 'cuda'}"]


WORKS = {
    "cpu": Work(  # the CPU configuration in nanoGPT's README
        steps=220,
        warm_up=20,
        batch=12,
        block=64,
        theirs=[*CHARACTERS, "--n_layer=4", "--n_head=4", "--n_embd=128", "--dropout=0.0"],
        ours={"same": ["experiment=shakespeare_char_cpu"]},
    ),
    "baby": Work(  # nanoGPT's baby GPT: 6 layers of width 384, dropout in all layers
        steps=5,
        warm_up=1,
        batch=64,
        block=256,
        theirs=[*CHARACTERS, "--decay_lr=False"],
        ours={
            "same": ["experiment=shakespeare_char_gpu", *CONSTANT],
            "recommended": ["experiment=shakespeare_char_gpu", "model.attn_dropout=0", *CONSTANT],
        },
    ),
    "gpt2": Work(  # GPT-2 124M
        steps=10,
        warm_up=3,
        batch=1,
        block=1024,
        theirs=["--dataset=shakespeare", "--gradient_accumulation_steps=1", "--learning_rate=6e-4", "--decay_lr=False"],
        ours={
            "same": [
                "model=gpt2_small", "data=shakespeare", "model.bias=false", "model.activation=gelu",
                "optimizer.lr=6e-4", *CONSTANT,
            ]
        },
    ),
}  # fmt: skip
ON_GPU = {  # more steps, because they are short and the first ones compile
    "cpu": replace(WORKS["cpu"], warm_up=100),
    "baby": replace(WORKS["baby"], steps=300, warm_up=100),
    "gpt2": replace(WORKS["gpt2"], steps=100, warm_up=40, batch=12),
}


@dataclass(frozen=True)
class Timed:
    """Median milliseconds per step, the loss of the last step, and the MFU if the peak of the device is known."""

    ms: float
    loss: float
    mfu: float | None = None


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peer(p)
    p.add_argument("--works", default=",".join(WORKS), help="comparisons to run (default: %(default)s)")
    p.add_argument("--turns", type=int, default=3, help="number of measurements of each command (default: 3)")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    record.add_option(p, "against_nanogpt")
    options = p.parse_args()
    if unknown := set(options.works.split(",")) - set(WORKS):
        p.error(f"--works={','.join(sorted(unknown))}: choose from {', '.join(WORKS)}")
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as scratch:
        figures = compare(options, Path(scratch))
    show(figures)
    record.save(options.json, figures, options.device)


def compare(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Return the rows of the table, one for each comparison and variant."""
    text = options.shakespeare
    nanogpt = prepared_copy(options.nanogpt, text, scratch / "nanogpt")
    rows: list[dict[str, Any]] = []
    for name in options.works.split(","):
        work = (ON_GPU if options.device == "cuda" else WORKS)[name]
        turns = [measure(work, nanogpt, text, scratch, options.device) for _ in range(options.turns)]
        for variant in work.ours:
            pairs = [(turn["nanogpt"], turn[variant]) for turn in turns]
            rows.append(
                {
                    "work": name,
                    "variant": variant,
                    "nanogpt_ms": [theirs.ms for theirs, _ in pairs],
                    "gptexp_ms": [ours.ms for _, ours in pairs],
                    "tokens_per_second": [1000 * work.batch * work.block / ours.ms for _, ours in pairs],
                    "gptexp_mfu": [ours.mfu for _, ours in pairs],
                    "ratio": statistics.median(theirs.ms / ours.ms for theirs, ours in pairs),
                    "nanogpt_loss": pairs[-1][0].loss,
                    "gptexp_loss": pairs[-1][1].loss,
                    "steps": work.steps,
                }
            )
    return rows


def measure(work: Work, nanogpt: Path, text: Path, scratch: Path, device: str) -> dict[str, Timed]:
    """Run nanoGPT's command and then gptexp's variants."""
    found = {"nanogpt": theirs(work, nanogpt, device)}
    return found | {variant: ours(work, overrides, text, scratch, device) for variant, overrides in work.ours.items()}


def theirs(work: Work, nanogpt: Path, device: str, timeout: float | None = None) -> Timed:
    """Run nanoGPT's train.py. It reports the time of each iteration, which includes the logging of the previous one."""
    settings = [*work.nanogpt(device), "--eval_iters=1", "--log_interval=1"]
    lines = terminal_lines([sys.executable, "train.py", *settings], nanogpt, timeout)
    found = [match.groups() for line in lines if (match := ITERATION.match(line))]
    times = [float(ms) for step, _, ms in found if int(step) > work.warm_up]
    last = work.steps - 1  # nanoGPT counts from 0 and runs one step more than max_iters
    return Timed(statistics.median(times), next(float(loss) for step, loss, _ in found if int(step) == last))


def ours(
    work: Work,
    overrides: list[str],
    text: Path,
    scratch: Path,
    device: str,
    *,
    compiled: bool | None = None,
    timeout: float | None = None,
) -> Timed:
    """Run gptexp's train command and read the time of every step from metrics.csv.

    compiled: whether to use torch.compile; None means only on a GPU.
    """
    folder = Path(tempfile.mkdtemp(dir=scratch, prefix="run-"))
    on_gpu = device == "cuda"
    fixed = ["trainer=gpu" if on_gpu else "trainer=cpu", f"trainer.compile={on_gpu if compiled is None else compiled}"]
    fixed += [f"data.path={text}", "data.val_bytes=4096", f"hydra.run.dir={folder}", "trainer.log_every_steps=1"]
    fixed += [f"trainer.max_steps={work.steps}", f"trainer.val_every_steps={work.steps}", "callbacks.samples.tokens=0"]
    fixed += [f"data.global_batch_size={work.batch}", f"model.block_size={work.block}"]
    terminal_lines([sys.executable, "-m", "gptexp.train", *overrides, *fixed], scratch, timeout)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    after = [row for row in rows if int(row["step"]) >= work.warm_up]
    times = [1000 * (float(b["seconds"]) - float(a["seconds"])) for a, b in pairwise(after)]
    mfu = [float(row["mfu"]) for row in after if row["mfu"]]
    return Timed(statistics.median(times), float(rows[-1]["train/loss"]), statistics.median(mfu) if mfu else None)


def add_peer(parser: argparse.ArgumentParser) -> None:
    """Add the options --nanogpt and --shakespeare, which must name existing files."""
    parser.add_argument("--nanogpt", type=_clone, required=True, metavar="PATH", help="a clone of nanoGPT")
    parser.add_argument("--shakespeare", type=_file, required=True, metavar="FILE", help="Tiny Shakespeare, input.txt")


def _clone(name: str) -> Path:
    if not (Path(name) / "train.py").is_file():
        raise argparse.ArgumentTypeError(f"{name}: contains no train.py; give a clone of nanoGPT")
    return Path(name)


def _file(name: str) -> Path:
    if not Path(name).is_file():
        raise argparse.ArgumentTypeError(f"{name}: no such file")
    return Path(name).resolve()


def prepared_copy(nanogpt: Path, text: Path, copy: Path) -> Path:
    """Copy nanoGPT and create its two data sets from the text: characters and GPT-2 tokens."""
    import numpy as np

    from gptexp.config.tokenizer import GPT2TokenizerConfig
    from gptexp.tokenizers import train_tokenizer

    shutil.copytree(nanogpt, copy, ignore=shutil.ignore_patterns(".git", "out*", "*.bin", "*.pkl"))
    characters = copy / "data/shakespeare_char"
    shutil.copy(text, characters / "input.txt")
    terminal_lines([sys.executable, "prepare.py"], characters)
    tokens = train_tokenizer(GPT2TokenizerConfig()).encode(text.read_text(encoding="utf-8")).astype(np.uint16)
    cut = len(tokens) * 9 // 10
    for name, part in (("train", tokens[:cut]), ("val", tokens[cut:])):
        part.tofile(copy / f"data/shakespeare/{name}.bin")
    return copy


def terminal_lines(command: list[str], place: Path, timeout: float | None = None) -> list[str]:
    """Run a program in a pseudo-terminal, so that it draws progress bars, and return its output lines.

    Raises:
        subprocess.TimeoutExpired: the program ran longer than `timeout` seconds. It and its children are killed.
    """
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def drain() -> None:
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:  # on Linux, the other end is closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    with subprocess.Popen(
        command, cwd=place, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, start_new_session=True
    ) as child:
        os.close(theirs)
        try:
            child.wait(timeout)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            reader.join()
            os.close(ours)
    lines = b"".join(pieces).decode("utf-8", errors="replace").splitlines()
    if child.returncode:
        sys.exit("\n".join([" ".join(command), *lines[-20:]]))
    return lines


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("work", "variant", "nanoGPT, ms per step", "gptexp, ms per step", "ratio", "tokens/s", "last losses")
    for row in rows:
        theirs, ours, rate = (statistics.median(row[key]) for key in ("nanogpt_ms", "gptexp_ms", "tokens_per_second"))
        known = [mfu for mfu in row["gptexp_mfu"] if mfu is not None]
        tokens = f"{rate:,.0f}" + (f", MFU {statistics.median(known):.1%}" if known else "")
        losses = f"{row['nanogpt_loss']:.3f} · {row['gptexp_loss']:.3f}"
        times = f"{theirs:,.1f}", f"{ours:,.1f}", f"{row['ratio']:.2f}"
        table.add_row(row["work"], row["variant"], *times, tokens, losses)
    Console().print(table)


if __name__ == "__main__":
    main()
