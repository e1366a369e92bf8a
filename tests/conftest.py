"""What the tests share: a small text of our own, and a run trained on it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import children

# Several test processes share the cores; without this each would start a thread for every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

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


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory that holds story.txt."""
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train_here(workplace: Path) -> Callable[..., dict[str, Any]]:
    """Train in this process: overrides in, result.json out; the run's folder is ./<folder>."""

    def run(*overrides: str, folder: str = "run") -> dict[str, Any]:
        from gptexp.compose.composition import compose
        from gptexp.training.experiment import run_experiment as run_job

        config = compose([*TINY, "data.path=story.txt", *overrides])
        run_job(config, Path(folder))
        return json.loads((workplace / folder / "result.json").read_text(encoding="utf-8"))

    return run


def command(module: str, *arguments: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run `python -m gptexp.<module>` as a user would, in a child of a process that has made its imports already."""
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    done = children.run(f"gptexp.{module}", *arguments, cwd=cwd, timeout=timeout, env=env)
    return subprocess.CompletedProcess([module, *arguments], done.code, done.out, done.err)


def processes(word: str) -> list[psutil.Process]:
    """The processes that run with this word on their command line; those that end meanwhile are left out."""
    found = psutil.process_iter(["cmdline", "cwd", "environ"])
    return [p for p in found if word in (p.info["cmdline"] or []) and p.info["cwd"] and p.info["environ"]]
