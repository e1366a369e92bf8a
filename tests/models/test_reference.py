"""The model equals a second, independent implementation."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from gptexp.config.model import (
    Activation,
    BigramConfig,
    GPTConfig,
    Norm,
    NormPosition,
    Parametrization,
    Position,
)
from gptexp.models.gpt import GPT
from gptexp.models.reference import logits

V = 17
KINDS = [*product(Position, Norm, NormPosition, [True, False])]
OTHERS = [
    *({"activation": activation} for activation in Activation),
    {"n_kv_head": 1},
    {"n_kv_head": 2, "qk_norm": True, "position": Position.rope},
    {"qk_norm": True},
    {"qk_norm": True, "qk_norm_gain": True, "n_kv_head": 1, "position": Position.rope, "rope_theta": 50.0},
    {"norm_eps": 0.3},
    {"norm_eps": 0.3, "norm": Norm.rmsnorm},
    {"mlp_ratio": 0.0},
    {"mlp_ratio": 2.7},
    {"tie_weights": False},
    {"residual": False},
    {"n_head": 6, "position": Position.alibi},
    {"n_head": 4, "n_embd": 12, "position": Position.sinusoidal},
    {"n_head": 1, "n_embd": 7, "position": Position.sinusoidal},
    {"dropout": 0.5, "attn_dropout": 0.5},
    {"ngram": 4, "ngram_rows": 50},
    {"ngram": 2, "n_embd": 8, "norm_position": NormPosition.post},
    {"window": "SL", "n_layer": 4},
    {"window": "S", "window_size": 2, "position": Position.alibi, "n_kv_head": 1},
    {"parametrization": Parametrization.mup, "base_width": 8},
    {"parametrization": Parametrization.mup, "base_width": 8, "position": Position.sinusoidal, "qk_norm": True},
    {"parametrization": Parametrization.mup, "base_width": 48, "base_head_dim": 6, "tie_weights": False},
]


def both(settings: dict[str, Any], dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    config = GPTConfig(**{"n_layer": 2, "n_head": 4, "n_embd": 24, "block_size": 9, **settings})
    model = GPT(config, V).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    tokens = torch.randint(V, (8,))
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    return model(tokens[None])[0].detach().numpy(), logits(weights, config, tokens.numpy())


@pytest.mark.parametrize(("position", "norm", "norm_position", "bias"), KINDS)
def test_reference_equals_torch_for_every_position_and_norm(
    position: Position, norm: Norm, norm_position: NormPosition, bias: bool
) -> None:
    settings = {"position": position, "norm": norm, "norm_position": norm_position, "bias": bias}
    ours, reference = both(settings, torch.float64)
    np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", OTHERS, ids=str)
def test_reference_equals_torch_for_every_other_setting(settings: dict[str, Any]) -> None:
    ours, reference = both(settings, torch.float64)
    np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-10)


def test_the_reference_keeps_float32() -> None:
    ours, reference = both({"position": Position.rope}, torch.float32)
    assert reference.dtype == np.float32
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-4)


def test_the_reference_refuses_unsupported_settings() -> None:
    with pytest.raises(ValueError, match=r"model\.kind=bigram"):
        logits({}, BigramConfig(), [1])
    with pytest.raises(ValueError, match=r"10 tokens .* model\.block_size=9"):
        logits({}, GPTConfig(block_size=9), range(10))
