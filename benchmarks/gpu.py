"""Measure gptexp on a GPU, in at most eight minutes, and print one table.

    python benchmarks/gpu.py [--nanogpt PATH] [--shakespeare FILE] [--only eager,compiled,…] [--minutes 8]
    python benchmarks/gpu.py --device cpu --small      # the same parts with tiny models, to test this program

The parts are: GPT-2 124M in bf16 with a block size of 1,024 and twelve windows per step, with and without
torch.compile and with Muon; nanoGPT's command, if a clone is given; exact resume; the error message when the memory is
full; generation. Each part runs in separate processes. A part that fails gives a row with the reason. A part without
enough time is left out. The results are written after each part, so an interruption loses none of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import record
from against_nanogpt import ON_GPU, Timed, Work, _clone, _file, ours, prepared_copy, theirs
from rich.console import Console
from rich.table import Table

SMALL = ["model.n_layer=2", "model.n_head=2", "model.n_embd=64"]
SMALL_WORK = replace(
    ON_GPU["gpt2"],
    steps=12,
    warm_up=3,
    batch=4,
    block=64,
    theirs=[*ON_GPU["gpt2"].theirs, "--n_layer=2", "--n_head=2", "--n_embd=64"],
    ours={"same": [*ON_GPU["gpt2"].ours["same"], *SMALL]},
)
RESUMED = [
    "data=shakespeare",
    "model.dropout=0.1",
    "data.global_batch_size=8",
    "callbacks.samples.tokens=0",
    "trainer.compile=false",
]
PROMPT, WRITTEN, TEXTS = 32, 100, (1, 8)


@dataclass
class Bench:
    """State that the parts share. started: value of time.monotonic()."""

    device: str
    small: bool
    text: Path
    nanogpt: Path | None
    scratch: Path
    seconds: float
    started: float = field(default_factory=time.monotonic)
    steps: dict[str, Timed] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Return the remaining seconds of the budget."""
        return self.seconds - (time.monotonic() - self.started)

    @property
    def work(self) -> Work:
        return SMALL_WORK if self.small else ON_GPU["gpt2"]

    def train(self, name: str, *overrides: str, compiled: bool) -> str:
        """Measure the steps of gptexp's command and store them under the name."""
        settings = [*self.work.ours["same"], *overrides]
        self.steps[name] = ours(
            self.work, settings, self.text, self.scratch, self.device, compiled=compiled, timeout=self.left
        )
        return self.describe(self.steps[name])

    def describe(self, timed: Timed) -> str:
        """Return the speed and the loss as text."""
        rate = 1000 * self.work.batch * self.work.block / timed.ms
        mfu = f", MFU {timed.mfu:.1%}" if timed.mfu else ""
        return f"{timed.ms:,.1f} ms per step, {rate:,.0f} tokens/s{mfu}, last loss {timed.loss:.3f}"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program until the end of the budget at most."""
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=self.scratch, capture_output=True, text=True, check=False, timeout=max(1, self.left)
        )


# ------------------------------------------------------------------------------- parts


def eager(bench: Bench) -> str:
    return bench.train("eager", compiled=False)


def compiled(bench: Bench) -> str:
    found = bench.train("compiled", compiled=True)
    before = bench.steps.get("eager")
    return found + (f", {before.ms / bench.steps['compiled'].ms:.2f} times as fast as not compiled" if before else "")


def muon(bench: Bench) -> str:
    found = bench.train("muon", "optimizer=muon", compiled=False)
    before = bench.steps.get("eager")
    return found + (f", {bench.steps['muon'].ms - before.ms:+,.1f} ms compared with AdamW" if before else "")


def nanogpt(bench: Bench) -> str:
    """Run nanoGPT's command on the same text. On a GPU it is compiled, as in the part `compiled`."""
    if bench.nanogpt is None:
        raise Skipped("give --nanogpt PATH, a clone of nanoGPT")
    copy = prepared_copy(bench.nanogpt, bench.text, bench.scratch / "nanogpt")
    bench.steps["nanogpt"] = timed = theirs(bench.work, copy, bench.device, max(1, bench.left))
    same = bench.steps.get("compiled")
    if same is None:
        return bench.describe(timed)
    timed = replace(timed, mfu=same.mfu and same.mfu * same.ms / timed.ms)  # both need the same FLOPs
    return f"{bench.describe(timed)}; gptexp compiled takes {same.ms / timed.ms:.2f} times as long"


def resume(bench: Bench) -> str:
    trainer = "trainer=gpu" if bench.device == "cuda" else "trainer=cpu"
    size = SMALL if bench.small else []
    settings = [*size, *RESUMED, trainer, f"data.path={bench.text}", "data.val_bytes=4096"]
    done = bench.run("-m", "gptexp.verify_resume", "--steps", "20", "--kill-at", "9", *settings)
    if done.returncode:
        raise Failed(_last_line(done))
    return done.stdout.splitlines()[-1]


def full_memory(bench: Bench) -> str:
    """Check the error message for too little memory.

    On a GPU, activations fill the memory. On a CPU, gptexp refuses a model that does not fit.
    """
    if bench.device == "cuda":
        sizes, names = (
            ["data.global_batch_size=16384", "data.micro_batch_size=16384", "trainer=gpu"],
            "micro_batch_size",
        )
    else:
        sizes, names = ["model.n_layer=96", "model.n_head=128", "model.n_embd=65536", "trainer=cpu"], "GiB"
    fixed = [f"data.path={bench.text}", "data.val_bytes=4096", "trainer.compile=false", "trainer.max_steps=2"]
    done = bench.run("-m", "gptexp.train", *bench.work.ours["same"], *sizes, *fixed)
    message = _last_line(done)
    if done.returncode != 2 or not message.startswith("error: ") or names not in message:
        raise Failed(f"exit code {done.returncode}: {message}")
    return message


def generation(bench: Bench) -> str:
    done = bench.run(__file__, "--write-on", bench.device, *(["--small"] if bench.small else []))
    if done.returncode:
        raise Failed(_last_line(done))
    return done.stdout.strip()


def write(device: str, small: bool) -> None:
    """Measure greedy generation in float32 with a cache, and compare the tokens with those of the CPU."""
    import torch

    from generation import write as write_with
    from gptexp.compose.composition import compose
    from gptexp.generation.decoding import make_decoder
    from gptexp.models.build import build_model

    config: Any = compose(["model=gpt2_small", "data=pydocs", *(SMALL if small else [])]).model
    model = build_model(config, 50257, seed=1).eval().to(device)
    drawn = torch.randint(50256, (max(TEXTS), PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
    rates = []
    for texts in TEXTS:
        for n in (2, WRITTEN):  # the first run is the warm-up
            decoder, begin = make_decoder(model, drawn[:texts], n), time.perf_counter()
            write_with(decoder, n)
        rates.append(f"{texts * WRITTEN / (time.perf_counter() - begin):,.0f} tokens/s with batch size {texts}")
    first = [make_decoder(model.to(on), drawn[:1], PROMPT) for on in (device, "cpu")]
    for decoder in first:
        write_with(decoder, PROMPT)
    here, there = (decoder.sequences[0][PROMPT:] for decoder in first)
    print(
        f"{', '.join(rates)}; {sum(a == b for a, b in zip(here, there, strict=True))} of {PROMPT} tokens as on the CPU"
    )


@dataclass(frozen=True)
class Part:
    """One measurement. run: returns the result as text. seconds: the part is left out if less time is left."""

    run: Callable[[Bench], str]
    seconds: int
    what: str


PARTS = {  # run in this order
    "eager": Part(eager, 40, "GPT-2 124M, bf16"),
    "compiled": Part(compiled, 90, "GPT-2 124M, bf16, compiled"),
    "nanogpt": Part(nanogpt, 90, "nanoGPT, compiled"),
    "resume": Part(resume, 50, "exact resume"),
    "memory": Part(full_memory, 30, "error when the memory is full"),
    "muon": Part(muon, 40, "GPT-2 124M, Muon"),
    "generation": Part(generation, 30, "generation"),
}


class Skipped(Exception):
    """A part cannot run here; the message is the reason."""


class Failed(Exception):
    """A part gave an unexpected result; the message describes it."""


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {done.returncode}"


def guarded(part: Part, bench: Bench) -> tuple[str, str]:
    """Run a part; return its status and its result or the reason for the failure."""
    if bench.left < part.seconds * (0.2 if bench.small else 1):
        return "left out", f"only {bench.left:.0f} s left"
    try:
        return "done", part.run(bench)
    except Skipped as why:
        return "skipped", str(why)
    except subprocess.TimeoutExpired:
        return "failed", "did not finish in the remaining time"
    except (Exception, SystemExit) as error:  # a failed part gives a row; the next part runs
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return "failed", lines[-1]


# ------------------------------------------------------------------------------- the program


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", type=_clone, metavar="PATH", help="a clone of nanoGPT (default: skip this part)")
    p.add_argument("--shakespeare", type=_file, metavar="FILE", help="training text (default: the Python manual)")
    p.add_argument("--only", default=",".join(PARTS), help="parts to run (default: %(default)s)")
    p.add_argument("--minutes", type=float, default=8, help="total time of all parts (default: %(default)s)")
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: %(default)s")
    p.add_argument("--small", action="store_true", help="tiny models, to test this program without a GPU")
    p.add_argument("--write-on", choices=["cuda", "cpu"], help=argparse.SUPPRESS)
    record.add_option(p, "gpu")
    options = p.parse_args()
    if unknown := set(options.only.split(",")) - set(PARTS):
        p.error(f"--only={','.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    return options


def main() -> None:
    options = arguments()
    if options.write_on:
        write(options.write_on, options.small)
        return
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-", ignore_cleanup_errors=True) as scratch:
        text = options.shakespeare or _manual(Path(scratch))
        bench = Bench(options.device, options.small, text, options.nanogpt, Path(scratch), seconds=60 * options.minutes)
        show(_rows(options, bench))
    print(options.json)


def _rows(options: argparse.Namespace, bench: Bench) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in options.only.split(","):
        part, begin = PARTS[name], time.monotonic()
        print(f"{part.what} …", file=sys.stderr, flush=True)
        status, found = guarded(part, bench)
        seconds = round(time.monotonic() - begin, 1)
        rows.append({"part": name, "what": part.what, "status": status, "found": found, "seconds": seconds})
        steps = {key: vars(timed) for key, timed in bench.steps.items()}
        record.save(options.json, {"rows": rows, "steps": steps, "small": bench.small}, bench.device, quiet=True)
    return rows


def _manual(place: Path) -> Path:
    from pydoc_data.topics import topics

    (place / "text.txt").write_text("\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    return place / "text.txt"


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("part", "result", "seconds")
    for row in rows:
        found = row["found"] if row["status"] == "done" else f"{row['status']}: {row['found']}"
        table.add_row(row["what"], found, f"{row['seconds']:.0f}")
    Console(markup=False).print(table)


if __name__ == "__main__":
    main()
