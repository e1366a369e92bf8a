"""Attention of queries on keys and values: torch's fused kernel, or a sequence of matrix products for CPUs.

The letters of the shapes are explained in models/attention.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from gptexp.models.kernels.dropout import dropout_mask

# True where a query sees a key, or a bias that is added to the scores; broadcast to (B, H, T, S).
Mask: TypeAlias = Bool[Tensor, "*broadcast"] | Float[Tensor, "*broadcast"]

ROWS = 256  # queries of one product; causality hides all keys after them, which are then not computed
ROWS_WINDOW = (64, 128)  # with a window of w tokens: w rows within these limits, which see at most rows + w - 1 keys
ROWS_DROPOUT = 128  # smaller with dropout: drawing its masks takes longest, and hidden keys get masks too


def attention_fused(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B K S D"],
    v: Float[Tensor, "B K S D"],
    mask: Mask | None,
    dropout: float,
    *,
    is_causal: bool,
) -> Float[Tensor, "B H T D"]:
    """softmax(q k^T / sqrt(D) + mask) v by torch's scaled_dot_product_attention; H is a multiple of K."""
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype),
        dropout_p=dropout,
        is_causal=is_causal,
        enable_gqa=k.shape[1] != q.shape[1],
    )


def attention_by_products(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B K T D"],
    v: Float[Tensor, "B K T D"],
    mask: Mask | None,
    dropout: float,
    reach: tuple[int, int] | None = None,
) -> Float[Tensor, "B H T D"]:
    """The same by matrix products, on a CPU and for as many queries as keys; causal where mask is None.

    reach: how many tokens before and after a query the mask (…, T, T) shows at most; keys outside are not computed.

    torch's fused CPU kernel is slow for some dtypes and has no dropout; torch's fallback draws dropout masks slowly
    and computes the scores that causality hides.
    """
    repeats = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(repeats, dim=1) for t in (k, v))  # (B, K, T, D) -> (B, H, T, D)
    length = q.shape[2]
    rows = _rows(length, mask, dropout, reach)
    pieces = []
    for start in range(0, length, rows):
        end = min(start + rows, length)
        first, last = _keys(start, end, length, mask, reach)  # keys that these queries may see: S
        part = mask if mask is None or reach is None else mask[..., start:end, first:last]
        scores = _scores(q[:, :, start:end], k[:, :, first:last])  # (B, H, rows, S)
        weights = _masked(scores, part, start).softmax(-1).to(v.dtype)  # (B, H, rows, S)
        if dropout:
            weights = weights * dropout_mask(weights.shape, dropout, weights.dtype)
        pieces.append(weights @ v[:, :, first:last])  # (B, H, rows, D)
    return torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0]


def attention_weights(
    q: Float[Tensor, "B H T D"], k: Float[Tensor, "B K T D"], mask: Mask | None
) -> Float[Tensor, "B H T T"]:
    """The weights softmax(q k^T / sqrt(D) + mask) of that attention, to look at; causal where mask is None."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    return _masked(_scores(q, k), mask, 0).softmax(-1)


def _rows(length: int, mask: Mask | None, dropout: float, reach: tuple[int, int] | None) -> int:
    """Queries of one product."""
    if mask is None:
        return ROWS_DROPOUT if dropout else ROWS
    least, most = ROWS_WINDOW
    return length if reach is None else min(max(reach[0] + 1, least), most)


def _keys(start: int, end: int, length: int, mask: Mask | None, reach: tuple[int, int] | None) -> tuple[int, int]:
    """The range of the keys that the queries from `start` to `end` may see."""
    if mask is None:
        return 0, end
    return (0, length) if reach is None else (max(0, start - reach[0]), min(length, end + reach[1]))


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """q k^T / sqrt(D), (B, H, rows, S), in float32 at least."""
    if q.dtype in (torch.float32, torch.float64):
        return q * _scale(q) @ k.mT
    apply: Callable[[Tensor, Tensor], Tensor] = cast(Any, _WideScores).apply  # torch leaves it untyped
    return apply(q, k)


class _WideScores(torch.autograd.Function):
    """Scores in float32 of narrower q and k, as in torch's fused kernel: bf16 would round a score of 30 by up to 0.06.

    The backward pass rounds the gradient and multiplies in the dtype of q, as the fused kernel does: products in
    that dtype are faster.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> Tensor:
        ctx.save_for_backward(q, k)
        with torch.autocast(q.device.type, enabled=False):  # autocast would compute these products in bf16
            return q.float() * _scale(q) @ k.float().mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        q, k = ctx.saved_tensors
        grad = (grad * _scale(q)).to(q.dtype)
        return grad @ k, grad.mT @ q


def _scale(q: Tensor) -> float:
    scale: float = q.shape[-1] ** -0.5  # 1 / sqrt(D)
    return scale


def _masked(scores: Tensor, mask: Mask | None, start: int) -> Tensor:
    """Scores of the queries from `start` on, -inf where a query does not see the key."""
    if mask is None:
        return scores + scores.new_full(scores.shape[-2:], -math.inf).triu(start + 1)
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
