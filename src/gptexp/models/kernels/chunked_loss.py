"""Cross-entropy of a linear layer's outputs, computed in chunks so that the logits never exist all at once.

The logits of 12 windows of 1,024 tokens over GPT-2's vocabulary take 2.5 GB in float32, and the usual loss needs
several copies. Here the loss and the gradients of a chunk of rows are computed together, so that at most one chunk
of logits exists at a time (Liger Kernel, arXiv 2410.10989, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptexp.models.losses import IGNORED

CHUNK_BYTES = {"cpu": 2**28}  # bytes of float32 logits in a chunk
CHUNK_BYTES_ELSEWHERE = 2**30  # larger on a GPU: each chunk reads and writes the whole gradient of the weight
ALIGNMENT, ALIGNED_DEVICES = 64, ("cuda",)  # matrix products are faster there if V is a multiple of 64


def linear_cross_entropy(
    hidden: Float[Tensor, "*batch C"],
    weight: Float[Tensor, "V C"],
    targets: Int[Tensor, "*batch"],
    reduction: str = "mean",
    chunk_bytes: int | None = None,
) -> Float[Tensor, ""]:
    """F.cross_entropy(hidden @ weight.T, targets) in nats, without all logits at once.

    Args:
        targets: those that are IGNORED do not count.
        reduction: "mean" over the targets that count, or "sum".
        chunk_bytes: bytes of float32 logits in one chunk; None: CHUNK_BYTES of the device.

    Under autocast the products are computed in its dtype, as in nn.Linear; losses and sums in float32 at least.
    """
    rows, goals = hidden.flatten(0, -2), targets.flatten()  # (N, C), (N,)
    counted = (goals != IGNORED).sum() if reduction == "mean" else torch.ones((), device=goals.device)
    if chunk_bytes is None:
        chunk_bytes = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES_ELSEWHERE)
    apply: Callable[..., Tensor] = cast(Any, _LinearCrossEntropy).apply  # torch leaves it untyped
    return apply(rows, weight, goals, counted, torch.is_grad_enabled(), chunk_bytes)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        counted: Tensor,
        with_grad: bool,
        chunk_bytes: int,
    ) -> Tensor:
        device = hidden.device.type
        wanted = (with_grad and ctx.needs_input_grad[0], with_grad and ctx.needs_input_grad[1])
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):
            total, *gradients = _in_chunks(hidden, weight, targets, counted, dtype, wanted, chunk_bytes)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        # On other devices the comparison would wait for the device, and under torch.compile it would break the graph.
        if factor.device.type == "cpu" and not torch.compiler.is_compiling() and factor == 1:
            return *ctx.saved_tensors, None, None, None, None
        return *(g if g is None else g * factor for g in ctx.saved_tensors), None, None, None, None


def _in_chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    counted: Tensor,
    dtype: torch.dtype,
    wanted: tuple[bool, bool],
    chunk_bytes: int,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and the gradients of hidden (N, C) and weight (V, C) where wanted."""
    vocab_size, wide = len(weight), torch.promote_types(hidden.dtype, torch.float32)
    padding = -vocab_size % ALIGNMENT if hidden.device.type in ALIGNED_DEVICES else 0
    head = F.pad(weight.to(dtype), (0, 0, 0, padding)) if padding else weight.to(dtype)  # (V', C), V' = V + padding
    total = torch.zeros((), dtype=wide, device=hidden.device)
    d_hidden = torch.empty_like(hidden) if wanted[0] else None
    d_head = torch.zeros(head.shape, dtype=weight.dtype, device=hidden.device) if wanted[1] else None
    n = max(1, chunk_bytes // (4 * vocab_size))  # rows in a chunk
    for start in range(0, len(hidden), n):
        x, goals = hidden[start : start + n].to(dtype), targets[start : start + n]  # (n, C), (n,)
        loss, d_logits = _chunk(x @ head.T, vocab_size, goals, counted, wide, any(wanted))
        total += loss
        if d_hidden is not None:
            d_hidden[start : start + n] = d_logits @ head  # (n, V') @ (V', C)
        if d_head is not None:
            if d_head.dtype == dtype:
                d_head.addmm_(d_logits.T, x)  # (V', n) @ (n, C)
            else:
                d_head += d_logits.T @ x
    return total, d_hidden, None if d_head is None else d_head[:vocab_size]


def _chunk(
    logits: Tensor,
    vocab_size: int,
    targets: Tensor,
    counted: Tensor,
    wide: torch.dtype,
    gradient: bool,
) -> tuple[Tensor, Tensor]:
    """The loss of some rows, and its gradient with respect to their logits (n, V'), which are overwritten."""
    dtype, scores = logits.dtype, logits.to(wide)
    scores[:, vocab_size:] = -torch.inf  # padding columns stand for no token
    loss = F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum") / counted
    if gradient:  # softmax - one_hot(target), divided by the number of targets that count
        counts = targets != IGNORED
        goals = targets.where(counts, 0)[:, None]
        scores = scores.softmax(-1)
        scores.scatter_add_(1, goals, scores.new_full((), -1.0).expand_as(goals))
        scores *= (counts.to(wide) / counted)[:, None]
    return loss, scores.to(dtype)
