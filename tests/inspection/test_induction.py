"""The known result: a model of two layers learns an induction head from repeated random tokens, one of one layer none.

Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits") and Olsson et al. 2022 (arXiv 2209.11895): a
head of the first layer attends to the token before, and one of the second layer uses it.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gptexp.config.model import GPTConfig, Position
from gptexp.inspection.heads import scores
from gptexp.inspection.trace import trace
from gptexp.models.gpt import GPT

V, T, STEPS = 16, 48, 350


def repeated(batch: int) -> Tensor:
    """Random tokens (batch, T), repeated after 5 to 12 of them, so that no fixed distance leads back to them."""
    return torch.randint(V, (batch, T)).gather(1, torch.arange(T) % torch.randint(5, 13, (batch, 1)))


def trained(n_layer: int) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        n_layer=n_layer, n_head=2, n_embd=32, block_size=T, mlp_ratio=0, position=Position.rope, tie_weights=False
    )
    model = GPT(config, V)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data *= 5  # GPT-2's initial weights are small for this width
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95))
    for _ in range(STEPS):
        tokens = repeated(32)
        loss = model(tokens[:, :-1], targets=tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def best(model: GPT, layer: int, name: str) -> float:
    """The highest score of a head of this layer, on tokens that repeat after 16, which training never did."""
    tokens = torch.randperm(V, generator=torch.Generator().manual_seed(1)).repeat(2)
    found = scores(trace(model, tokens).layers[layer].weights, tokens)[name]
    assert found is not None
    return float(found.max())


@pytest.mark.slow
def test_only_a_model_of_two_layers_learns_an_induction_head() -> None:
    one, two = trained(1), trained(2)
    assert best(two, 1, "induction") > 0.5
    assert best(two, 0, "previous") > 0.5
    assert best(one, 0, "induction") < 0.3
