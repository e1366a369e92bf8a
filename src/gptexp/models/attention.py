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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptexp.config.model import GPTConfig, Position
from gptexp.models.layers import position_angles, require_length


class KVCache:
    """Keys and values of the tokens seen so far, so that a new token costs one forward pass of one token.

    Memory for `block_size` tokens is taken at once: 2 tensors (B, K, L, D) for each layer.
    """

    def __init__(self, config: GPTConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (batch_size, config.kv_heads, config.block_size, config.head_dim)  # (B, K, L, D)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]
        self.block_size = config.block_size
        self.length = 0  # tokens held

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (B, K, T, D) of the new tokens behind `length`; give back all (B, K, S, D).

        `length` itself moves by `advance`, when every layer has written.
        """
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end].to(k.dtype), self.values[layer][:, :, :end].to(v.dtype)

    def require_room(self, n_tokens: int) -> None:
        """Raise ValueError unless n_tokens more fit."""
        require_length(self.length + n_tokens, self.block_size)

    def advance(self, n_tokens: int) -> None:
        self.length += n_tokens

    def reset(self) -> None:
        """Forget every token; the memory is kept."""
        self.length = 0


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

    def forward(self, x: Tensor, rope: Tensor | None, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """x (B, T, C); rope angles (T, D/2); mask as from `attention_mask`; cache extended in place."""
        q, k, v = self.project(x)  # (B, H, T, D), (B, K, T, D), (B, K, T, D)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, K, S, D)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype),
            dropout_p=self.attn_dropout if self.training else 0.0,
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


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of x (B, H, T, D) by angles (T, D/2): RoPE (arXiv 2104.09864, equation 34).

    A score of two turned vectors depends on the distance of their positions only. Halves instead of
    neighbours make the pairs, as in GPT-NeoX; that merely reorders the columns of c_attn.
    """
    first, second = x.to(angles.dtype).chunk(2, dim=-1)  # (B, H, T, D/2) each
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)


def rope_angles(positions: Tensor, head_dim: int, dtype: torch.dtype) -> Tensor:
    """Angles (T, D/2) of the positions (T,), base 10000."""
    return position_angles(positions, head_dim, dtype)


def attention_mask(config: GPTConfig, start: int, length: int, like: Tensor) -> Tensor | None:
    """What must be said about visibility beyond "causal": None, bool (T, S) or a float bias (H, T, S).

    `start` tokens lie in the cache, `length` are new. None lets the attention kernel take its fastest way.
    """
    alibi = config.position is Position.alibi
    if not alibi and (start == 0 or length == 1):
        return None
    seen = torch.arange(start + length, device=like.device)  # (S,)
    distance = seen - seen[start:, None]  # (T, S): 0 on the diagonal, negative before it, positive in the future
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
