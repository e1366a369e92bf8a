"""Settings of transformers' GPT-2, to and from those of gptexp's GPT (no torch)."""

from __future__ import annotations

from typing import Any

from gptexp.config.model import Activation, GPTConfig, Norm, NormPosition, Position
from gptexp.runs.huggingface import entries
from gptexp.runs.huggingface.entries import Given
from gptexp.util.errors import ConfigError
from gptexp.util.text import typed_value

# Defaults of transformers' GPT2Config, and its aliases.
SIZES = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
ALIASES = {
    "n_positions": ("max_position_embeddings", "n_ctx"),
    "n_embd": ("hidden_size",),
    "n_layer": ("num_hidden_layers",),
    "n_head": ("num_attention_heads",),
}
# Options of transformers' GPT-2 that gptexp's GPT lacks, each with the only supported value.
FIXED: dict[str, Any] = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "quantization_config": None,
}
# transformers' names of each activation; the first one is written.
ACTIVATIONS = {
    Activation.gelu_tanh: ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    Activation.gelu: ("gelu", "gelu_python"),
    Activation.relu: ("relu",),
    Activation.relu2: ("relu2",),
}
# Settings of gptexp's GPT that GPT-2 lacks, each with the only value that can be exported.
ONLY: dict[str, Any] = {
    "position": Position.learned,
    "norm": Norm.layernorm,
    "norm_position": NormPosition.pre,
    "residual": True,
    "qk_norm": False,
}


def settings(given: Given) -> tuple[dict[str, Any], int]:
    """Return the settings `model.*` and vocab_size of a config.json.

    Raises:
        ConfigError: an entry that gptexp's GPT lacks; the message names it and its value.
    """
    entries.require_fixed(given, FIXED)
    sizes = {name: entries.size(given, name, default, ALIASES.get(name, ())) for name, default in SIZES.items()}
    width = 4 * sizes["n_embd"] if given.get("n_inner") is None else entries.size(given, "n_inner", 0)
    return {
        "kind": "gpt",
        "block_size": sizes["n_positions"],
        **{name: sizes[name] for name in ("n_embd", "n_layer", "n_head")},
        "mlp_ratio": entries.ratio_of(width, sizes["n_embd"]),
        "activation": _activation(given).name,
        "dropout": entries.dropout(given, "resid_pdrop", 0.1),  # embd_pdrop has the same meaning here
        "attn_dropout": entries.dropout(given, "attn_pdrop", 0.1),
        "norm_eps": entries.number(given, "layer_norm_epsilon", 1e-5),
        "tie_weights": entries.flag(given, "tie_word_embeddings", True),
    }, sizes["vocab_size"]


def _activation(given: Given) -> Activation:
    name = given.get("activation_function", "gelu_new")
    for activation, names in ACTIVATIONS.items():
        if name in names:
            return activation
    known = ", ".join(name for names in ACTIVATIONS.values() for name in names)
    raise ConfigError(f"activation_function={typed_value(name)}: not supported; gptexp's GPT supports {known}")


def needs(config: GPTConfig) -> dict[str, Any]:
    """Return the settings that a model would need to be a GPT-2, by name; {} if it is one."""
    found = {name: only for name, only in ONLY.items() if getattr(config, name) != only}
    if config.kv_heads != config.n_head:
        found["n_kv_head"] = None
    if config.activation not in ACTIVATIONS:
        found["activation"] = Activation.gelu_tanh
    if config.mlp_width == 0:
        found["mlp_ratio"] = 4.0
    return found


def config_json(config: GPTConfig, vocab_size: int, eot: int | None, dtype: str) -> dict[str, Any]:
    """Return the config.json of a model without needs.

    dtype: of the weights, such as float32.
    """
    width = config.mlp_width
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": None if width == 4 * config.n_embd else width,
        "activation_function": ACTIVATIONS[config.activation][0],
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attn_dropout,
        "layer_norm_epsilon": config.norm_eps,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "dtype": dtype,
    }
