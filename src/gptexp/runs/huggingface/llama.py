"""Settings of transformers' Llama and Qwen3, to and from those of gptexp's GPT (no torch).

Qwen3 is Llama with QK-norm, and without biases in its feed-forward layers.
"""

from __future__ import annotations

from typing import Any

from gptexp.config.model import Activation, GPTConfig, Norm, NormPosition, Position
from gptexp.runs.huggingface import entries
from gptexp.runs.huggingface.entries import Given, require
from gptexp.util.text import typed_value

LLAMA, QWEN3 = "llama", "qwen3"
# Defaults of transformers' LlamaConfig and Qwen3Config.
SIZES = {
    LLAMA: {"vocab_size": 32000, "max_position_embeddings": 2048, "intermediate_size": 11008},
    QWEN3: {"vocab_size": 151936, "max_position_embeddings": 32768, "intermediate_size": 22016},
}
COMMON = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
HEAD_DIM = {LLAMA: None, QWEN3: 128}  # None: hidden_size / num_attention_heads
# Options that gptexp's GPT lacks, each with the only supported value.
FIXED: dict[str, Any] = {
    "hidden_act": "silu",
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
# Settings of gptexp's GPT that these models lack, each with the only value that can be exported.
ONLY: dict[str, Any] = {
    "position": Position.rope,
    "norm": Norm.rmsnorm,
    "norm_position": NormPosition.pre,
    "residual": True,
    "activation": Activation.swiglu,
}


def settings(given: Given) -> tuple[dict[str, Any], int]:
    """Return the settings `model.*` and vocab_size of a config.json.

    Raises:
        ConfigError: an entry that gptexp's GPT lacks; the message names it and its value.
    """
    kind = given["model_type"]
    entries.require_fixed(given, FIXED)
    sizes = {name: entries.size(given, name, default) for name, default in {**COMMON, **SIZES[kind]}.items()}
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    _require_head_dim(given, HEAD_DIM[kind], width, heads)
    layers = given.get("layer_types")
    full = layers is None or (isinstance(layers, list) and set(map(str, layers)) <= {"full_attention"})
    require(full, "layer_types", layers, "gptexp's GPT supports only full_attention")
    return {
        "kind": "gpt",
        "block_size": sizes["max_position_embeddings"],
        "n_embd": width,
        "n_layer": sizes["num_hidden_layers"],
        "n_head": heads,
        "n_kv_head": _kv_heads(given, heads, 32 if kind == QWEN3 else heads),
        "mlp_ratio": entries.ratio_of(sizes["intermediate_size"], width),
        "attn_dropout": entries.dropout(given, "attention_dropout", 0.0),
        "bias": _bias(given),
        "norm_eps": entries.number(given, "rms_norm_eps", 1e-6),
        "rope_theta": _theta(given),
        "tie_weights": entries.flag(given, "tie_word_embeddings", False),
        "qk_norm": kind == QWEN3,
        "qk_norm_gain": kind == QWEN3,
        **{name: getattr(only, "name", only) for name, only in ONLY.items()},
    }, sizes["vocab_size"]


def _require_head_dim(given: Given, default: int | None, width: int, heads: int) -> None:
    found = given.get("head_dim", default)
    right = found is None or (type(found) is int and found * heads == width)
    require(right, "head_dim", found, f"gptexp's GPT supports only hidden_size/num_attention_heads = {width}/{heads}")


def _kv_heads(given: Given, heads: int, default: int) -> int | None:
    if given.get("num_key_value_heads", default) is None:
        return None
    found = entries.size(given, "num_key_value_heads", default)
    return None if found == heads else found


def _bias(given: Given) -> bool:
    """Whether the linear layers have biases, which attention and feed-forward layers decide together in gptexp."""
    attention = entries.flag(given, "attention_bias", False)
    mlp = entries.flag(given, "mlp_bias", False)
    require(attention == mlp, "attention_bias", attention, f"must equal mlp_bias={typed_value(mlp)} in gptexp's GPT")
    return attention


def _theta(given: Given) -> float:
    """The base of RoPE: newer files have it in rope_parameters, older ones beside rope_scaling."""
    theta = entries.number(given, "rope_theta", 10_000.0)
    for name in ("rope_scaling", "rope_parameters"):
        rope = given.get(name) or {}
        require(isinstance(rope, dict), name, rope, "must be an object")
        unscaled = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1.0, "rope_theta": theta}
        for key, value in rope.items():
            right = key in unscaled and (key == "rope_theta" or value == unscaled[key])
            require(right, f"{name}.{key}", value, "gptexp's GPT supports only unscaled RoPE")
        theta = entries.number(rope, "rope_theta", theta)
    return theta


def needs(config: GPTConfig) -> dict[str, Any]:
    """Return the settings that a model would need to be a Llama or Qwen3, by name; {} if it is one."""
    found = {name: only for name, only in ONLY.items() if getattr(config, name) != only}
    if config.mlp_width == 0:
        found["mlp_ratio"] = 4.0
    if config.qk_norm and config.bias:
        found["bias"] = False
    return found


def config_json(config: GPTConfig, vocab_size: int, eot: int | None, dtype: str) -> dict[str, Any]:
    """Return the config.json of a model without needs.

    dtype: of the weights, such as float32.
    """
    kind = QWEN3 if config.qk_norm else LLAMA
    return {
        "architectures": ["Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"],
        "model_type": kind,
        "vocab_size": vocab_size,
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": FIXED["hidden_act"],
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,  # for transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": config.bias,
        **({} if config.qk_norm else {"mlp_bias": config.bias}),
        "attention_dropout": config.attn_dropout,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "dtype": dtype,
    }
