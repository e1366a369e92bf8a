"""Each option of Muon is what its paper states, computed again in NumPy, and can be resumed and sharded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gptexp.config.model import GPTConfig, MLPConfig
from gptexp.config.optimizer import MuonConfig
from gptexp.models.gpt import GPT
from gptexp.models.mlp import MLP
from gptexp.training.optimizer_state import load_named_optimizer_state, named_optimizer_state
from gptexp.training.optimizers import build_optimizer

Array = NDArray[np.float64]

OPTIONS: list[dict[str, Any]] = [
    {},
    {"split_qkv": True},
    {"normuon": True},
    {"normuon": True, "split_qkv": True},
]
C_ATTN = "transformer.h.0.attn.c_attn.weight"
HEIGHTS = (8, 4, 4)  # of queries, keys and values in the model below
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def model(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    config = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=8, block_size=4, bias=False, mlp_ratio=2)
    return GPT(config, 7).to(torch.float64)


def train(network: GPT, config: MuonConfig, steps: range, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make steps with given gradients from a state; return the state after them."""
    optimizer = build_optimizer(network, config, 0.1)
    if state is not None:
        load_named_optimizer_state(network, optimizer, state)
    for step in steps:
        for (name, parameter), gradient in zip(network.named_parameters(), gradients(network, step), strict=True):
            assert parameter.shape == gradient.shape, name
            parameter.grad = gradient
        optimizer.step()
    return named_optimizer_state(network, optimizer)


def gradients(network: GPT, step: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=draw, dtype=torch.float64) for p in network.parameters()]


def orthogonal(matrix: Array, iterations: list[tuple[float, float, float]]) -> Array:
    """The polynomials of an iteration, applied to the singular values."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / math.sqrt((s**2).sum())
    for a, b, c in iterations:
        s = a * s + b * s**3 + c * s**5
    result: Array = (u * s) @ v
    return result


def equal_rows(update: Array, squares: Array) -> Array:
    result: Array = update / np.sqrt(squares)[:, None]
    result *= np.linalg.norm(update) / np.linalg.norm(result)
    return result


class Reference:
    """Muon's updates of one matrix in NumPy."""

    def __init__(self, config: MuonConfig, heights: tuple[int, ...], weight: Array) -> None:
        self.config, self.heights, self.weight = config, heights, weight
        self.average, self.rows = np.zeros_like(weight), np.zeros(len(weight))

    def step(self, gradient: Array, lr: float) -> None:
        config = self.config
        self.average += (1 - config.momentum) * (gradient - self.average)
        ahead = gradient + config.momentum * (self.average - gradient)
        ends = np.cumsum(self.heights)[:-1]
        update = np.concatenate([self.update(part) for part in np.split(ahead, ends)])
        if config.normuon:
            self.rows += (1 - config.beta2) * ((update**2).mean(axis=1) - self.rows)
            parts = zip(np.split(update, ends), np.split(self.rows, ends), strict=True)
            update = np.concatenate([equal_rows(part, rows) for part, rows in parts])
        self.weight = self.weight - lr * (config.weight_decay * self.weight + update)

    def update(self, part: Array) -> Array:
        iterations = [NEWTON_SCHULZ] * self.config.ns_steps
        return 0.2 * math.sqrt(max(part.shape)) * orthogonal(part, iterations)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_option_equals_its_reference_in_numpy(options: dict[str, Any]) -> None:
    config, network = MuonConfig(weight_decay=0.5, beta2=0.8, **options), model()
    hidden = {name: p for name, p in network.named_parameters() if ".h." in name and p.ndim == 2}
    references = {
        name: Reference(
            config,
            HEIGHTS if "c_attn" in name and config.split_qkv else (len(parameter),),
            parameter.detach().numpy().copy(),
        )
        for name, parameter in hidden.items()
    }
    for step in range(4):
        for (name, _), gradient in zip(network.named_parameters(), gradients(network, step), strict=True):
            if name in references:
                references[name].step(gradient.numpy(), 0.1)
    train(network, config, range(4))
    for name, parameter in hidden.items():
        np.testing.assert_allclose(
            parameter.detach().numpy(), references[name].weight, rtol=1e-7, atol=1e-8, err_msg=name
        )


@pytest.mark.parametrize("options", OPTIONS[1:], ids=str)
def test_each_option_changes_hidden_matrices_only(options: dict[str, Any]) -> None:
    plain, other = model(), model()
    train(plain, MuonConfig(), range(3))
    train(other, MuonConfig(**options), range(3))
    changed = {
        name
        for (name, one), two in zip(plain.named_parameters(), other.parameters(), strict=True)
        if not torch.equal(one, two)
    }
    expected = {name for name, parameter in plain.named_parameters() if ".h." in name and parameter.ndim == 2}
    assert changed == ({name for name in expected if "c_attn" in name} if set(options) == {"split_qkv"} else expected)


@pytest.mark.parametrize("options", OPTIONS[1:], ids=str)
def test_training_with_an_option_resumes_bitwise(options: dict[str, Any]) -> None:
    config, straight, resumed = MuonConfig(**options), model(), model(seed=1)
    state = train(straight, config, range(3))
    resumed.load_state_dict(straight.state_dict())
    whole = train(straight, config, range(3, 5), state)
    rest = train(resumed, config, range(3, 5), {name: dict(reversed(values.items())) for name, values in state.items()})
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    assert all(torch.equal(value, rest[name][key]) for name, values in whole.items() for key, value in values.items())


def test_split_qkv_refuses_a_model_without_attention() -> None:
    network = MLP(MLPConfig(n_embd=4, n_hidden=8), 7)
    with pytest.raises(ValueError, match=r"optimizer.split_qkv=true: model=mlp has no attention; use .*=false"):
        build_optimizer(network, MuonConfig(split_qkv=True), 0.01)
