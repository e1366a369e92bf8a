"""Weights of a model as plain tensors by name, and back."""

from __future__ import annotations

import torch
from torch import nn


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Everything of `_lasting` by name, gathered if sharded, on the CPU."""
    return {name: full_cpu(tensor.detach()) for name, tensor in _lasting(model).items()}


def _lasting(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a model is besides its settings: parameters, tied ones once, and persistent buffers."""
    kept = model.state_dict(keep_vars=True).keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return {**dict(model.named_parameters()), **buffers}


def full_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor on the CPU; gathering a sharded one is a collective of all ranks."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().cpu()


def load_weights(model: nn.Module, stored: dict[str, torch.Tensor], source: object) -> None:
    """Copy stored weights into a model of the same settings; positions may be cropped to a smaller block.

    Raises:
        ValueError: a parameter is missing, not known, or of another shape; nothing was copied.
    """
    cropped = dict(stored)
    for name, parameter in model.named_parameters():
        if name.endswith("wpe.weight") and name in stored and stored[name].ndim == 2:
            cropped[name] = stored[name][: parameter.shape[0]]
    _require_same_shapes(model, cropped, source)
    with torch.no_grad():
        for name, tensor in _lasting(model).items():
            tensor.copy_(cropped[name])


def adopt_weights(model: nn.Module, stored: dict[str, torch.Tensor], source: object) -> None:
    """Let a model that was made on the meta device use the stored tensors themselves.

    Raises:
        ValueError: a parameter is missing, not known, or of another shape.
    """
    _require_same_shapes(model, stored, source)
    own = {id(tensor): stored[name] for name, tensor in _lasting(model).items()}
    parameters = {id(p): nn.Parameter(own[id(p)], requires_grad=p.requires_grad) for p in model.parameters()}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[key] = parameters[id(parameter)]  # tied ones stay tied
        for key, buffer in module._buffers.items():
            if id(buffer) in own:
                module._buffers[key] = own[id(buffer)]


def _require_same_shapes(model: nn.Module, stored: dict[str, torch.Tensor], source: object) -> None:
    own = {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in _lasting(model).items()}
    theirs = {name: (tuple(value.shape), value.is_floating_point()) for name, value in stored.items()}
    for name in sorted(own.keys() | theirs.keys()):
        if own.get(name) != theirs.get(name):
            theirs_is, own_is = (_shape(found.get(name)) for found in (theirs, own))
            raise ValueError(f"{source}: {name} is {theirs_is or 'missing'}, the model's is {own_is or 'none'}")


def _shape(found: tuple[tuple[int, ...], bool] | None) -> str:
    return "" if found is None else f"{found[0]}{'' if found[1] else ' of whole numbers'}"
