"""config.json of a Hugging Face folder, converted to model settings and back (no torch).

A form is an architecture of transformers that a GPT with certain settings equals. Its module converts the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from gptexp.config.conversion import from_plain, to_plain
from gptexp.config.model import GPTConfig, ModelConfig
from gptexp.runs.huggingface import gpt2, llama
from gptexp.runs.huggingface.entries import Given, require
from gptexp.util.errors import ConfigError
from gptexp.util.files import read_json
from gptexp.util.text import typed_value

CONFIG = "config.json"

# Settings that no form needs to know: they matter in training only, become part of the weights (those of muP), or have
# no effect without another one.
FREE = {"kind", "dropout", "attn_dropout", "init", "parametrization", "base_width", "base_head_dim"}
FREE |= {"ngram_rows", "window_size"}
# Settings that every form has, or refuses in its own `needs`.
KNOWN = {"block_size", "n_layer", "n_head", "n_kv_head", "n_embd", "bias", "norm", "norm_eps", "norm_position"}
KNOWN |= {"residual", "position", "rope_theta", "activation", "mlp_ratio", "qk_norm", "qk_norm_gain", "tie_weights"}


@dataclass(frozen=True)
class Form:
    """An architecture of transformers. title: its name in messages. model_types: its names in config.json."""

    title: str
    model_types: tuple[str, ...]
    settings: Callable[[Given], tuple[dict[str, Any], int]]
    needs: Callable[[GPTConfig], dict[str, Any]]
    config_json: Callable[[GPTConfig, int, int | None, str], dict[str, Any]]


GPT2 = Form("GPT-2", ("gpt2",), gpt2.settings, gpt2.needs, gpt2.config_json)
LLAMA = Form("Llama", (llama.LLAMA, llama.QWEN3), llama.settings, llama.needs, llama.config_json)
FORMS = {name: form for form in (GPT2, LLAMA) for name in form.model_types}


def read_model(path: Path) -> tuple[dict[str, Any], int]:
    """Return the complete settings `model.*` and vocab_size from a config.json.

    Raises:
        ConfigError: not one of the forms, or an unsupported option; the message names the entry and its value.
    """
    given = read_json(path)
    try:
        kind = given.get("model_type")
        known = isinstance(kind, str) and kind in FORMS
        require(known, "model_type", kind, f"must be one of {', '.join(FORMS)}")
        settings, vocab_size = FORMS[str(kind)].settings(given)
        complete = to_plain(from_plain("model", settings))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return complete, vocab_size


def form_of(config: ModelConfig) -> Form:
    """Return the form that a model can be exported in.

    Raises:
        ValueError: there is none; the message names a setting that prevents it, and the settings that a form needs.
    """
    if not isinstance(config, GPTConfig):
        raise ValueError(f"model.kind={config.kind}: can't be exported; only model.kind=gpt can")
    needs = {form: {**form.needs(config), **_beyond(config)} for form in (GPT2, LLAMA)}
    nearest, *others = sorted(needs, key=lambda form: len(needs[form]))
    if not needs[nearest]:
        return nearest
    name = next(iter(needs[nearest]))
    ways = [f"{_typed(needs[form])} (then it is a {form.title})" for form in (nearest, *others)]
    raise ValueError(
        f"model.{name}={_value(getattr(config, name))}: can't be exported; train with {', or with '.join(ways)}"
    )


def _beyond(config: GPTConfig) -> dict[str, Any]:
    """Return the settings that no form has, with the values at which they have no effect."""
    rest = [field for field in fields(config) if field.name not in FREE | KNOWN]
    return {field.name: field.default for field in rest if getattr(config, field.name) != field.default}


def _typed(settings: dict[str, Any]) -> str:
    return " ".join(f"model.{name}={_value(value)}" for name, value in settings.items())


def _value(value: object) -> str:
    return value.name if isinstance(value, Enum) else typed_value(value)
