"""Causal self-attention: many heads, grouped key/value heads, rotary and linear-bias positions, a KV cache.

Shapes, here and in gpt.py:
    B  batch (sequences)            H  query heads, n_head
    T  tokens given                 K  key/value heads, n_kv_head (H is a multiple of it)
    S  tokens attended to:          D  head_dim = C / H
       those in the cache and T     C  n_embd
    L  block_size                   V  vocab_size
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptexp.config.model import GPTConfig, Position
from gptexp.machine.hardware import slow_to_fuse
from gptexp.models.dropout import dropout_mask
from gptexp.models.layers import position_angles, require_length

ROWS = 256  # queries that attend together where attention is made of products
ROWS_MASKED = 128  # fewer with dropout: what is hidden gets masks too, and drawing takes longest
SHORT = 2048  # queries up to which it is where that is merely faster: its weights are kept for the way back


class KVCache:
    """Keys and values of the tokens seen so far, so that a new token costs one forward pass of one token.

    Memory for `size` tokens a sequence is taken at once: 2 tensors (B, K, size, D) for each layer. Sequences
    may hold different numbers of tokens, `lengths`; what lies behind a sequence's end is never looked at.
    """

    def __init__(self, config: GPTConfig, batch_size: int, size: int, like: Tensor) -> None:
        shape = (batch_size, config.kv_heads, size, config.head_dim)  # (B, K, size, D)
        self.keys, self.values = (
            [torch.zeros(shape, device=like.device, dtype=like.dtype) for _ in range(config.n_layer)] for _ in "kv"
        )
        self.size = size
        self.lengths = [0] * batch_size  # tokens held

    def new_positions(self, n_tokens: int) -> Tensor:
        """Positions of the next tokens: (T,), or (B, T) where sequences differ in length. ValueError: no room."""
        require_length(max(self.lengths) + n_tokens, self.size)
        device = self.keys[0].device
        new = torch.arange(n_tokens, device=device)
        if len(set(self.lengths)) == 1:  # slices instead of indices, and mostly no mask
            return self.lengths[0] + new
        return torch.tensor(self.lengths, device=device)[:, None] + new

    def extend(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (B, K, T, D) of the new tokens at their positions; give back all (B, K, S, D).

        `lengths` move by `advance`, when every layer has written.
        """
        end = max(self.lengths) + k.shape[2]
        for held, new in ((self.keys[layer], k), (self.values[layer], v)):
            if positions.ndim == 1:
                held[:, :, end - k.shape[2] : end] = new
            else:
                rows = torch.arange(len(k), device=k.device)[:, None]  # (B, 1) beside positions (B, T)
                held[rows, :, positions] = new.transpose(1, 2).to(held.dtype)  # (B, T, K, D)
        return self.keys[layer][:, :, :end].to(k.dtype), self.values[layer][:, :, :end].to(v.dtype)

    def advance(self, n_tokens: int) -> None:
        self.lengths = [length + n_tokens for length in self.lengths]

    def keep(self, rows: list[int]) -> None:
        """Only these sequences, in this order."""
        self.keys, self.values = ([held[rows] for held in layers] for layers in (self.keys, self.values))
        self.lengths = [self.lengths[row] for row in rows]

    def replace(self, rows: list[int], other: KVCache) -> None:
        """Let these sequences hold what another cache, of as many, holds."""
        end = max(other.lengths)
        for mine, theirs in zip(self.keys + self.values, other.keys + other.values, strict=True):
            mine[rows, :, :end] = theirs[:, :, :end]
        for row, length in zip(rows, other.lengths, strict=True):
            self.lengths[row] = length


class CausalSelfAttention(nn.Module):
    """(B, T, C) -> (B, T, C); each position sees itself and those before it (arXiv 1706.03762, section 3.2).

    A mask says otherwise: then what it says holds, as for `two_sided_mask`.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.kv_heads, config.head_dim
        self.qk_norm, self.attn_dropout = config.qk_norm, config.attn_dropout
        self.c_attn = nn.Linear(config.n_embd, (self.n_head + 2 * self.n_kv_head) * self.head_dim, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None,
        mask: Tensor | None,
        cache: KVCache | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, C); rope angles and mask as from the functions below; cache extended in place at positions."""
        q, k, v = self.project(x)  # (B, H, T, D), (B, K, T, D), (B, K, T, D)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            assert positions is not None
            k, v = cache.extend(self.layer, k, v, positions)  # (B, K, S, D)
        dropout = self.attn_dropout if self.training else 0.0
        if q.device.type == "cpu" and cache is None and (dropout or _products_are_faster(q)):
            y = attend_by_products(q, k, v, mask, dropout)
        else:
            y = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype),
                dropout_p=dropout,
                is_causal=mask is None and (cache is None or q.shape[2] > 1),  # one new token sees all the cache
                enable_gqa=self.n_kv_head != self.n_head,
            )  # (B, H, T, D)
        return self.c_proj(y.transpose(1, 2).flatten(2))  # (B, T, H, D) -> (B, T, C)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x (B, T, C), split into heads."""
        heads = self.c_attn(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H + 2K, T, D)
        q, k, v = heads.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=1)
        if self.qk_norm:  # bounds the attention logits; no gain of its own (arXiv 2302.05442 has LayerNorm here)
            q, k = (F.rms_norm(t, (self.head_dim,), eps=1e-6) for t in (q, k))
        return q, k, v


def _products_are_faster(q: Tensor) -> bool:
    return q.shape[2] <= SHORT and q.dtype in slow_to_fuse


def attend_by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """scaled_dot_product_attention (B, H, T, D) of as many queries as keys, with dropout p on its weights.

    For a CPU, where torch's fused kernel is slow for some types, and knows no dropout: its other way draws masks
    slowly and computes what causality hides. Without a mask, attention is causal.
    """
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))  # (B, H, S, D)
    length = q.shape[2]
    rows = length if mask is not None else ROWS_MASKED if p else ROWS
    pieces = []
    for start in range(0, length, rows):
        seen = min(start + rows, length) if mask is None else k.shape[2]
        scores = _scores(q[:, :, start : start + rows], k[:, :, :seen])  # (B, H, rows, seen)
        weights = _visible(scores, mask, start).softmax(-1).to(v.dtype)
        if p:
            weights = weights * dropout_mask(weights.shape, p, weights.dtype)
        pieces.append(weights @ v[:, :, :seen])
    return torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0]


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """q k^T / sqrt(D), in float32 at least."""
    if q.dtype in (torch.float32, torch.float64):
        return q * q.shape[-1] ** -0.5 @ k.mT
    return _WideScores.apply(q, k)


class _WideScores(torch.autograd.Function):
    """Scores in float32 of narrower q and k, as torch's fused kernel has them: bf16 rounds a score of 30 by up to 0.06.

    The backward pass rounds the gradient and multiplies in q's own type, as the fused kernel does: that type's
    products are the fast ones.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> Tensor:
        ctx.save_for_backward(q, k)
        with torch.autocast(q.device.type, enabled=False):  # which would make bf16 products of these
            return q.float() * q.shape[-1] ** -0.5 @ k.float().mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        q, k = ctx.saved_tensors
        grad = (grad * q.shape[-1] ** -0.5).to(q.dtype)
        return grad @ k, grad.mT @ q


def _visible(scores: Tensor, mask: Tensor | None, start: int) -> Tensor:
    """Scores of the rows from `start` on, -inf where nothing may be seen."""
    if mask is None:
        return scores + scores.new_full(scores.shape[-2:], -math.inf).triu(start + 1)
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of x (B, H, T, D) by `rope_angles`: RoPE (arXiv 2104.09864, equation 34).

    A score of two turned vectors depends on the distance of their positions only. Halves instead of
    neighbours make the pairs, as in GPT-NeoX; that merely reorders the columns of c_attn.
    """
    first, second = x.to(angles.dtype).chunk(2, dim=-1)  # (B, H, T, D/2) each
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)


def rope_angles(positions: Tensor, head_dim: int, dtype: torch.dtype) -> Tensor:
    """Angles of the positions, base 10000: (T, D/2) for positions (T,), (B, 1, T, D/2) for positions (B, T)."""
    angles = position_angles(positions, head_dim, dtype)
    return angles if positions.ndim == 1 else angles[:, None]


def attention_mask(config: GPTConfig, positions: Tensor, held: int, like: Tensor) -> Tensor | None:
    """What must be said about visibility beyond "causal": None, bool (T, S) or a float bias (H, T, S).

    `positions` are those of the new tokens, `held` the most that any sequence of the cache has. Where sequences
    differ in length, positions (B, T), the mask is (B, 1, T, S) or (B, H, T, S). None lets the attention
    kernel take its fastest way.
    """
    alibi, length = config.position is Position.alibi, positions.shape[-1]
    if not alibi and positions.ndim == 1 and (held == 0 or length == 1):
        return None
    seen = torch.arange(held + length, device=like.device)  # (S,)
    distance = seen - positions[..., None]  # (…, T, S): 0 for itself, negative before it, positive in the future
    if positions.ndim == 2:
        distance = distance[:, None]  # (B, 1, T, S)
    if not alibi:
        return distance <= 0
    dtype = torch.promote_types(like.dtype, torch.float32)
    slopes = torch.tensor(alibi_slopes(config.n_head), device=like.device, dtype=dtype)  # (H,)
    return (slopes[:, None, None] * distance).masked_fill(distance > 0, -math.inf)


def two_sided_mask(config: GPTConfig, length: int, lengths: Tensor | None, like: Tensor) -> Tensor:
    """Visibility without causality, every token sees all but padding: bool (B, 1, 1, T) or a float bias (B, H, T, T).

    lengths (B,): tokens of each text, before its padding; None: there is none. Linear biases count the
    distance to both sides.
    """
    places = torch.arange(length, device=like.device)  # (T,)
    whole = torch.tensor([length], device=like.device) if lengths is None else lengths
    seen = places < whole[:, None, None, None]  # (B, 1, 1, T)
    if config.position is not Position.alibi:
        return seen
    dtype = torch.promote_types(like.dtype, torch.float32)
    slopes = torch.tensor(alibi_slopes(config.n_head), device=like.device, dtype=dtype)  # (H,)
    bias = -slopes[:, None, None] * (places - places[:, None]).abs()  # (H, T, T)
    return bias.masked_fill(~seen, -math.inf)


def alibi_slopes(n_head: int) -> list[float]:
    """Slopes of the linear biases (arXiv 2108.12409, section 3 and the authors' rule for other head counts).

    For n = 2^m heads: 2^(-8/n), 2^(-16/n) … 2^-8. Other counts take the slopes of the power of two
    below, then every second one of the power of two above.
    """
    power = 1 << (n_head.bit_length() - 1)
    between = range(1, 2 * (n_head - power), 2)
    return [2.0 ** (-8 * i / power) for i in range(1, power + 1)] + [2.0 ** (-4 * i / power) for i in between]
