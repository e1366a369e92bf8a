"""Weights of a model as a dict of tensors by name: reading them out, and loading them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters (tied ones once) and persistent buffers by name, on the CPU; a sharded tensor is gathered."""
    return {name: full_cpu(tensor.detach()) for name, tensor in persistent(model).items()}


def persistent(model: nn.Module) -> dict[str, Tensor]:
    """What defines a model besides its settings: parameters, tied ones once, and persistent buffers."""
    kept = model.state_dict(keep_vars=True).keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return {**dict(model.named_parameters()), **buffers}


def full_cpu(tensor: Tensor) -> Tensor:
    """The whole tensor on the CPU; gathering a sharded tensor is a collective operation of all ranks."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().cpu()


def load_weights(model: nn.Module, stored: Weights, source: object) -> None:
    """Copy stored weights into a model of the same settings; wpe may have more rows than the model's block_size.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape; nothing is copied then. source: what it names.
    """
    cropped = dict(stored)
    for name, parameter in model.named_parameters():
        if name.endswith("wpe.weight") and name in stored and stored[name].ndim == 2:
            cropped[name] = stored[name][: parameter.shape[0]]  # (L, C)
    _require_same_shapes(model, cropped, source)
    with torch.no_grad():
        for name, tensor in persistent(model).items():
            tensor.copy_(cropped[name])


def adopt_weights(model: nn.Module, stored: Weights, source: object) -> None:
    """Replace the tensors of a model on the meta device by the stored tensors, without a copy.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape. source: what it names.
    """
    _require_same_shapes(model, stored, source)
    new = {id(tensor): stored[name] for name, tensor in persistent(model).items()}
    parameters = {id(p): nn.Parameter(new[id(p)], requires_grad=p.requires_grad) for p in model.parameters()}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[key] = parameters[id(parameter)]  # tied parameters stay tied
        for key, buffer in module._buffers.items():
            if id(buffer) in new:
                module._buffers[key] = new[id(buffer)]


def _require_same_shapes(model: nn.Module, stored: Weights, source: object) -> None:
    expected = {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in persistent(model).items()}
    found = {name: (tuple(value.shape), value.is_floating_point()) for name, value in stored.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            stored_is, model_is = (_shape(tensors.get(name)) for tensors in (found, expected))
            raise ValueError(f"{source}: {name} is {stored_is or 'missing'}, the model's is {model_is or 'none'}")


def _shape(tensor: tuple[tuple[int, ...], bool] | None) -> str:
    return "" if tensor is None else f"{tensor[0]}{'' if tensor[1] else ' of whole numbers'}"
