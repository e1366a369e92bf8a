"""callbacks.activations measures the model and leaves training bitwise unchanged."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gptexp.compose.composition import compose
from gptexp.config.training import ACTIVATIONS
from gptexp.runs.opening import load
from gptexp.training.build import build_experiment
from support.runs import TINY, TINY_GPT

SETTINGS = [*TINY_GPT, "model.dropout=0.1", "data.micro_batch_size=2", "tokenizer=byte"]


def test_activations_are_logged_and_training_is_bitwise_unchanged(
    train_here: Callable[..., dict[str, Any]], workplace: Path
) -> None:
    plain = train_here(*SETTINGS, folder="plain")
    seen = train_here(*SETTINGS, "callbacks.activations=true", folder="seen")
    assert seen["metrics"] == plain["metrics"]
    weights = [load(workplace / folder / "checkpoints/last.ckpt").model for folder in ("plain", "seen")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    rows = list(csv.DictReader((workplace / "seen/metrics.csv").open(encoding="utf-8", newline="")))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(float(row[name]) > 0 for row in rows for name in ACTIVATIONS)
    assert float(rows[0]["activation/embedding"]) == pytest.approx(0.02, rel=0.1)  # of the initial wte
    assert "activation" not in (workplace / "plain/metrics.csv").read_text(encoding="utf-8")


def test_stored_activations_are_those_of_the_first_micro_batch_in_eval_mode(
    train_here: Callable[..., dict[str, Any]], workplace: Path
) -> None:
    train_here(*SETTINGS, "callbacks.activations=true", "trainer.max_steps=1", "trainer.val_every_steps=1")
    row = next(csv.DictReader((workplace / "run/metrics.csv").open(encoding="utf-8", newline="")))
    config = compose([*TINY, "data.path=story.txt", *SETTINGS])
    experiment = build_experiment(config, workplace / "again", console=Console(quiet=True))
    tokens = experiment.datamodule.batches_of(1)[0]["tokens"][:2]
    with torch.no_grad():
        logits = experiment.model.eval()(tokens)
    assert float(row["activation/logits"]) == pytest.approx(float(logits.square().mean().sqrt()), rel=1e-5)


def test_activations_need_a_gpt(workplace: Path) -> None:
    with pytest.raises(ValueError, match=r"callbacks\.activations=true: needs a model of kind gpt, and it is bigram"):
        compose([*TINY, "data.path=story.txt", "model=bigram", "callbacks.activations=true"])
