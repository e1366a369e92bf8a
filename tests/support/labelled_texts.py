"""Small labelled texts, and settings of classifiers and masked language models that learn from them."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptexp.compose.composition import compose
from gptexp.config.data import LabelledConfig
from gptexp.config.model import GPTConfig

GLAD, SAD = ("good", "lovely", "warm", "bright"), ("bad", "awful", "cold", "dull")
THINGS = ("bread", "soup", "room", "song", "walk")
TINY = [
    "trainer=cpu",
    "trainer.log_every_steps=5",
    "callbacks.samples.tokens=0",
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=32",
    "model.block_size=32",
]
CLASSIFY = [*TINY, "objective=classification", "data=labelled", "data.path=texts.csv", "data.global_batch_size=16"]
MLM = [*TINY, "objective=mlm", "data=text", "data.path=story.txt", "data.val_bytes=500", "trainer.max_steps=4"]
Train = Callable[..., dict[str, Any]]


def sentences(n: int, seed: int = 0, share: float = 0.5) -> list[tuple[str, str]]:
    """Sentences whose label is determined by one of their words."""
    draw = random.Random(seed)
    labels = ["glad" if draw.random() < share else "sad" for _ in range(n)]
    return [(_sentence(draw, GLAD if label == "glad" else SAD), label) for label in labels]


def _sentence(draw: random.Random, words: tuple[str, ...]) -> str:
    return f"The {draw.choice(THINGS)} {draw.randrange(100)} was {draw.choice(words)}."


def write_csv(path: str, rows: list[tuple[Any, Any]], columns: tuple[str, str] = ("text", "label")) -> None:
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def labelled_settings(*overrides: str) -> LabelledConfig:
    """The settings `data` of CLASSIFY with these overrides."""
    data = compose([*CLASSIFY, *overrides]).data
    assert isinstance(data, LabelledConfig)
    return data


def gpt_settings(*overrides: str) -> GPTConfig:
    """The settings `model` of TINY with these overrides."""
    model = compose([*TINY, *overrides]).model
    assert isinstance(model, GPTConfig)
    return model
