"""Rotation of pairs of columns (RoPE), with a backward pass that is the opposite rotation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

Pairs = Float[Tensor, "*#batch T half_D"]


def rotate_pairs(x: Float[Tensor, "*batch T D"], cos: Pairs, sin: Pairs) -> Float[Tensor, "*batch T D"]:
    """Rotate each pair (i, i + D/2) of x by an angle, given its cosine and sine."""
    if torch.compiler.is_compiling():
        first, second = x.chunk(2, dim=-1)  # (..., T, D/2) each
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
    apply: Callable[..., Tensor] = cast(Any, _Rotation).apply  # torch leaves it untyped
    return apply(x, cos, sin)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)  # contiguous, which the products of attention need
        (first, second), (left, right) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)  # (..., T, D/2) each
        torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
        torch.mul(first, sin, out=right).addcmul_(second, cos)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate_pairs(grad, cos, -sin), None, None
