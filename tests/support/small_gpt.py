"""A small GPT and its inputs, for tests of the models."""

from __future__ import annotations

from typing import Any

import torch

from gptexp.config.model import GPTConfig
from gptexp.models.gpt import GPT

V = 11
SMALL: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8}


def small(**settings: Any) -> GPTConfig:
    return GPTConfig(**{**SMALL, **settings})


def build(config: GPTConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> GPT:
    """A model with weights that are large enough for every setting to change its output."""
    torch.manual_seed(seed)
    model = GPT(config, V).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(7))
