"""Sharded tensors, without the import of torch.distributed.tensor where nothing is sharded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Return whether this is a DTensor. None exists before the import of its module, which takes a second."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)  # None also while a thread imports it
    return kind is not None and isinstance(tensor, kind)


def placed_like(whole: Tensor, tensor: Tensor) -> Tensor:
    """Return the whole value sharded as the tensor is. Every process has the whole value; nothing is sent."""
    if not is_sharded(tensor):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, tensor.device_mesh, tensor.placements, src_data_rank=None)
