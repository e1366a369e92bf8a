"""The GPT of gptexp.models.gpt once more, in plain NumPy: written apart from it, to be read and to check it by.

    tokens (T,) ──embed──▶ (T, C) ──block × n_layer──▶ (T, C) ──norm, head──▶ logits (T, V)

One text at a time, no cache, no training. Letters of shapes: T tokens, C = n_embd, V = vocab_size,
H = n_head, K = n_kv_head, D = C / H. Weights have a checkpoint's names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptexp.config.model import Activation, GPTConfig, ModelConfig, Norm, NormPosition, Position

Weights = Mapping[str, np.ndarray]


def logits(weights: Weights, config: ModelConfig, tokens: Any) -> np.ndarray:
    """Logits (T, V) of the token after each of `tokens` (T,), in the precision of the weights.

    Raises:
        ValueError: no GPT, or more tokens than block_size.
    """
    config = require_gpt(config)
    if len(tokens) > config.block_size:
        raise ValueError(f"{len(tokens)} tokens don't fit in model.block_size={config.block_size}")
    x = embed(weights, config, np.asarray(tokens))
    for layer in range(config.n_layer):
        start = f"transformer.h.{layer}."
        x = block({name[len(start) :]: w for name, w in weights.items() if name.startswith(start)}, config, x)
    if config.norm_position is NormPosition.pre:
        x = norm(x, weights, "transformer.ln_f", config)
    head = "transformer.wte.weight" if config.tie_weights else "lm_head.weight"
    return x @ weights[head].T


def require_gpt(config: ModelConfig) -> GPTConfig:
    """Refuse the other kinds of models by name."""
    if not isinstance(config, GPTConfig):
        raise ValueError(f"model.kind={config.kind}: the NumPy reference computes gpt only")
    return config


def embed(w: Weights, config: GPTConfig, tokens: np.ndarray) -> np.ndarray:
    """A vector for each token, and one for its place where positions are vectors: (T, C)."""
    x = w["transformer.wte.weight"][tokens]
    if config.position is Position.learned:
        x = x + w["transformer.wpe.weight"][: len(tokens)]
    if config.position is Position.sinusoidal:
        angles = place_angles(len(tokens), config.n_embd)  # (T, C/2), sine and cosine of each side by side
        table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(tokens), -1)[:, : config.n_embd]
        x = x * math.sqrt(config.n_embd) + table.astype(x.dtype)
    return x


def block(w: Weights, config: GPTConfig, x: np.ndarray) -> np.ndarray:
    """Attention, then feed-forward, each beside a residual path: (T, C)."""
    x = branch(x, lambda y: attention(w, config, y), w, "ln_1", config)
    return branch(x, lambda y: feed_forward(w, config, y), w, "ln_2", config) if config.mlp_ratio else x


def branch(x: np.ndarray, layer: Any, w: Weights, name: str, config: GPTConfig) -> np.ndarray:
    """Norm before the layer (GPT-2) or after the sum (GPT-1)."""
    pre = config.norm_position is NormPosition.pre
    y = layer(norm(x, w, name, config) if pre else x)
    y = x + y if config.residual else y
    return y if pre else norm(y, w, name, config)


def attention(w: Weights, config: GPTConfig, x: np.ndarray) -> np.ndarray:
    """Each token's weighted mean of the values of those up to it, in H heads: (T, C)."""
    T, H, K, D = len(x), config.n_head, config.kv_heads, config.head_dim
    heads = linear(x, w, "attn.c_attn").reshape(T, H + 2 * K, D).swapaxes(0, 1)  # (H + 2K, T, D)
    q, k, v = heads[:H], heads[H : H + K], heads[H + K :]
    if config.qk_norm:
        q, k = rms(q, 1e-6), rms(k, 1e-6)
    if config.position is Position.rope:
        q, k = turned(q), turned(k)
    k, v = np.repeat(k, H // K, axis=0), np.repeat(v, H // K, axis=0)  # (H, T, D): a key head for H/K queries
    scores = q @ k.swapaxes(1, 2) / math.sqrt(D)  # (H, T, T): how much row i attends to column j
    distance = np.arange(T) - np.arange(T)[:, None]  # j - i
    if config.position is Position.alibi:
        scores = scores + slopes(H).astype(x.dtype)[:, None, None] * distance.astype(x.dtype)
    y = softmax(np.where(distance <= 0, scores, -np.inf)) @ v  # nobody sees the future
    return linear(y.swapaxes(0, 1).reshape(T, H * D), w, "attn.c_proj")


def feed_forward(w: Weights, config: GPTConfig, x: np.ndarray) -> np.ndarray:
    """Two layers for each token by itself: (T, C)."""
    hidden = linear(x, w, "mlp.c_fc")
    if config.activation is Activation.swiglu:
        gate = linear(x, w, "mlp.c_gate")
        hidden = hidden * gate / (1 + np.exp(-gate))
    else:
        hidden = ACTIVATIONS[config.activation](hidden)
    return linear(hidden, w, "mlp.c_proj")


ACTIVATIONS: dict[Activation, Any] = {
    Activation.gelu: lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)).astype(x.dtype)) / 2,
    Activation.gelu_tanh: lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    Activation.relu: lambda x: np.maximum(x, 0),
    Activation.relu2: lambda x: np.maximum(x, 0) ** 2,
}


def linear(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    """x W' + b; W has a row for each output, as torch stores it."""
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", np.zeros(1, x.dtype))


def norm(x: np.ndarray, w: Weights, name: str, config: GPTConfig) -> np.ndarray:
    """LayerNorm (arXiv 1607.06450), RMSNorm (arXiv 1910.07467) or nothing."""
    if config.norm is Norm.none:
        return x
    if config.norm is Norm.layernorm:
        x = x - x.mean(axis=-1, keepdims=True)
    return rms(x, 1e-5) * w[f"{name}.weight"] + w.get(f"{name}.bias", np.zeros(1, x.dtype))


def rms(x: np.ndarray, eps: float) -> np.ndarray:
    """x over the root of its mean square."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.asarray(eps, x.dtype))


def softmax(x: np.ndarray) -> np.ndarray:
    """Rows that sum to one; their largest is taken off first, so that nothing overflows."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def turned(x: np.ndarray) -> np.ndarray:
    """Pairs (i, i + D/2) of x (·, T, D) as complex numbers, each turned by its place's angle (arXiv 2104.09864)."""
    half = x.shape[-1] // 2
    pairs = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * place_angles(x.shape[-2], x.shape[-1]))
    return np.concatenate([pairs.real, pairs.imag], axis=-1).astype(x.dtype)


def place_angles(length: int, width: int) -> np.ndarray:
    """place / 10000^(2i/width): (T, width/2) (arXiv 1706.03762, section 3.5)."""
    return np.arange(length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)


def slopes(n_head: int) -> np.ndarray:
    """ALiBi's (arXiv 2108.12409): powers of 2^(-8/n); the next finer series fills up what is no power of two."""
    n = 2 ** int(math.log2(n_head))
    return np.array([2 ** (-8 * i / n) for i in range(1, n + 1)] + [2 ** (-4 * i / n) for i in range(1, 2 * n, 2)])[
        :n_head
    ]
