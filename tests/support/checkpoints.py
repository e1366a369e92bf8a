"""A checkpoint of a tiny model."""

from __future__ import annotations

from typing import Any

from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.models.build import build_model
from gptexp.models.weights import model_tensors
from gptexp.runs.checkpoint import Checkpoint

SMALL = ["model.n_layer=1", "model.n_head=2", "model.n_embd=8", "model.block_size=8", "model.position=learned"]


def small_checkpoint(step: int = 3, **changes: Any) -> Checkpoint:
    config = compose([*SMALL, "tokenizer=byte"])
    model = build_model(config.model, 257, seed=step)
    values: dict[str, Any] = {
        "step": step,
        "model": model_tensors(model),
        "optimizer": {},
        "config": to_plain(config),
        "tokenizer": {"kind": "byte"},
        "data": {"fingerprint": "f", "text_sha256": "t"},
        "metrics": {"last": None, "best": None},
    }
    return Checkpoint(**{**values, **changes})
