"""LoRA: low-rank adapters beside frozen weights (Hu et al. 2021, arXiv 2106.09685, section 4.1). No Lightning.

A linear layer keeps its name, its weight and its bias, and gets two matrices beside them: `c_attn.weight`,
`c_attn.lora_A` (r, in), `c_attn.lora_B` (out, r). So weights of GPT-2's names still fit, and a checkpoint holds
all that the model is. `merged` makes plain weights of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptexp.config import FinetuneConfig, LoRAConfig
from gptexp.config.conversion import from_plain
from gptexp.config.fingerprint import completed
from gptexp.config.rules import require
from gptexp.models.classifier import HEAD
from gptexp.models.dropout import Dropout
from gptexp.util.seeds import seed_generator

A, B = "lora_A", "lora_B"


class LoRALinear(nn.Linear):
    """A frozen linear layer and its adapter: (…, in) -> (…, out), W x + b + alpha/r B A x.

    B is zero at first, so that training begins with exactly the source's outputs.
    """

    def __init__(self, base: nn.Linear, config: LoRAConfig) -> None:
        nn.Module.__init__(self)  # weight and bias are the base's own: nothing is allocated for them
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight = base.weight
        self.register_parameter("bias", base.bias)
        self.scale, self.dropout = config.alpha / config.rank, Dropout(config.dropout)
        # Drawn in float32, so that every precision starts alike; variance 1/in keeps the size of A x that of x.
        first = torch.empty(config.rank, base.in_features, device=base.weight.device)
        self.lora_A = nn.Parameter(nn.init.kaiming_normal_(first, nonlinearity="linear").to(base.weight.dtype))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, config.rank))

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(self.dropout(x), self.lora_A)  # (…, r)
        return super().forward(x) + self.scale * F.linear(low, self.lora_B)


def adapt(model: nn.Module, config: FinetuneConfig, *, seed: int | None = None) -> None:
    """Freeze the model and give its targets adapters, in place; nothing at all where all parameters train.

    A classifier's new head trains. First values of A follow from the seed alone.

    Raises:
        ValueError: a target that the model doesn't have, or a rank above a layer's sides.
    """
    if not isinstance(config, LoRAConfig):
        return
    layers = dict(_own_linear_layers(model))
    config.require_layers(layers)
    targets = {name: layer for name, layer in layers.items() if config.aims_at(name)}
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


def _own_linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The source's linear layers whose weight is theirs alone: a shared one can't have an adapter in one place."""
    places = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    for name, module in model.named_modules():
        own = isinstance(module, nn.Linear) and places[id(module.weight)] == 1
        if own and not f"{name}.".startswith(HEAD):
            yield name, module


def _require_rank(config: LoRAConfig, name: str, layer: nn.Linear) -> None:
    shorter = min(layer.in_features, layer.out_features)
    shape = f"{layer.out_features} × {layer.in_features}"
    require(config.rank <= shorter, "finetune.rank", config.rank, f"{name} is {shape}; give at most {shorter}")


def merged(
    stored: Mapping[str, Tensor], settings: Mapping[str, Any], source: object = "the checkpoint"
) -> dict[str, Tensor]:
    """Plain weights: each adapter added to its weight, W + alpha/r B A, under the names of the model without them.

    Args:
        stored: a checkpoint's `model`.
        settings: its `config`, as plain data; without adapters in it, the weights are given back as they are.
        source: what errors name.

    Raises:
        ValueError: settings or shapes that don't fit together.
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
    """W + scale B A, at least in float32, in W's own type."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    return torch.addmm(weight.to(exact), b.to(exact), a.to(exact), alpha=scale).to(weight.dtype)


def _require_whole(stored: Mapping[str, Tensor], layer: str, config: LoRAConfig, source: object) -> None:
    """Refuse an adapter without its other half or its weight, or whose shapes don't make the weight's."""
    found = {leaf: tuple(stored[f"{layer}.{leaf}"].shape) for leaf in ("weight", A, B) if f"{layer}.{leaf}" in stored}
    weight = found.get("weight", ())
    if len(weight) != 2 or found != {"weight": weight, A: (config.rank, weight[1]), B: (weight[0], config.rank)}:
        told = ", ".join(f"{leaf} {found.get(leaf, 'missing')}" for leaf in ("weight", A, B))
        raise ValueError(f"{source}: the adapter of {layer} doesn't fit finetune.rank={config.rank}: {told}")
