"""The length of a run: resolved to a number of steps once, before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.runs.opening import load
from gptexp.training.experiment import run_experiment
from support.runs import TINY, TINY_GPT

Train = Callable[..., dict[str, Any]]


def weights(folder: str) -> dict[str, Any]:
    return {name: value.tolist() for name, value in load(Path(folder) / "checkpoints/last.ckpt").model.items()}


def test_a_resolution_replaces_the_steps_of_the_settings(train_here: Train) -> None:
    given = train_here(*TINY_GPT, "trainer.max_steps=5", folder="given")
    config = compose([*TINY, *TINY_GPT, "data.path=story.txt", "trainer.max_steps=9"])
    result = run_experiment(config, Path("resolved"), steps=5)
    assert given["length"] == {"asked": {"max_steps": 5}, "max_steps": 5}
    assert result.length == {"asked": {"max_steps": 9}, "max_steps": 5}
    assert result.steps == 5
    assert result.metrics == given["metrics"]
    assert weights("resolved") == weights("given")
    assert load(Path("resolved/checkpoints/last.ckpt")).config["trainer"] == to_plain(config)["trainer"]
