"""The learning rates of a run by kind of parameter, for its logs."""

from __future__ import annotations

from torch import nn

from gptexp.config import Config
from gptexp.models.lora import A, B
from gptexp.training.optimizers import build_optimizer, hidden_matrices, named_parameters, roles


def peak_rates(model: nn.Module, config: Config) -> dict[str, float]:
    """Return the peak learning rate of each kind of parameter by the column that logs it; empty if all are equal.

    Kinds: hidden (matrices between embeddings and output layer), embedding, head, scalar (fewer than two dimensions),
    lora_A, lora_B and other. If an optimizer gives one kind several rates, they are lr/KIND.1, lr/KIND.2 …

    Args:
        model: frozen and adapted as for training, on any device.
        config: the settings.
    """
    optimizer = build_optimizer(model, config.optimizer, config.lr, fused=False)
    kinds, found = _kinds(model), dict[str, list[float]]()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rates = found.setdefault(kinds[parameter], [])
            if group["peak_lr"] not in rates:
                rates.append(group["peak_lr"])
    columns = {
        f"lr/{kind}" + (f".{i}" if len(rates) > 1 else ""): rate
        for kind, rates in found.items()
        for i, rate in enumerate(rates, 1)
    }
    return columns if len(set(columns.values())) > 1 else {}


def _kinds(model: nn.Module) -> dict[nn.Parameter, str]:
    hidden = dict.fromkeys(hidden_matrices(model), "hidden")
    adapters = {p: leaf for name, p in named_parameters(model) if (leaf := name.rpartition(".")[2]) in (A, B)}
    return dict.fromkeys(model.parameters(), "other") | hidden | roles(model) | adapters
