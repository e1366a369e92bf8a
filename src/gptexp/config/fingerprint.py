"""The identity of a configuration, and the one rule for stored settings of earlier versions. No torch.

Two runs have the same configuration if the settings that affect the result are equal; their seeds may differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

from gptexp.config import KINDS, CallbacksConfig, LoggerConfig, TrainerConfig
from gptexp.config.length import LENGTHS, asked
from gptexp.config.plugins import computing

# Where and how a run computes, and what it records. These settings change the loss at most by rounding errors.
ACCIDENTAL = frozenset(
    {
        "name",
        "seed",
        "resume",
        "tokenizer.path",  # tokenizer.sha256 identifies the files
        "data.micro_batch_size",
        "data.num_workers",
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
        "trainer.compile",
        "trainer.recompute",
        "callbacks.activations",
        "callbacks.attention_entropy",
        "trainer.digests",
        "trainer.log_norms",
        "trainer.log_every_steps",
        "trainer.val_every_steps",
    }
)
# Callbacks do not matter, except plug-ins that change the computation, such as early stopping.
CALLBACKS = tuple(f"callbacks.{name}." for name in ("checkpoint", "samples", "novelty"))
ACCIDENTAL_GROUPS = ("paths.", "logger.", "hydra.", *CALLBACKS, "sweep.", "prepare.")

PLUGINS = "callbacks.plugins."

# The kinds of groups that earlier versions did not have. These kinds are not part of the identity.
DEFAULT_KINDS = {"objective": "lm", "finetune": "full"}
# Settings that earlier versions did not have, with the values at which runs compute what they did then. A setting with
# this value is not part of the hash, so that runs and ledgers of earlier versions keep theirs.
ADDED: dict[str, Any] = {
    "model.value_embeddings": "none",
    "model.ngram": 1,
    "model.ngram_rows": 4096,
    "model.residual_scalars": False,
    "model.logit_softcap": None,
    "model.window": None,
    "model.window_size": None,
    "model.norm_eps": 1e-5,
    "model.rope_theta": 10_000.0,
    "model.qk_norm_gain": False,
    "optimizer.embedding_lr": None,
    "optimizer.head_lr": None,
    "optimizer.scalar_lr": None,
    "optimizer.split_qkv": False,
    "optimizer.orthogonalization": "newton_schulz",
    "optimizer.normuon": False,
    "optimizer.cautious": False,
}
# Settings of earlier versions that the schemas no longer have.
REMOVED = frozenset({"data.block_size"})  # equal to model.block_size
# Settings of ADDED that the schemas no longer have. At the value there they are dropped; other values are refused.
WITHDRAWN = frozenset(
    {
        "model.value_embeddings",
        "model.residual_scalars",
        "model.logit_softcap",
        "optimizer.orthogonalization",
        "optimizer.cautious",
    }
)
# Classes of plug-ins by their paths in earlier versions.
MOVED = {"gptexp.callbacks.trace.Trace": "gptexp.training.callbacks.trace.Trace"}

WITHOUT_KINDS: dict[str, type] = {"trainer": TrainerConfig, "callbacks": CallbacksConfig, "logger": LoggerConfig}


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings, nested, in the form of this version.

    A missing group or key gets its schema's default, unless the default depends on another setting. Removed keys are
    dropped, and classes of plug-ins have their present paths.
    """
    missing = {group: {"kind": kind} for group, kind in DEFAULT_KINDS.items() if settings.get(group) is None}
    whole = {**settings, **missing}
    for group, stored in whole.items():
        if isinstance(stored, Mapping):
            values = {key: value for key, value in stored.items() if not _is_dropped(f"{group}.{key}", value)}
            if isinstance(values.get("plugins"), Mapping):
                values["plugins"] = {name: _with_present_path(plugin) for name, plugin in values["plugins"].items()}
            schema = WITHOUT_KINDS.get(group) or KINDS.get(group, {}).get(str(values.get("kind")))
            if group == "trainer" and asked(values):  # the length that it gives, not the default
                values = {**dict.fromkeys(LENGTHS), **values}
            whole[group] = _with_defaults(values, _defaults(schema)) if schema else values
    return whole


def _is_dropped(key: str, value: Any) -> bool:
    return key in REMOVED or (key in WITHDRAWN and value == ADDED[key])


def _with_present_path(plugin: Any) -> Any:
    target = plugin.get("_target_") if isinstance(plugin, Mapping) else None
    return {**plugin, "_target_": MOVED[target]} if isinstance(target, str) and target in MOVED else plugin


def _with_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    missing = {key: value for key, value in defaults.items() if key not in values and not _is_dependent(value)}
    groups = {
        key: _with_defaults(value, defaults[key])
        for key, value in values.items()
        if isinstance(value, Mapping) and isinstance(defaults.get(key), dict)
    }
    return {**values, **groups, **missing}


def _defaults(schema: type) -> dict[str, Any]:
    """Return the default of each field as plain data."""
    return {
        field.name: _plain(field.default if field.default_factory is MISSING else field.default_factory())
        for field in fields(schema)
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value.name if isinstance(value, Enum) else value


def _is_dependent(default: Any) -> bool:
    """Return whether a field has no default, or one that is an interpolation of other settings."""
    return default is MISSING or (isinstance(default, str) and ("${" in default or default == "???"))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name, in the same order: `{"model.n_head": 4}`. Lists are values."""
    return dict(_leaves(settings, prefix))


def _leaves(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def matters(key: str) -> bool:
    """Return whether a setting, by its dotted name, is part of the identity."""
    return key not in ACCIDENTAL | REMOVED and not key.startswith(ACCIDENTAL_GROUPS)


def settings_that_matter(settings: Mapping[str, Any], also: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings that are part of the identity, by dotted name, without the kinds in DEFAULT_KINDS.

    Args:
        settings: the content of config.yaml, nested or flat.
        also: dotted names of further settings to keep, such as `trainer.compile`.
    """
    flat, defaults = flatten(settings), {f"{group}.kind": kind for group, kind in DEFAULT_KINDS.items()}
    plugins = computing_plugins(flat)
    kept = {*also, *(["trainer.val_every_steps"] if plugins else [])}  # they run at validations
    unused = dict.fromkeys(f"trainer.{name}" for name in LENGTHS)  # earlier versions had only trainer.max_steps
    left_out = [*defaults.items(), *unused.items()]
    return {
        key: value
        for key, value in flat.items()
        if key in kept
        or (matters(key) and (key, value) not in left_out and (key in plugins or not key.startswith(PLUGINS)))
    }


def computing_plugins(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of callbacks that can change the computation, from flat settings."""
    names = computing(
        {
            key.removesuffix("._target_"): {"_target_": target}
            for key, target in flat.items()
            if key.startswith(PLUGINS) and key.endswith("._target_")
        }
    )
    return {key: value for key, value in flat.items() if any(key.startswith(f"{name}.") for name in names)}


def identity(settings: Mapping[str, Any], *, seed: bool = False, also: Iterable[str] = ()) -> str:
    """Return eight hexadecimal digits that identify a configuration; with seed=True, a configuration and its seed.

    also: dotted names of further settings that distinguish it.
    """
    flat = settings_that_matter(settings, also=(*also, *(("seed",) if seed else ())))
    flat = {key: value for key, value in flat.items() if key not in ADDED or value != ADDED[key]}
    text = json.dumps(flat, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
