"""config.json of Hugging Face's GPT-2, converted to model settings and back (no torch)."""

from __future__ import annotations

import math
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

from gptexp.config.conversion import from_plain, to_plain
from gptexp.config.model import Activation, GPTConfig, ModelConfig, Norm, NormPosition, Position
from gptexp.config.rules import LARGEST
from gptexp.util.errors import ConfigError
from gptexp.util.files import read_json
from gptexp.util.text import typed_value

CONFIG = "config.json"

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
    "layer_norm_epsilon": 1e-5,
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
GPT2_ONLY: dict[str, Any] = {
    "position": Position.learned,
    "norm": Norm.layernorm,
    "norm_position": NormPosition.pre,
    "residual": True,
    "qk_norm": False,
}
EXPORTED = {"kind", "block_size", "n_layer", "n_head", "n_kv_head", "n_embd", "dropout", "attn_dropout", "bias"}
EXPORTED |= {"activation", "mlp_ratio", "tie_weights"}
EXPORTED |= {"parametrization", "base_width", "base_head_dim"}  # multipliers become part of the weights


# ---------------------------------------------------------------------------------- import


def read_model(path: Path) -> tuple[dict[str, Any], int]:
    """Return the complete settings `model.*` and vocab_size from a config.json.

    Raises:
        ConfigError: not a GPT-2, or an unsupported one; the message names the entry and its value.
    """
    given = read_json(path)
    try:
        _require(given.get("model_type") == "gpt2", "model_type", given.get("model_type"), "must be gpt2")
        for name, ours in FIXED.items():
            value = given.get(name, ours)
            _require(value == ours, name, value, f"gptexp's GPT supports only {typed_value(ours)}")
        sizes = {name: _size(given, name, default) for name, default in SIZES.items()}
        settings = to_plain(from_plain("model", _settings(given, sizes)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return settings, sizes["vocab_size"]


def _settings(given: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    tied = given.get("tie_word_embeddings", True)
    _require(isinstance(tied, bool), "tie_word_embeddings", tied, "must be true or false")
    width = 4 * sizes["n_embd"] if given.get("n_inner") is None else _size(given, "n_inner", 0)
    return {
        "kind": "gpt",
        "block_size": sizes["n_positions"],
        **{name: sizes[name] for name in ("n_embd", "n_layer", "n_head")},
        "mlp_ratio": ratio_of(width, sizes["n_embd"]),
        "activation": _activation(given).name,
        "dropout": _dropout(given, "resid_pdrop"),  # embd_pdrop has the same meaning here
        "attn_dropout": _dropout(given, "attn_pdrop"),
        "tie_weights": tied,
    }


def _size(given: dict[str, Any], name: str, default: int) -> int:
    known = [alias for alias in (name, *ALIASES.get(name, ())) if alias in given]
    found = known[0] if known else name
    value = given.get(found, default)
    _require(type(value) is int and 1 <= value <= LARGEST, found, value, "must be a whole number from 1")
    return int(value)


def _dropout(given: dict[str, Any], name: str) -> float:
    value = given.get(name, 0.1)
    right = type(value) in (int, float) and 0 <= value < 1
    _require(right, name, value, "must be at least 0 and below 1")
    return float(value)


def _activation(given: dict[str, Any]) -> Activation:
    name = given.get("activation_function", "gelu_new")
    for activation, names in ACTIVATIONS.items():
        if name in names:
            return activation
    known = ", ".join(name for names in ACTIVATIONS.values() for name in names)
    raise ConfigError(f"activation_function={typed_value(name)}: not supported; gptexp's GPT supports {known}")


def ratio_of(width: int, n_embd: int) -> float:
    """Return the `model.mlp_ratio` that gives exactly this width, also if the division rounds down."""
    ratio = width / n_embd
    while int(ratio * n_embd) < width:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"{name}={typed_value(value)[:80]}: {remedy}")


# ---------------------------------------------------------------------------------- export


def require_gpt2(config: ModelConfig) -> None:
    """Refuse a model that is not a GPT-2.

    Raises:
        ValueError: the message names the setting that Hugging Face's GPT-2 lacks.
    """
    if not isinstance(config, GPTConfig):
        _refuse("kind", config.kind, "is a GPT")
    assert isinstance(config, GPTConfig)
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in GPT2_ONLY and value != GPT2_ONLY[field.name]:
            _refuse(field.name, value, f"supports only {_value(GPT2_ONLY[field.name])}")
        elif field.name not in {*GPT2_ONLY, *EXPORTED} and value != field.default:
            _refuse(field.name, value, "has no such option")
    if config.kv_heads != config.n_head:
        _refuse("n_kv_head", config.n_kv_head, f"has as many key/value heads as heads, {config.n_head}")
    if config.activation not in ACTIVATIONS:
        _refuse("activation", config.activation, f"supports only {', '.join(known.name for known in ACTIVATIONS)}")
    if config.mlp_width == 0:
        _refuse("mlp_ratio", config.mlp_ratio, "always has a feed-forward")


def _refuse(name: str, value: object, what: str) -> None:
    raise ValueError(f"model.{name}={_value(value)}: can't be exported, because Hugging Face's GPT-2 {what}")


def _value(value: object) -> str:
    return value.name if isinstance(value, Enum) else typed_value(value)


def config_json(config: GPTConfig, vocab_size: int, eot: int | None, dtype: str) -> dict[str, Any]:
    """Return the config.json of a model that `require_gpt2` accepts.

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
        "layer_norm_epsilon": FIXED["layer_norm_epsilon"],
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "dtype": dtype,
    }
