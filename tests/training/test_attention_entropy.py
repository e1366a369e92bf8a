"""callbacks.attention_entropy measures the attention of a window after each validation."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from gptexp.compose.composition import compose
from gptexp.training.build import build_experiment
from gptexp.training.callbacks.attention_entropy import attention_entropies
from support.runs import TINY, TINY_GPT

SEEN = "callbacks.attention_entropy=true"


def entropies(*settings: str) -> dict[str, float]:
    """Those of a model that attends equally to all tokens that it sees."""
    config = compose([*TINY, "data.path=story.txt", *TINY_GPT, *settings])
    experiment = build_experiment(config, Path("again"), console=Console(quiet=True))
    for name, parameter in experiment.model.named_parameters():
        if "c_attn" in name:
            parameter.data.zero_()
    return attention_entropies(experiment.lit, experiment.datamodule.first_scored())


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ([], range(1, 17)),
        (["model.n_kv_head=1", "model.position=rope"], range(1, 17)),
        (["model.window=S", "model.window_size=4", "model.n_layer=2"], [*range(1, 4), *[4] * 13]),
        (["objective=mlm", "model.dropout=0.5"], [16] * 16),
    ],
    ids=["causal", "grouped", "window", "two-sided"],
)
def test_equal_attention_to_n_tokens_has_log2_n_bits(workplace: Path, settings: list[str], counts: list[int]) -> None:
    expected = float(np.mean(np.log2(list(counts))))
    assert entropies(*settings)["attention_entropy/h.0"] == pytest.approx(expected, abs=1e-5)


def test_entropies_are_logged_at_validations_only(train_here: Callable[..., Any], workplace: Path) -> None:
    settings = ["trainer.max_steps=3", "trainer.val_every_steps=2", "model.n_layer=2"]
    train_here(*TINY_GPT, *settings, SEEN)
    with Path("run/metrics.csv").open(encoding="utf-8", newline="") as file:
        found = {
            int(row["step"]): [row[f"attention_entropy/h.{layer}"] for layer in (0, 1)] for row in csv.DictReader(file)
        }
    assert found[1] == ["", ""]
    assert all(0 < float(bits) < math.log2(16) for step in (2, 3) for bits in found[step])


def test_attention_entropy_needs_a_gpt(workplace: Path) -> None:
    with pytest.raises(ValueError, match=r"^callbacks\.attention_entropy=true: needs a model of kind gpt"):
        compose([*TINY, "data.path=story.txt", "model=mlp", SEEN])
