"""The learning rates of all kinds of parameters are logged if they differ."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.compose.composition import compose
from gptexp.config import Config
from gptexp.models.build import build_on_meta, plain_model
from gptexp.training.rates import peak_rates
from support.runs import TINY, TINY_GPT

ADAMW = ["optimizer=adamw"]
MUP = ["model.parametrization=mup", "model.base_width=4", "model.n_embd=16", "optimizer.lr=0.01"]


def rates(*settings: str) -> dict[str, float]:
    config: Config = compose([*TINY, *TINY_GPT, "data.path=story.txt", *settings])
    return peak_rates(build_on_meta(lambda: plain_model(config.model, 11), config.finetune, "model"), config)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_rate_for_all_parameters_is_only_lr(workplace: Path, optimizer: str) -> None:
    assert rates(f"optimizer={optimizer}") == {}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ["optimizer=muon", "optimizer.lr=0.01", "optimizer.muon_lr=0.02", "optimizer.scalar_lr=0.04"],
            {"lr/hidden": 0.02, "lr/embedding": 0.01, "lr/scalar": 0.04},
        ),
        (
            [
                *ADAMW,
                "model.tie_weights=false",
                "optimizer.lr=0.01",
                "optimizer.embedding_lr=0.2",
                "optimizer.head_lr=0.3",
            ],
            {"lr/embedding": 0.2, "lr/head": 0.3, "lr/hidden": 0.01, "lr/scalar": 0.01},
        ),
        ([*MUP, *ADAMW], {"lr/embedding": 0.01, "lr/hidden": 0.0025, "lr/scalar": 0.01}),
        ([*MUP, "optimizer=muon"], {"lr/embedding": 0.01, "lr/hidden": 0.005, "lr/scalar": 0.01}),
    ],
    ids=["muon", "own", "mup", "mup muon"],
)
def test_kinds_of_parameters_have_the_rates_of_their_groups(
    workplace: Path, settings: list[str], expected: dict[str, float]
) -> None:
    assert rates(*settings) == pytest.approx(expected)


def test_each_logged_step_has_the_rates_of_its_groups(train_here: Callable[..., Any], workplace: Path) -> None:
    train_here(*TINY_GPT, *MUP, *ADAMW, "schedule=wsd", "schedule.warmup_steps=2", "trainer.max_steps=4")
    with Path("run/metrics.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [float(row["lr/embedding"]) for row in found] == [float(row["lr"]) for row in found]
    assert [float(row["lr/hidden"]) * 4 for row in found] == pytest.approx([float(row["lr"]) for row in found])
    assert float(found[0]["lr"]) < float(found[2]["lr"]) == 0.01
