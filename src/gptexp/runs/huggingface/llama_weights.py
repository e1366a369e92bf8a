"""Conversion between gptexp's weights and those of Llama and Qwen3 in transformers.

Both have matrices (out, in), and in both RoPE rotates the pairs (i, i + D/2) of a head. gptexp stores the matrices of
queries, keys and values as one. Qwen3 has one epsilon for all norms, and gptexp's QK-norm has its own. A factor of the
weights before the norm makes up for it: the norm of s x with eps is that of x with eps / s².
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import torch

from gptexp.config.model import QK_EPS, GPTConfig

Weights = dict[str, torch.Tensor]
Shape = tuple[int, ...]

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def parts(config: GPTConfig, vocab_size: int) -> dict[str, dict[str, Shape]]:
    """Return, by gptexp's name of each weight, the weights of transformers that it consists of, with their shapes."""
    width, hidden, D = config.n_embd, config.mlp_width, config.head_dim
    queries, keys = config.n_head * D, config.kv_heads * D
    linear: dict[str, dict[str, Shape]] = {
        "attn.c_attn": {
            "self_attn.q_proj": (queries, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
        },
        "attn.c_proj": {"self_attn.o_proj": (width, width)},
        "mlp.c_gate": {"mlp.gate_proj": (hidden, width)},
        "mlp.c_fc": {"mlp.up_proj": (hidden, width)},
        "mlp.c_proj": {"mlp.down_proj": (width, hidden)},
    }
    norms: dict[str, dict[str, Shape]] = {
        "ln_1": {"input_layernorm": (width,)},
        "ln_2": {"post_attention_layernorm": (width,)},
        **({f"attn.{name}": {f"self_attn.{name}": (D,)} for name in ("q_norm", "k_norm")} if config.qk_norm else {}),
    }
    found: dict[str, dict[str, Shape]] = {
        "transformer.wte.weight": {EMBEDDING: (vocab_size, width)},
        "transformer.ln_f.weight": {NORM: (width,)},
        **({} if config.tie_weights else {HEAD: {HEAD: (vocab_size, width)}}),
    }
    for layer in range(config.n_layer):
        ours, theirs = f"transformer.h.{layer}.", f"model.layers.{layer}."
        for name, its in (linear | norms).items():
            found[f"{ours}{name}.weight"] = {f"{theirs}{part}.weight": shape for part, shape in its.items()}
            if config.bias and name in linear:
                found[f"{ours}{name}.bias"] = {f"{theirs}{part}.bias": shape[:1] for part, shape in its.items()}
    return found


def imported(stored: Weights, config: GPTConfig, vocab_size: int, source: Path) -> Weights:
    """Return transformers' weights with gptexp's names, and those of queries, keys and values joined.

    stored: is emptied, so that no weight is in memory twice.

    Raises:
        ValueError: a weight is missing, unknown, or of another shape.
    """
    table = parts(config, vocab_size)
    _require_shapes(stored, {name: shape for its in table.values() for name, shape in its.items()}, source)
    for name in [name for name in stored if _is_scaled(name, config)]:
        stored[name] *= sqrt(QK_EPS / config.norm_eps)
    return {ours: torch.cat([stored.pop(name) for name in its]) for ours, its in table.items()}


def exported(weights: Weights, config: GPTConfig) -> Weights:
    """Return gptexp's weights as transformers stores them; the multipliers of muP become part of them."""
    stored: Weights = {}
    for ours, its in parts(config, len(weights["transformer.wte.weight"])).items():
        heights = [shape[0] for shape in its.values()]
        if len(heights) > 1:
            stored |= {name: part.clone() for name, part in zip(its, weights[ours].split(heights), strict=True)}
        else:
            stored |= dict.fromkeys(its, weights[ours] if ours in weights else stored[EMBEDDING].new_ones(heights))
    for name, tensor in stored.items():
        if name == NORM:
            stored[name] = tensor / config.width_ratio
        elif f".self_attn.{'q_norm' if config.qk_norm else 'q_proj'}." in name:
            stored[name] = tensor * config.query_scale
        elif _is_scaled(name, config):
            stored[name] = tensor * sqrt(config.norm_eps / QK_EPS)
    return stored


def _is_scaled(name: str, config: GPTConfig) -> bool:
    """Return whether a weight makes up for the epsilon of QK-norm."""
    return config.qk_norm and (".self_attn.q_proj." in name or ".self_attn.k_proj." in name)


def _require_shapes(stored: Weights, expected: dict[str, Shape], source: Path) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            its, wanted = found.get(name, "missing"), expected.get(name, "none")
            raise ValueError(f"{source}: {name} is {its}, that of config.json is {wanted}")
