"""Conversion between gptexp's weights and those of Llama and Qwen3 in transformers.

Both have matrices (out, in), and in both RoPE rotates the pairs (i, i + D/2) of a head. gptexp stores the matrices of
queries, keys and values as one. Qwen3 has one epsilon for all norms, and gptexp's QK-norm has its own. A factor of the
weights before the norm makes up for it: the norm of s x with eps is that of x with eps / s².
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from pathlib import Path

import torch

from gptexp.config.model import QK_EPS, GPTConfig

Weights = dict[str, torch.Tensor]
Shape = tuple[int, ...]

QKV = "attn.c_attn"
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")  # of QKV
NAMES = {
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "mlp.c_gate": "mlp.gate_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
OUTER = {"transformer.wte.weight": EMBEDDING, "transformer.ln_f.weight": NORM, HEAD: HEAD}


def imported(stored: Weights, config: GPTConfig, vocab_size: int, source: Path) -> Weights:
    """Return transformers' weights with gptexp's names, and those of queries, keys and values joined.

    stored: is emptied, so that no weight is in memory twice.

    Raises:
        ValueError: a weight is missing, unknown, or of another shape.
    """
    _require_shapes(stored, dict(shapes(config, vocab_size)), source)
    weights = {ours: stored.pop(theirs) for ours, theirs in OUTER.items() if theirs in stored}
    scale = sqrt(QK_EPS / config.norm_eps) if config.qk_norm else 1.0
    for ours, theirs, end in _blocks(config):
        q, k, v = (stored.pop(f"{theirs}{part}.{end}") for part in PARTS)
        weights[f"{ours}{QKV}.{end}"] = torch.cat((q * scale, k * scale, v))
        pairs = {f"{ours}{name}.{end}": f"{theirs}{its}.{end}" for name, its in NAMES.items()}
        weights |= {name: stored.pop(its) for name, its in pairs.items() if its in stored}
    return weights


def exported(weights: Weights, config: GPTConfig) -> Weights:
    """Return gptexp's weights as transformers stores them; the multipliers of muP become part of them."""
    stored = {theirs: weights[ours] for ours, theirs in OUTER.items() if ours in weights}
    stored[NORM] = stored[NORM] / config.width_ratio
    scale = sqrt(config.norm_eps / QK_EPS) if config.qk_norm else 1.0
    query_scale = 1.0 if config.qk_norm else config.query_scale  # after QK-norm, it is part of the gain
    for ours, theirs, end in _blocks(config):
        q, k, v = weights[f"{ours}{QKV}.{end}"].split(_heights(config))
        parts = zip(PARTS, (q * (scale * query_scale), k * scale, v.clone()), strict=True)
        stored |= {f"{theirs}{part}.{end}": tensor for part, tensor in parts}
        pairs = {f"{theirs}{its}.{end}": f"{ours}{name}.{end}" for name, its in NAMES.items()}
        stored |= {its: weights[name] for its, name in pairs.items() if name in weights}
        if config.qk_norm:
            ones = q.new_ones(config.head_dim)
            for part, factor in (("q_norm", config.query_scale), ("k_norm", 1.0)):
                stored[f"{theirs}self_attn.{part}.weight"] = weights.get(f"{ours}attn.{part}.weight", ones) * factor
    return stored


def shapes(config: GPTConfig, vocab_size: int) -> Iterator[tuple[str, Shape]]:
    """Yield name and shape of each weight that transformers stores for a model with these settings."""
    width, hidden = config.n_embd, config.mlp_width
    shape: dict[str, Shape] = {part: (rows, width) for part, rows in zip(PARTS, _heights(config), strict=True)}
    shape |= {"self_attn.o_proj": (width, width), "mlp.down_proj": (width, hidden)}
    shape |= dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (hidden, width))
    shape |= dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (width,))
    shape |= dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), (config.head_dim,)) if config.qk_norm else {}
    for _, theirs, end in _blocks(config):
        for name, size in shape.items():
            if end == "weight" or len(size) == 2:  # norms have no bias
                yield f"{theirs}{name}.{end}", size if end == "weight" else size[:1]
    yield from ((name, (vocab_size, width)) for name in ((EMBEDDING,) if config.tie_weights else (EMBEDDING, HEAD)))
    yield NORM, (width,)


def _blocks(config: GPTConfig) -> Iterator[tuple[str, str, str]]:
    """Yield the beginnings of the names of a block, ours and theirs, with each end that its linear layers have."""
    for layer in range(config.n_layer):
        for end in ("weight", "bias") if config.bias else ("weight",):
            yield f"transformer.h.{layer}.", f"model.layers.{layer}.", end


def _heights(config: GPTConfig) -> list[int]:
    """Rows of the matrices of queries, keys and values."""
    return [heads * config.head_dim for heads in (config.n_head, config.kv_heads, config.kv_heads)]


def _require_shapes(stored: Weights, expected: dict[str, Shape], source: Path) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            its, wanted = found.get(name, "missing"), expected.get(name, "none")
            raise ValueError(f"{source}: {name} is {its}, that of config.json is {wanted}")
