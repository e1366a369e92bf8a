"""Causal self-attention: multiple heads, grouped key/value heads, positions by rotation (RoPE) or bias (ALiBi).

Letters of shapes, here, in gpt.py, in kv_cache.py and in kernels/:
    B  batch (sequences)            H  query heads, n_head
    T  tokens of the input          K  key/value heads, n_kv_head (H is a multiple of it)
    S  tokens attended to:          D  head_dim = C / H
       those in the cache and T     C  n_embd
    L  block_size                   V  vocab_size
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gptexp.config.model import QK_EPS, GPTConfig, Position
from gptexp.models.kernels.attention import Mask, attention_by_products, attention_fused, attention_weights
from gptexp.models.kernels.choice import ModuleWithKernels
from gptexp.models.kernels.norm import RMSNorm, rms_norm
from gptexp.models.kernels.rotation import rotate_pairs
from gptexp.models.kv_cache import KVCache, Positions
from gptexp.models.layers import position_angles

Angles = Float[Tensor, "T half_D"] | Float[Tensor, "B 1 T half_D"]  # of RoPE, half_D = D / 2


class CausalSelfAttention(ModuleWithKernels):
    """(B, T, C) -> (B, T, C); each position attends to itself and those before it (arXiv 1706.03762, section 3.2).

    An explicit mask replaces causality, for example `two_sided_mask`.

    reach: how many tokens before and after a token it sees at most, with a window; None: all that the mask shows.
    """

    def __init__(self, config: GPTConfig, layer: int, causal: bool = True) -> None:
        super().__init__()
        self.layer = layer
        window = config.window_of(layer)
        self.reach = None if window is None else (window - 1, 0 if causal else window - 1)
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.kv_heads, config.head_dim
        self.query_scale = config.query_scale
        self.qk_norm, self.attn_dropout = config.qk_norm, config.attn_dropout
        gained = config.qk_norm_gain
        self.q_norm, self.k_norm = (RMSNorm(self.head_dim, eps=QK_EPS) if gained else None for _ in "qk")
        self.c_attn = nn.Linear(config.n_embd, (self.n_head + 2 * self.n_kv_head) * self.head_dim, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        rope: Angles | None,
        mask: Mask | None,
        cache: KVCache | None,
        positions: Positions | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Attention of x, with the angles of `rope_angles` and the mask of `attention_mask`.

        With a cache, the keys and values of x are written to it at `positions`.
        """
        q, k, v = self.project(x, rope)  # (B, H, T, D), (B, K, T, D), (B, K, T, D)
        if cache is not None:
            assert positions is not None
            k, v = cache.extend(self.layer, k, v, positions)  # (B, K, S, D)
        dropout = self.attn_dropout if self.training else 0.0
        if cache is None and self.kernels.use_products(q, dropout, self.reach):
            y = attention_by_products(q, k, v, mask, dropout, self.reach)  # (B, H, T, D)
        else:
            is_causal = mask is None and (cache is None or q.shape[2] > 1)  # one new token attends to the whole cache
            y = attention_fused(q, k, v, mask, dropout, is_causal=is_causal)  # (B, H, T, D)
        y = y.transpose(1, 2).flatten(2)  # (B, H, T, D) -> (B, T, H, D) -> (B, T, C)
        out: Tensor = self.c_proj(y)
        return out

    def weights(self, x: Float[Tensor, "B T C"], rope: Angles | None, mask: Mask | None) -> Float[Tensor, "B H T T"]:
        """The attention weights of x, which `forward` does not keep; without a cache and dropout."""
        q, k, _ = self.project(x, rope)
        return attention_weights(q, k, mask)

    def seen(self, block_size: int) -> int:
        """The most tokens that a token sees in a window of block_size tokens, itself included."""
        return block_size if self.reach is None else min(sum(self.reach) + 1, block_size)

    def project(
        self, x: Float[Tensor, "B T C"], rope: Angles | None = None
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B K T D"], Float[Tensor, "B K T D"]]:
        """Queries, keys and values of x, split into heads; queries and keys are normalized and rotated together."""
        qkv: Tensor = self.c_attn(x)  # (B, T, (H + 2K) * D)
        heads = torch.unflatten(qkv, -1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, H + 2K, D) -> (B, H + 2K, T, D)
        qk, v = torch.split(heads, [self.n_head + self.n_kv_head, self.n_kv_head], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = torch.split(qk, [self.n_head, self.n_kv_head], dim=1)
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
        elif self.qk_norm:  # bounds the attention scores (arXiv 2302.05442 uses LayerNorm here)
            qk = rms_norm(qk, None, eps=QK_EPS)
        if rope is not None:
            qk = rotate(qk, rope)
        q, k = torch.split(qk, [self.n_head, self.n_kv_head], dim=1)
        if self.query_scale != 1:
            q = q * self.query_scale  # of muP
        return q, k, v


def rotate(x: Float[Tensor, "B N T D"], angles: Angles) -> Float[Tensor, "B N T D"]:
    """Rotate each pair (i, i + D/2) of x by the angles of `rope_angles`: RoPE (arXiv 2104.09864, equation 34).

    The score of two rotated vectors depends on the distance between their positions only. The pairs are halves
    instead of neighbours, as in GPT-NeoX; the difference is a permutation of the columns of c_attn.
    """
    return rotate_pairs(x.to(angles.dtype), angles.cos(), angles.sin()).to(x.dtype)


def rope_angles(positions: Positions, head_dim: int, dtype: torch.dtype, theta: float = 10_000.0) -> Angles:
    """Angles of RoPE with base theta: (T, D/2) for positions (T,), (B, 1, T, D/2) for positions (B, T)."""
    angles = position_angles(positions, head_dim, dtype, theta)  # (..., T, D/2)
    return angles if positions.ndim == 1 else angles[:, None]


def attention_mask(
    config: GPTConfig, positions: Positions, held: int, like: Tensor, window: int | None = None
) -> Mask | None:
    """The mask of causal attention, or None if `is_causal` suffices and the fastest kernels apply.

    Args:
        positions: of the new tokens, (T,), or (B, T) where sequences differ in length.
        held: the most tokens that any sequence of the cache holds.
        like: a tensor with the device, and the dtype of the biases, to use.
        window: how many tokens a token sees, itself included (arXiv 2004.05150, section 3.1); None: all.

    Returns a bool mask (T, S) or ALiBi's bias (H, T, S); (B, 1, T, S) or (B, H, T, S) for positions (B, T).
    """
    alibi, length = config.position is Position.alibi, positions.shape[-1]
    all_seen = window is None or held + length <= window
    if all_seen and not alibi and positions.ndim == 1 and (held == 0 or length == 1):
        return None
    seen = torch.arange(held + length, device=like.device)  # (S,)
    distance = seen - positions[..., None]  # (..., T, S): 0 for the token itself, negative before, positive after it
    if positions.ndim == 2:
        distance = distance[:, None]  # (B, 1, T, S)
    visible = distance <= 0
    if window is not None and not all_seen:
        visible &= distance > -window
    if not alibi:
        return visible
    slopes = _slopes(config.n_head, like)  # (H, 1, 1)
    return (slopes * distance).masked_fill(~visible, -math.inf)


def two_sided_mask(
    config: GPTConfig, length: int, lengths: Int[Tensor, " B"] | None, like: Tensor, window: int | None = None
) -> Mask:
    """The mask of attention without causality: every token sees all tokens of its text, and no padding.

    Args:
        length: T, padding included.
        lengths: tokens of each text without its padding on the right; None: there is no padding.
        window: how many tokens a token sees on each side, itself included; None: all.

    Returns a bool mask (B, 1, 1, T), with a window (B, 1, T, T), or ALiBi's bias (B, H, T, T), which decreases with
    the distance on both sides.
    """
    places = torch.arange(length, device=like.device)  # (T,)
    whole = torch.tensor([length], device=like.device) if lengths is None else lengths  # (B,)
    seen = places < whole[:, None, None, None]  # (B, 1, 1, T)
    if window is not None:
        distance = (places - places[:, None]).abs()  # (T, T)
        # Padding far from its text sees itself: the softmax of nothing would be NaN, and spread to other tokens.
        seen = (seen & (distance < window)) | (distance == 0)  # (B, 1, T, T)
    if config.position is not Position.alibi:
        return seen
    bias = -_slopes(config.n_head, like) * (places - places[:, None]).abs()  # (H, T, T)
    return bias.masked_fill(~seen, -math.inf)


def _slopes(n_head: int, like: Tensor) -> Float[Tensor, "H 1 1"]:
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.tensor(alibi_slopes(n_head), device=like.device, dtype=dtype)[:, None, None]


def alibi_slopes(n_head: int) -> list[float]:
    """Slopes of the linear biases (arXiv 2108.12409, section 3 and the authors' code for other numbers of heads).

    For n = 2^m heads: 2^(-8/n), 2^(-16/n), ..., 2^-8. Other numbers use the slopes of the next lower power of two,
    then every second slope of the next higher one.
    """
    power = 1 << (n_head.bit_length() - 1)
    between = range(1, 2 * (n_head - power), 2)
    return [2.0 ** (-8 * i / power) for i in range(1, power + 1)] + [2.0 ** (-4 * i / power) for i in between]
