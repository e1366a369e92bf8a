"""A second implementation of the GPT in gptexp.models.gpt, in plain NumPy: for reading, and to verify the first.

    tokens (T,) --embed--> (T, C) --block, n_layer times--> (T, C) --norm, head--> logits (T, V)

One text at a time, without a cache and without training. It shares no code with the first implementation. Letters of
the shapes: T tokens, C = n_embd, V = vocab_size, H = n_head, K = n_kv_head, D = C / H. Weights have the names of a
checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from gptexp.config.model import Activation, GPTConfig, ModelConfig, Norm, NormPosition, Position

Weights: TypeAlias = Mapping[str, np.ndarray]
Hidden: TypeAlias = Float[np.ndarray, "T C"]


def logits(
    weights: Weights, config: ModelConfig, tokens: Sequence[int] | Int[np.ndarray, " T"]
) -> Float[np.ndarray, "T V"]:
    """Logits of the token after each of the tokens, in the precision of the weights.

    Raises:
        ValueError: the model is no GPT, or there are more tokens than block_size.
    """
    config = require_gpt(config)
    if len(tokens) > config.block_size:
        raise ValueError(
            f"{len(tokens)} tokens exceed model.block_size={config.block_size}; give at most the last "
            f"{config.block_size}"
        )
    x = embed(weights, config, np.asarray(tokens))  # (T, C)
    for layer in range(config.n_layer):
        prefix = f"transformer.h.{layer}."
        own = {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}
        x = block(own, config, x, config.window_of(layer))
    if config.norm_position is NormPosition.pre:
        x = norm(x, weights, "transformer.ln_f", config)
    head = "transformer.wte.weight" if config.tie_weights else "lm_head.weight"
    x = x / np.asarray(config.width_ratio, x.dtype)  # 1, except with muP
    out: np.ndarray = x @ weights[head].T  # (T, C) @ (C, V)
    return out


def require_gpt(config: ModelConfig) -> GPTConfig:
    """Refuse other kinds of models."""
    if not isinstance(config, GPTConfig):
        raise ValueError(f"model.kind={config.kind}: the NumPy reference supports only gpt")
    return config


def embed(w: Weights, config: GPTConfig, tokens: Int[np.ndarray, " T"]) -> Hidden:
    """Token vectors, plus those of n-grams and of learned or sinusoidal positions."""
    x: np.ndarray = w["transformer.wte.weight"][tokens]  # (V, C) -> (T, C)
    for n in range(2, config.ngram + 1):
        table = w[f"transformer.ngrams.tables.{n - 2}.weight"]
        for t in range(n - 1, len(tokens)):
            key, *earlier = tokens[t + 1 - n : t + 1].tolist()[::-1]  # the newest token first
            for token in earlier:
                key = (key * 1_000_003 + token + 1) % (2**31 - 1)
            x[t] += table[key % config.ngram_rows]
    if config.position is Position.learned:
        x = x + w["transformer.wpe.weight"][: len(tokens)]
    if config.position is Position.sinusoidal:
        # (T, ceil(C/2)); sine and cosine of each are neighbours
        angles = position_angles(len(tokens), config.n_embd, 10_000.0)
        table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(tokens), -1)[:, : config.n_embd]
        x = x * math.sqrt(config.n_embd / config.width_ratio) + table.astype(x.dtype)
    return x


def block(w: Weights, config: GPTConfig, x: Hidden, window: int | None) -> Hidden:
    """Attention, then feed-forward, each on a residual branch."""
    x = branch(x, lambda y: attention(w, config, y, window), w, "ln_1", config)
    return branch(x, lambda y: feed_forward(w, config, y), w, "ln_2", config) if config.mlp_ratio else x


def branch(x: Hidden, layer: Callable[[Any], Any], w: Weights, name: str, config: GPTConfig) -> Hidden:
    """The layer on a residual branch, with the norm before the layer (GPT-2) or after the sum (GPT-1)."""
    pre = config.norm_position is NormPosition.pre
    y = layer(norm(x, w, name, config) if pre else x)
    y = x + y if config.residual else y
    return y if pre else norm(y, w, name, config)


def attention(w: Weights, config: GPTConfig, x: Hidden, window: int | None) -> Hidden:
    """For each token and head, the weighted mean of the values of the last `window` tokens up to it; None: of all."""
    T, H, K, D = len(x), config.n_head, config.kv_heads, config.head_dim
    heads = linear(x, w, "attn.c_attn").reshape(T, H + 2 * K, D).swapaxes(0, 1)  # (H + 2K, T, D)
    q, k, v = heads[:H], heads[H : H + K], heads[H + K :]
    if config.qk_norm:
        q, k = divide_by_rms(q, 1e-6), divide_by_rms(k, 1e-6)
    if config.qk_norm_gain:
        q, k = q * w["attn.q_norm.weight"], k * w["attn.k_norm.weight"]  # (D,)
    if config.position is Position.rope:
        q, k = rotate(q, config.rope_theta), rotate(k, config.rope_theta)
    k, v = np.repeat(k, H // K, axis=0), np.repeat(v, H // K, axis=0)  # (H, T, D): one key head for H/K query heads
    scores = q @ k.swapaxes(1, 2) * (config.query_scale / math.sqrt(D))  # (H, T, T): row i attends to column j
    distance = np.arange(T) - np.arange(T)[:, None]  # (T, T): j - i
    if config.position is Position.alibi:
        scores = scores + alibi_slopes(H).astype(x.dtype)[:, None, None] * distance.astype(x.dtype)
    visible = (distance <= 0) & (distance > -(window or T))  # no token attends to later ones
    y = softmax(np.where(visible, scores, -np.inf)) @ v  # (H, T, D)
    return linear(y.swapaxes(0, 1).reshape(T, H * D), w, "attn.c_proj")  # (T, C)


def feed_forward(w: Weights, config: GPTConfig, x: Hidden) -> Hidden:
    """Two linear layers applied to each position."""
    hidden = linear(x, w, "mlp.c_fc")  # (T, width)
    if config.activation is Activation.swiglu:
        gate = linear(x, w, "mlp.c_gate")
        hidden = hidden * gate / (1 + np.exp(-gate))
    else:
        hidden = ACTIVATIONS[config.activation](hidden)
    return linear(hidden, w, "mlp.c_proj")  # (T, C)


ACTIVATIONS: dict[Activation, Callable[[Any], Any]] = {
    Activation.gelu: lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)).astype(x.dtype)) / 2,
    Activation.gelu_tanh: lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    Activation.relu: lambda x: np.maximum(x, 0),
    Activation.relu2: lambda x: np.maximum(x, 0) ** 2,
}


def linear(x: Float[np.ndarray, "T n_in"], w: Weights, name: str) -> Float[np.ndarray, "T n_out"]:
    """x W^T + b, with W (n_out, n_in) as torch stores it."""
    out: np.ndarray = x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", np.zeros(1, x.dtype))
    return out


def norm(x: Hidden, w: Weights, name: str, config: GPTConfig) -> Hidden:
    """LayerNorm (arXiv 1607.06450), RMSNorm (arXiv 1910.07467) or nothing."""
    if config.norm is Norm.none:
        return x
    if config.norm is Norm.layernorm:
        x = x - x.mean(axis=-1, keepdims=True)
    x = divide_by_rms(x, config.norm_eps)
    out: np.ndarray = x * w[f"{name}.weight"] + w.get(f"{name}.bias", np.zeros(1, x.dtype))
    return out


def divide_by_rms(x: Float[np.ndarray, "*batch D"], eps: float) -> Float[np.ndarray, "*batch D"]:
    """x divided by its root mean square over the last axis."""
    out: np.ndarray = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.asarray(eps, x.dtype))
    return out


def softmax(x: Float[np.ndarray, "*batch S"]) -> Float[np.ndarray, "*batch S"]:
    """exp(x) / sum exp(x) over the last axis; the maximum is subtracted first, so that exp does not overflow."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    out: np.ndarray = e / e.sum(axis=-1, keepdims=True)
    return out


def rotate(x: Float[np.ndarray, "N T D"], theta: float) -> Float[np.ndarray, "N T D"]:
    """RoPE (arXiv 2104.09864): pairs (i, i + D/2) as complex numbers, rotated by the angle of their position."""
    half = x.shape[-1] // 2
    pairs = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * position_angles(x.shape[-2], x.shape[-1], theta))
    return np.concatenate([pairs.real, pairs.imag], axis=-1).astype(x.dtype)


def position_angles(length: int, width: int, base: float) -> Float[np.ndarray, "T pairs"]:
    """position / base^(2i/width) in radians for ceil(width / 2) pairs i (arXiv 1706.03762, section 3.5)."""
    angles: np.ndarray = np.arange(length)[:, None] / base ** (np.arange(0, width, 2) / width)
    return angles


def alibi_slopes(n_head: int) -> Float[np.ndarray, " H"]:
    """ALiBi (arXiv 2108.12409): powers of 2^(-8/n) for n heads; if n is no power of two, slopes of 2n fill the rest."""
    n = 2 ** int(math.log2(n_head))
    slopes = [2 ** (-8 * i / n) for i in range(1, n + 1)] + [2 ** (-4 * i / n) for i in range(1, 2 * n, 2)]
    return np.array(slopes[:n_head])
