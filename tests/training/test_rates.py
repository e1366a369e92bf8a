"""Embeddings, the output head and scalars have a learning rate of their own if one is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gptexp.compose.composition import compose
from gptexp.config.model import GPTConfig
from gptexp.config.optimizer import AdamWConfig, MuonConfig
from gptexp.models.gpt import GPT
from gptexp.training.optimizer_state import load_named_optimizer_state, named_optimizer_state
from gptexp.training.optimizers import build_optimizer
from gptexp.util.errors import ConfigError

KINDS = [AdamWConfig, MuonConfig]
EMBEDDINGS = {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ngrams.tables.0.weight"}


def model(**settings: Any) -> GPT:
    torch.manual_seed(0)
    given: dict[str, Any] = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 4, "tie_weights": False, **settings}
    return GPT(GPTConfig(ngram=2, ngram_rows=16, **given), 7)


def rates_of(network: nn.Module, config: AdamWConfig) -> dict[str, float]:
    groups = build_optimizer(network, config, 0.01).param_groups
    rates = {p: group["peak_lr"] for group in groups for p in group["params"]}
    return {name: rates[p] for name, p in network.named_parameters()}


def steps(network: GPT, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for step in numbers:
        x = torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(step))
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] / (1 + step)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()))
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_each_role_has_its_rate_and_the_others_have_lr(kind: type[AdamWConfig]) -> None:
    network = model()
    rates = rates_of(network, kind(embedding_lr=0.2, head_lr=0.3, scalar_lr=0.4))
    scalars = {name for name, p in network.named_parameters() if p.ndim < 2}
    assert {name for name, rate in rates.items() if rate == 0.2} == EMBEDDINGS
    assert {name for name, rate in rates.items() if rate == 0.3} == {"lm_head.weight"}
    assert {name for name, rate in rates.items() if rate == 0.4} == scalars
    assert sum(rate == 0.01 for rate in rates.values()) == 4  # the hidden matrices


@pytest.mark.parametrize("kind", KINDS)
def test_without_own_rates_the_groups_are_those_of_gpt2(kind: type[AdamWConfig]) -> None:
    for config in (kind(weight_decay=0), kind(weight_decay=0, embedding_lr=0.01, scalar_lr=0.01)):
        network = model()
        groups = build_optimizer(network, config, 0.01).param_groups[-2:]
        assert [{p.ndim for p in group["params"]} for group in groups] == [{2}, {1}]
        assert [(group["lr"], group["peak_lr"]) for group in groups] == [(0.01, 0.01)] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_own_rates_train_as_one_optimizer_for_each_and_resume_bitwise(kind: type[AdamWConfig]) -> None:
    straight, resumed, plain = model(), model(), model()
    config = kind(embedding_lr=0.02, head_lr=0.003, scalar_lr=0.04, beta1=0.0, beta2=0.0, eps=1e-30, weight_decay=0)
    optimizer, other = build_optimizer(straight, config, 0.01), build_optimizer(resumed, config, 0.01)
    steps(straight, optimizer, range(1))
    changes = {
        name: (a - b).abs().max().item()
        for (name, a), b in zip(straight.named_parameters(), plain.parameters(), strict=True)
    }
    # Without averages, Adam's step is the sign of the gradient times the rate.
    assert changes["transformer.wte.weight"] == pytest.approx(0.02, rel=1e-4)
    assert changes["lm_head.weight"] == pytest.approx(0.003, rel=1e-4)
    assert changes["transformer.ln_f.bias"] == pytest.approx(0.04, rel=1e-4)
    resumed.load_state_dict(straight.state_dict())
    load_named_optimizer_state(resumed, other, named_optimizer_state(straight, optimizer))
    for network, which in ((straight, optimizer), (resumed, other)):
        steps(network, which, range(1, 3))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_a_rate_that_no_trained_parameter_has_is_refused() -> None:
    network = model()
    for p in network.parameters():
        p.requires_grad_(p.ndim >= 2)
    with pytest.raises(ValueError, match=r"optimizer.scalar_lr=0.1: no scalar of model=gpt is trained; use .*=null"):
        build_optimizer(network, AdamWConfig(scalar_lr=0.1), 0.01)


def test_a_rate_of_a_tied_head_is_refused_by_name_unless_there_is_a_classifier() -> None:
    remedy = r"optimizer.head_lr=0.1: is for an output layer with its own matrix; use optimizer.embedding_lr, or "
    with pytest.raises(ConfigError, match=remedy):
        compose(["model=mini_gpt", "optimizer.head_lr=0.1"])
    assert compose(["model=mini_gpt", "model.tie_weights=false", "optimizer.head_lr=0.1"])
    labelled = ["data=labelled", "data.path=t.csv", "objective=classification"]
    assert compose(["model=mini_gpt", *labelled, "optimizer.head_lr=0.1"])
    with pytest.raises(ConfigError, match=r"optimizer.scalar_lr=-1.0: must be above 0 and below 1e\+30"):
        compose(["optimizer.scalar_lr=-1"])
