"""What a GPU does with gptexp, in one table and at most eight minutes.

    python benchmarks/gpu.py [--nanogpt PATH] [--shakespeare FILE] [--only eager,compiled,…] [--minutes 8]
    python benchmarks/gpu.py --device cpu --small      # the same parts at toy sizes, to try the program itself

GPT-2 124M in bf16 at T 1024, twelve windows a step, with and without torch.compile and with Muon, beside nanoGPT's own
command where a clone is given; an exact resume; the error of a full memory; generation. Each part runs as processes of
its own: one that fails is a row that says why. A part that no time is left for is named and left out. The figures are
written after each part, so that an end from outside loses none.
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
from against_nanogpt import ON_GPU, Timed, Work, _clone, _file, adopted, ours, theirs
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
    """What the parts share. begun: as time.monotonic says it."""

    device: str
    small: bool
    text: Path
    nanogpt: Path | None
    scratch: Path
    seconds: float
    begun: float = field(default_factory=time.monotonic)
    steps: dict[str, Timed] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.seconds - (time.monotonic() - self.begun)

    @property
    def work(self) -> Work:
        return SMALL_WORK if self.small else ON_GPU["gpt2"]

    def train(self, name: str, *overrides: str, compiled: bool) -> str:
        """Our command's steps, kept by name."""
        settings = [*self.work.ours["same"], *overrides]
        self.steps[name] = ours(
            self.work, settings, self.text, self.scratch, self.device, compiled=compiled, timeout=self.left
        )
        return self.said(self.steps[name])

    def said(self, timed: Timed) -> str:
        rate = 1000 * self.work.batch * self.work.block / timed.ms
        mfu = f", MFU {timed.mfu:.1%}" if timed.mfu else ""
        return f"{timed.ms:,.1f} ms a step, {rate:,.0f} tokens/s{mfu}, last loss {timed.loss:.3f}"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A Python program, ended where the time is."""
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=self.scratch, capture_output=True, text=True, check=False, timeout=max(1, self.left)
        )


# ------------------------------------------------------------------------------- parts


def eager(bench: Bench) -> str:
    return bench.train("eager", compiled=False)


def compiled(bench: Bench) -> str:
    said = bench.train("compiled", compiled=True)
    before = bench.steps.get("eager")
    return said + (f", {before.ms / bench.steps['compiled'].ms:.2f} times as fast as without" if before else "")


def muon(bench: Bench) -> str:
    said = bench.train("muon", "optimizer=muon", compiled=False)
    before = bench.steps.get("eager")
    return said + (f", {bench.steps['muon'].ms - before.ms:+,.1f} ms beside AdamW" if before else "")


def nanogpt(bench: Bench) -> str:
    """Its own command on the same text, compiled on a GPU as ours is in `compiled`."""
    if bench.nanogpt is None:
        raise Skipped("give --nanogpt PATH, a clone of it")
    copy = adopted(bench.nanogpt, bench.text, bench.scratch / "nanogpt")
    bench.steps["nanogpt"] = timed = theirs(bench.work, copy, bench.device, max(1, bench.left))
    same = bench.steps.get("compiled")
    if same is None:
        return bench.said(timed)
    timed = replace(timed, mfu=same.mfu and same.mfu * same.ms / timed.ms)  # of the same FLOPs
    return f"{bench.said(timed)}; gptexp compiled takes {same.ms / timed.ms:.2f} of its time"


def resume(bench: Bench) -> str:
    trainer = "trainer=gpu" if bench.device == "cuda" else "trainer=cpu"
    size = SMALL if bench.small else []
    settings = [*size, *RESUMED, trainer, f"data.path={bench.text}", "data.val_bytes=4096"]
    done = bench.run("-m", "gptexp.verify_resume", "--steps", "20", "--kill-at", "9", *settings)
    if done.returncode:
        raise Failed(_last_line(done))
    return done.stdout.splitlines()[-1]


def full_memory(bench: Bench) -> str:
    """A GPU's memory is filled by activations; a CPU's isn't: there a model that can't fit is refused."""
    if bench.device == "cuda":
        sizes, names = (
            ["data.global_batch_size=16384", "data.micro_batch_size=16384", "trainer=gpu"],
            "micro_batch_size",
        )
    else:
        sizes, names = ["model.n_layer=96", "model.n_head=128", "model.n_embd=65536", "trainer=cpu"], "GiB"
    fixed = [f"data.path={bench.text}", "data.val_bytes=4096", "trainer.compile=false", "trainer.max_steps=2"]
    done = bench.run("-m", "gptexp.train", *bench.work.ours["same"], *sizes, *fixed)
    said = _last_line(done)
    if done.returncode != 2 or not said.startswith("error: ") or names not in said:
        raise Failed(f"exit code {done.returncode}: {said}")
    return said


def generation(bench: Bench) -> str:
    done = bench.run(__file__, "--write-on", bench.device, *(["--small"] if bench.small else []))
    if done.returncode:
        raise Failed(_last_line(done))
    return done.stdout.strip()


def write(device: str, small: bool) -> None:
    """Greedy in float32 with a cache; then the same on the CPU, for its tokens."""
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
        for n in (2, WRITTEN):  # the first to warm up
            decoder, begin = make_decoder(model, drawn[:texts], n), time.perf_counter()
            write_with(decoder, n)
        rates.append(f"{texts * WRITTEN / (time.perf_counter() - begin):,.0f} tokens/s for {texts} side by side")
    first = [make_decoder(model.to(on), drawn[:1], PROMPT) for on in (device, "cpu")]
    for decoder in first:
        write_with(decoder, PROMPT)
    here, there = (decoder.sequences[0][PROMPT:] for decoder in first)
    print(
        f"{', '.join(rates)}; {sum(a == b for a, b in zip(here, there, strict=True))} of {PROMPT} tokens as on the CPU"
    )


@dataclass(frozen=True)
class Part:
    """run: what it found, in words. seconds: below so many it isn't begun."""

    run: Callable[[Bench], str]
    seconds: int
    what: str


PARTS = {  # in this order
    "eager": Part(eager, 40, "GPT-2 124M, bf16"),
    "compiled": Part(compiled, 90, "the same, compiled"),
    "nanogpt": Part(nanogpt, 90, "nanoGPT, compiled"),
    "resume": Part(resume, 50, "exact resume"),
    "memory": Part(full_memory, 30, "a full memory"),
    "muon": Part(muon, 40, "GPT-2 124M, Muon"),
    "generation": Part(generation, 30, "generation"),
}


class Skipped(Exception):
    """A part that can't be run here; the text says why."""


class Failed(Exception):
    """A part that didn't find what it should; the text says what instead."""


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {done.returncode}"


def guarded(part: Part, bench: Bench) -> tuple[str, str]:
    """How the part ended, and what it found or why it didn't."""
    if bench.left < part.seconds * (0.2 if bench.small else 1):
        return "left out", f"{bench.left:.0f} s were left"
    try:
        return "done", part.run(bench)
    except Skipped as why:
        return "skipped", str(why)
    except subprocess.TimeoutExpired:
        return "failed", "was not done in the time that was left"
    except (Exception, SystemExit) as error:  # one part is a row, and not the end
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return "failed", lines[-1]


# ------------------------------------------------------------------------------- the program


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", type=_clone, metavar="PATH", help="a clone of nanoGPT; without it that part is skipped")
    p.add_argument("--shakespeare", type=_file, metavar="FILE", help="the text; default: topics of Python's manual")
    p.add_argument("--only", default=",".join(PARTS), help="which parts (default: %(default)s)")
    p.add_argument("--minutes", type=float, default=8, help="of all parts together (default: %(default)s)")
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: %(default)s")
    p.add_argument("--small", action="store_true", help="toy sizes, to try the program where no GPU is")
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
    table = Table("part", "found", "seconds")
    for row in rows:
        found = row["found"] if row["status"] == "done" else f"{row['status']}: {row['found']}"
        table.add_row(row["what"], found, f"{row['seconds']:.0f}")
    Console(markup=False).print(table)


if __name__ == "__main__":
    main()
