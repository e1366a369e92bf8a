"""Cross-entropy; and that of a linear layer's outputs, a piece of them at a time.

The logits of 12 windows of 1,024 tokens over GPT-2's vocabulary fill 2.5 GB in float32, and the usual loss wants
them several times over. Here each piece of rows has its loss and its gradients while it is at hand, so that no more
than PIECE bytes of them ever exist (the idea of arXiv 2410.10989, section 3.2, and of many kernels).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100  # a target that isn't scored: padding, and <|endoftext|> in validation; torch's own number for it
LARGE = 2**26  # bytes of float32 logits from which the loss is taken in pieces
PIECE = {"cpu": 2**28}  # bytes of float32 logits that exist at a time
PIECE_ELSEWHERE = 2**30  # fewer sums of the weight's gradient through a GPU's memory
ALIGNED, PADDED = 64, ("cuda",)  # these multiply matrices faster whose sides are multiples of that


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Nats of the targets (B, T) under the logits (B, T, V), in float32 at least; IGNORED targets don't count."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    scores = logits.flatten(0, 1).to(wide)
    return F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORED, reduction=reduction)


def worthwhile(hidden: Tensor, vocab_size: int) -> bool:
    """Whether these logits are many; gradients in float16 must stay where their scale is watched."""
    device = hidden.device.type
    halves = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return not halves and hidden.dtype != torch.float16 and 4 * hidden[..., 0].numel() * vocab_size > LARGE


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """F.cross_entropy(hidden @ weight.T, targets), without all logits at once.

    Args:
        hidden: (…, C).
        weight: (V, C).
        targets: (…), int64; those that are IGNORED don't count.
        reduction: mean over the targets that count, or sum.

    Under autocast the products are taken in its type, as those of nn.Linear; losses and sums in float32 at least.
    """
    rows, goals = hidden.flatten(0, -2), targets.flatten()
    counted = (goals != IGNORED).sum() if reduction == "mean" else torch.ones((), device=goals.device)
    return _LinearCrossEntropy.apply(rows, weight, goals, counted, torch.is_grad_enabled())


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, counted: Tensor, trains: bool) -> Tensor:
        device = hidden.device.type
        wants = (trains and ctx.needs_input_grad[0], trains and ctx.needs_input_grad[1])
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):
            total, *gradients = _in_pieces(hidden, weight, targets, counted, dtype, wants)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        # Elsewhere asking would wait for the device, and would cut what torch.compile makes in two.
        if factor.device.type == "cpu" and not torch.compiler.is_compiling() and factor == 1:
            return *ctx.saved_tensors, None, None, None
        return *(g if g is None else g * factor for g in ctx.saved_tensors), None, None, None


def _in_pieces(
    hidden: Tensor, weight: Tensor, targets: Tensor, counted: Tensor, dtype: torch.dtype, wants: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss and the gradients of hidden (N, C) and weight (V, C), where wanted."""
    vocab_size, wide = len(weight), torch.promote_types(hidden.dtype, torch.float32)
    padding = -vocab_size % ALIGNED if hidden.device.type in PADDED else 0
    head = F.pad(weight.to(dtype), (0, 0, 0, padding)) if padding else weight.to(dtype)  # (V', C)
    total = torch.zeros((), dtype=wide, device=hidden.device)
    d_hidden = torch.empty_like(hidden) if wants[0] else None
    d_head = torch.zeros(head.shape, dtype=weight.dtype, device=hidden.device) if wants[1] else None
    step = max(1, PIECE.get(hidden.device.type, PIECE_ELSEWHERE) // (4 * vocab_size))
    for start in range(0, len(hidden), step):
        x, goals = hidden[start : start + step].to(dtype), targets[start : start + step]
        loss, d_logits = _piece(x @ head.T, vocab_size, goals, counted, wide, any(wants))
        total += loss
        if d_hidden is not None:
            d_hidden[start : start + step] = d_logits @ head
        if d_head is not None:
            if d_head.dtype == dtype:
                d_head.addmm_(d_logits.T, x)
            else:
                d_head += d_logits.T @ x
    return total, d_hidden, None if d_head is None else d_head[:vocab_size]


def _piece(
    logits: Tensor, vocab_size: int, targets: Tensor, counted: Tensor, wide: torch.dtype, gradient: bool
) -> tuple[Tensor, Tensor]:
    """The loss of some rows and its gradient at their logits (n, V'), which are used up."""
    dtype, scores = logits.dtype, logits.to(wide)
    scores[:, vocab_size:] = -torch.inf  # of tokens that only fill the matrix
    loss = F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum") / counted
    if gradient:
        counts = targets != IGNORED
        goals = targets.where(counts, 0)[:, None]
        scores = scores.softmax(-1)
        scores.scatter_add_(1, goals, scores.new_full((), -1.0).expand_as(goals))
        scores *= (counts.to(wide) / counted)[:, None]
    return loss, scores.to(dtype)
