"""A device beside the CPU, emulated on the CPU: an operation that mixes the two fails, as it does on a GPU.

It has the name of a kind of device that torch knows and has no implementation of. Gradients are computed as on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from gptexp.machine import hardware

NAME = "lazy"
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class DeviceTensor(Tensor):
    """A tensor on the emulated device. held: the values, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        made: DeviceTensor = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=torch.device(NAME), requires_grad=False
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()  # torch has none for subclasses

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation of the device or of the CPU on the CPU; AssertionError: it mixes them."""
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    others = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.ndim]
    assert not (there and others) or func in COPIES, f"{func} mixes devices: {[t.device for t in tensors]}"
    wanted = kwargs.get("device")
    moves = bool(there) if wanted is None else torch.device(wanted).type == NAME
    if func is torch.ops.aten.copy_.default:
        moves = isinstance(args[0], DeviceTensor)
    known = {id(tensor.held): tensor for tensor in there}
    args, kwargs = tree_map(lambda v: v.held if isinstance(v, DeviceTensor) else v, (args, kwargs))
    made = func(*args, **(kwargs if wanted is None else {**kwargs, "device": "cpu"}))
    if not moves:
        return made
    return tree_map(lambda v: known.get(id(v), DeviceTensor(v)) if isinstance(v, Tensor) else v, made)


class _Emulation(TorchDispatchMode):
    """Sees the operations that make a tensor on the device, which have no such tensor among their arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = computed(func, args, kwargs or {})
        self.made += any(isinstance(value, DeviceTensor) for value in tree_flatten(found)[0])
        return found


@contextmanager
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Let commands find the emulated device; yield a function that counts its operations."""
    monkeypatch.setattr(hardware, "find_device", lambda *_: NAME)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # which torch can't say of this device
    torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(…, device=…) is seen as a copy to the device
    try:
        with _Emulation() as emulation:
            yield lambda: emulation.made
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
