"""RMSNorm (arXiv 1910.07467): torch's, and on a CPU a backward pass by the fused kernel of LayerNorm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDE = (torch.float32, torch.float64)


class RMSNorm(nn.RMSNorm):
    """nn.RMSNorm over the last axis, faster on a CPU."""

    def forward(self, x: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        assert self.eps is not None
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Float[Tensor, "*batch C"], weight: Float[Tensor, " C"] | None, eps: float) -> Float[Tensor, "*batch C"]:
    """x / sqrt(mean(x², -1) + eps) * weight; without a weight, the factor is 1."""
    plain = x.device.type == "cpu" and x.dtype in WIDE and (weight is None or weight.dtype == x.dtype)
    if not plain or torch.compiler.is_compiling():
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    apply: Callable[..., Tensor] = cast(Any, _RMSNorm).apply  # torch leaves it untyped
    return apply(x, weight, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, scale, weight)
        y: Tensor = x * scale
        return y if weight is None else y.mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """With a mean of 0 and this scale, LayerNorm's gradients are those of RMSNorm, but for the mean's part."""
        x, scale, weight = ctx.saved_tensors
        wanted = [True, weight is not None and ctx.needs_input_grad[1], False]
        mean, width = torch.zeros_like(scale), x.shape[-1]
        backward = torch.ops.aten.native_layer_norm_backward
        d_x, d_weight, _ = backward(grad.contiguous(), x, [width], mean, scale, weight, None, wanted)
        through_mean = grad.sum(-1, keepdim=True) if weight is None else (grad @ weight)[..., None]
        return d_x.add_(through_mean.mul_(scale).div_(width)), d_weight, None
