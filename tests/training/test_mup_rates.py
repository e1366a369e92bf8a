"""muP's learning rates: the first steps change outputs by the same amount at every width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gptexp.config import CharConfig, Config, CosineConfig, LMConfig, OptimizerConfig, PydocsConfig
from gptexp.config.finetune import FinetuneConfig, LoRAConfig
from gptexp.config.model import GPTConfig, Parametrization
from gptexp.config.optimizer import AdamWConfig, MuonConfig
from gptexp.models.gpt import GPT
from gptexp.models.lora import adapt
from gptexp.training.optimizers import build_optimizer

V = 16
OPTIMIZERS = [AdamWConfig(weight_decay=0.1), MuonConfig(weight_decay=0.1)]


def test_mup_refuses_optimizers_whose_rates_it_does_not_know() -> None:
    parts: dict[str, Any] = {
        "tokenizer": CharConfig(),
        "data": PydocsConfig(),
        "objective": LMConfig(),
        "schedule": CosineConfig(),
    }
    model = GPTConfig(parametrization=Parametrization.mup)
    with pytest.raises(ValueError, match=r"^model\.parametrization=mup: needs optimizer=adamw or optimizer=muon"):
        Config(model=model, optimizer=OptimizerConfig(), finetune=FinetuneConfig(), **parts)


def gpt(n_embd: int, parametrization: str = "mup", **settings: Any) -> GPT:
    torch.manual_seed(0)
    given: dict[str, Any] = {"n_layer": 2, "n_head": 2, "block_size": 8, "base_width": 32, "bias": False, **settings}
    return GPT(GPTConfig(n_embd=n_embd, parametrization=Parametrization[parametrization], **given), V)


def train(model: GPT, config: AdamWConfig, steps: int = 3) -> float:
    """Train on the same tokens; return the RMS of the change of the logits."""
    tokens = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    optimizer, x = build_optimizer(model, config, 0.01), tokens[:, :-1]
    before = model(x).detach()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x).flatten(0, 1), tokens[:, 1:].flatten()))
        optimizer.step()
    return float((model(x) - before).detach().square().mean().sqrt())


@pytest.mark.parametrize("config", OPTIMIZERS, ids=["adamw", "muon"])
def test_first_steps_at_base_width_are_bitwise_those_of_standard(config: AdamWConfig) -> None:
    models = [gpt(32, parametrization) for parametrization in ("mup", "standard")]
    changes = [train(model, config) for model in models]
    assert changes[0] == changes[1] > 0
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("config", OPTIMIZERS, ids=["adamw", "muon"])
def test_logits_change_equally_at_all_widths_with_mup_only(config: AdamWConfig, tied: bool) -> None:
    def growth(parametrization: str) -> float:
        changes = [train(gpt(width, parametrization, tie_weights=tied), config) for width in (32, 64, 128)]
        return max(changes) / min(changes)

    mup, standard = growth("mup"), growth("standard")
    assert mup < 1.3
    assert standard > 2


@pytest.mark.parametrize(("config", "factor"), [(OPTIMIZERS[0], 0.25), (OPTIMIZERS[1], 0.5)], ids=["adamw", "muon"])
def test_only_rates_of_hidden_matrices_depend_on_the_width(config: AdamWConfig, factor: float) -> None:
    model = gpt(128, tie_weights=False)
    rates = {p: g for g in build_optimizer(model, config, 0.01).param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        hidden = ".h." in name and parameter.ndim == 2
        assert rates[parameter]["peak_lr"] == pytest.approx(0.01 * (factor if hidden else 1)), name
        decay = rates[parameter]["peak_lr"] * rates[parameter]["weight_decay"]
        assert decay == pytest.approx(0.001 if parameter.ndim == 2 else 0), name


def test_only_the_first_factor_of_an_adapter_has_the_rate_of_mup() -> None:
    model = gpt(128, tie_weights=False, n_layer=1)
    adapt(model, LoRAConfig(rank=2, targets=["c_attn", "lm_head"]), seed=0)
    rates = {p: g["peak_lr"] for g in build_optimizer(model, AdamWConfig(), 0.01).param_groups for p in g["params"]}
    found = {n.removeprefix("transformer.h.0."): rates[p] for n, p in model.named_parameters() if p in rates}
    assert found == pytest.approx(
        {"attn.c_attn.lora_A": 0.0025, "attn.c_attn.lora_B": 0.01, "lm_head.lora_A": 0.01, "lm_head.lora_B": 0.01}
    )
