"""LoRA: low-rank adapters beside frozen weights (Hu et al. 2021, arXiv 2106.09685, section 4.1).

A linear layer keeps its name, weight and bias, and gets two matrices: `c_attn.lora_A` (r, in) and `c_attn.lora_B`
(out, r) beside `c_attn.weight` (out, in). So weights with GPT-2's names still fit, and a checkpoint contains the whole
model. `merged` adds the adapters to the weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gptexp.config.conversion import from_plain
from gptexp.config.finetune import FinetuneConfig, LoRAConfig
from gptexp.config.fingerprint import completed
from gptexp.config.rules import require
from gptexp.models.classifier import HEAD
from gptexp.models.layers import Dropout
from gptexp.util.seeds import seed_generator

A, B = "lora_A", "lora_B"


class LoRALinear(nn.Linear):
    """A linear layer and its adapter: (..., in) -> (..., out), W x + b + (alpha / r) B A x.

    B is initially zero, so that training starts with exactly the outputs of the given layer.
    """

    def __init__(self, base: nn.Linear, config: LoRAConfig) -> None:
        nn.Module.__init__(self)  # uses the weight and the bias of `base`: none are allocated
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight = base.weight
        self.register_parameter("bias", base.bias)
        self.scale, self.dropout = config.alpha / config.rank, Dropout(config.dropout)
        # Drawn in float32, so that every precision starts with the same values; variance 1/in preserves that of x.
        first = torch.empty(config.rank, base.in_features, device=base.weight.device)
        self.lora_A = nn.Parameter(nn.init.kaiming_normal_(first, nonlinearity="linear").to(base.weight.dtype))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, config.rank))

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        low = F.linear(self.dropout(x), self.lora_A)  # (..., r)
        return super().forward(x) + self.scale * F.linear(low, self.lora_B)  # (..., out)


def adapt(model: nn.Module, config: FinetuneConfig, *, seed: int | None = None) -> None:
    """Freeze the model and add adapters to the target layers, in place; do nothing if all parameters are trained.

    The new head of a classifier is trained too. The initial values of A follow from the seed.

    Raises:
        ValueError: the model does not have a target, or the rank exceeds a side of a layer.
    """
    if not isinstance(config, LoRAConfig):
        return
    layers = dict(_untied_linear_layers(model))
    config.require_layers(layers)
    targets = {name: layer for name, layer in layers.items() if config.matches(name)}
    for name, layer in targets.items():
        _require_rank(config, name, layer)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD))
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            seed_generator(torch.default_generator, seed)
        for name, layer in targets.items():
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, LoRALinear(layer, config))


def _untied_linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Linear layers, except the classifier's head, with an untied weight: a merged weight can't stay tied."""
    places = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and places[id(module.weight)] == 1 and not f"{name}.".startswith(HEAD):
            yield name, module


def _require_rank(config: LoRAConfig, name: str, layer: nn.Linear) -> None:
    shorter = min(layer.in_features, layer.out_features)
    shape = f"{layer.out_features} × {layer.in_features}"
    require(config.rank <= shorter, "finetune.rank", config.rank, f"{name} is {shape}; give at most {shorter}")


def merged(
    stored: Mapping[str, Tensor], settings: Mapping[str, Any], source: object = "the checkpoint"
) -> dict[str, Tensor]:
    """Weights of the model without adapters: each adapter is added to its weight, W + (alpha / r) B A.

    Args:
        stored: `model` of a checkpoint.
        settings: `config` of the checkpoint, as plain data; if it has no adapters, the weights are returned unchanged.
        source: what errors name.

    Raises:
        ValueError: settings and shapes contradict each other.
    """
    config = from_plain("finetune", completed(settings)["finetune"])
    if not isinstance(config, LoRAConfig):
        return dict(stored)
    for name in stored:
        layer, _, leaf = name.rpartition(".")
        if leaf in (A, B):
            _require_whole(stored, layer, config, source)
    plain = {name: tensor for name, tensor in stored.items() if name.rpartition(".")[2] not in (A, B)}
    for name in plain:
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight" and f"{layer}.{A}" in stored:
            plain[name] = _sum(plain[name], stored[f"{layer}.{A}"], stored[f"{layer}.{B}"], config.alpha / config.rank)
    return plain


def _sum(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + scale B A, (out, in), computed in float32 at least and returned in the dtype of W."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    return torch.addmm(weight.to(exact), b.to(exact), a.to(exact), alpha=scale).to(weight.dtype)


def _require_whole(stored: Mapping[str, Tensor], layer: str, config: LoRAConfig, source: object) -> None:
    """Refuse an adapter if A, B or the weight is missing, or if their shapes contradict each other."""
    found = {leaf: tuple(stored[f"{layer}.{leaf}"].shape) for leaf in ("weight", A, B) if f"{layer}.{leaf}" in stored}
    weight = found.get("weight", ())
    if len(weight) != 2 or found != {"weight": weight, A: (config.rank, weight[1]), B: (weight[0], config.rank)}:
        shapes = ", ".join(f"{leaf} {found.get(leaf, 'missing')}" for leaf in ("weight", A, B))
        raise ValueError(f"{source}: the adapter of {layer} doesn't fit finetune.rank={config.rank}: {shapes}")
