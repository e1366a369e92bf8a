"""The state of an optimizer as plain data, by parameter name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gptexp.machine.sharding import is_sharded, placed_like
from gptexp.training.muon import ROW_AVERAGE
from gptexp.training.optimizers import MuonWithAdamW, named_parameters

State = dict[str, dict[str, Any]]  # {parameter name: {"step": …, "exp_avg": …}}


def named_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, *, gather: bool = True) -> State:
    """Return the optimizer's state as plain data: copies of whole tensors on the CPU, by parameter name.

    A parameter without a step has an empty dictionary. Group settings are not included: they follow from the
    config. With sharded parameters this is a collective: all ranks must call it, and all get the whole state.
    gather=False: of a sharded tensor, this rank's shard.
    """
    return {
        name: {key: _copied(value, gather) for key, value in optimizer.state.get(parameter, {}).items()}
        for name, parameter, _ in _managed(model, optimizer)
    }


def load_named_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `named_optimizer_state` returned; order of groups and sharding may differ.

    Raises:
        ValueError: parameters are missing or unknown, or the state of AdamW or Muon has other keys or shapes. The
            optimizer is unchanged then.
    """
    managed = list(_managed(model, optimizer))
    _require_same_names({name for name, _, _ in managed}, set(state))
    if isinstance(optimizer, (torch.optim.AdamW, MuonWithAdamW)):  # of another optimizer, any state may be right
        for name, parameter, group in managed:
            _require_fitting(name, parameter, group, state[name])
    for name, parameter, group in managed:
        placed = {key: _placed(key, value, parameter, group) for key, value in state[name].items()}
        if placed:
            optimizer.state[parameter] = placed
        else:
            optimizer.state.pop(parameter, None)


def _managed(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
    """Yield name, parameter and group of all trained parameters, in the order of the model."""
    group_of = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in named_parameters(model):
        if parameter in group_of:
            yield name, parameter, group_of[parameter]


def _copied(value: Any, gather: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    whole = value.full_tensor() if gather and is_sharded(value) else value
    return whole.detach().to("cpu", copy=True)


def _placed(key: str, value: Any, parameter: nn.Parameter, group: dict[str, Any]) -> Any:
    """Return a copy of the value on the device and with the sharding that the optimizer needs."""
    if not isinstance(value, Tensor):
        return value
    if key == "step":  # on the CPU unless the kernel reads it
        on_device = group.get("fused") or group.get("capturable")
        return value.to(parameter.device if on_device else "cpu", copy=True)
    value = value.to(parameter.device, copy=True)
    return placed_like(value, parameter.data) if value.shape == parameter.shape else value


def _require_same_names(expected: set[str], found: set[str]) -> None:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise ValueError(
            "the optimizer state belongs to another model: "
            + "; ".join(
                f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("unknown", unknown)) if names
            )
        )


def _require_fitting(name: str, parameter: nn.Parameter, group: dict[str, Any], state: Mapping[str, Any]) -> None:
    rows = {ROW_AVERAGE} if group.get("normuon_beta2") is not None else set()
    keys = {"step", "exp_avg", "exp_avg_sq"} if "betas" in group else {"momentum_buffer", *rows}
    if state and set(state) != keys:
        raise ValueError(
            f"the optimizer state of {name} has {', '.join(sorted(state))}; expected: {', '.join(sorted(keys))}"
        )
    for key, value in state.items():
        shape = parameter.shape[:1] if key == ROW_AVERAGE else parameter.shape
        if key != "step" and value.shape != shape:
            raise ValueError(
                f"the optimizer state {key} of {name} has shape {tuple(value.shape)}, expected: {tuple(shape)}"
            )
