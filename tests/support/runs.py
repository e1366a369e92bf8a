"""A small text, tiny settings, and commands run like those of a user."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil

from support import child_processes

SENTENCES = [
    "The baker counts her loaves before the sun is up.",
    "A grey cat sleeps on the warm oven, as cats do!",
    "“Who took the seventh loaf?” she asks — and nobody answers.",
    "Outside, the café opens; eight bells, nine crows, no thief in sight.",
]


def story(lines: int) -> str:
    """A text that repeats itself with small changes, so that a tiny model can learn from it."""
    return "\n".join(f"{SENTENCES[i * i % 4]} ({i % 7})" for i in range(lines)) + "\n"


TINY = [
    "data=text",
    "data.val_bytes=600",
    "data.global_batch_size=4",
    "model.block_size=16",
    "trainer=cpu",
    "trainer.max_steps=2",
    "trainer.val_every_steps=2",
    "trainer.log_every_steps=1",
    "callbacks.samples.tokens=4",
]
TINY_GPT = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16"]


def command(
    module: str, *arguments: str, cwd: Path, timeout: float = 300, quick: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `python -m gptexp.<module>` like a user, in a child of a process that has already imported everything.

    quick: its ranks and other commands that it starts are such children too.
    """
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    run = child_processes.run_quick if quick else child_processes.run
    done = run(f"gptexp.{module}", *arguments, cwd=cwd, timeout=timeout, env=env)
    return subprocess.CompletedProcess([module, *arguments], done.code, done.out, done.err)


def processes(word: str) -> list[psutil.Process]:
    """The processes with this word on their command line, without those that end in the meantime."""
    found = psutil.process_iter(["cmdline", "cwd", "environ"])
    return [p for p in found if word in (p.info["cmdline"] or []) and p.info["cwd"] and p.info["environ"]]
