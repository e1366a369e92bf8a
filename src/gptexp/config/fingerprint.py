"""Which settings make an experiment what it is, and a short hash of them (no torch).

Two runs are the same configuration when these settings agree; the seed tells them apart inside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

from gptexp.config import KINDS, CallbacksConfig, LoggerConfig, TrainerConfig
from gptexp.config.objective import UNSAID
from gptexp.config.plugins import OBSERVERS

# Where and how a run computes and what it writes down; by law 1 none of it changes the curve (but to rounding).
ACCIDENTAL = frozenset(
    {
        "name",
        "seed",
        "resume",
        "tokenizer.path",  # tokenizer.sha256 says what lies there
        "data.micro_batch_size",
        "data.num_workers",
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
        "trainer.compile",
        "trainer.log_every_steps",
        "trainer.val_every_steps",
    }
)
# Of the callbacks only plug-ins that change what is computed remain: early stopping makes another experiment.
ACCIDENTAL_GROUPS = ("paths.", "logger.", "hydra.", "callbacks.checkpoint.", "callbacks.samples.", "sweep.")

PLUGINS = "callbacks.plugins."

# Groups that are younger than some stored runs, and what a run without them is.
ABSENT: dict[str, dict[str, Any]] = {"objective": UNSAID, "finetune": {"kind": "full"}}


# Settings of earlier versions that no schema has any more.
REMOVED = frozenset({"data.block_size"})  # equal to model.block_size

WITHOUT_KINDS: dict[str, type] = {"trainer": TrainerConfig, "callbacks": CallbacksConfig, "logger": LoggerConfig}


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings, nested, in the form of this version.

    A missing group or key gets its schema's default, unless the default follows another setting. Removed keys are
    dropped.
    """
    whole = {**settings, **{group: dict(means) for group, means in ABSENT.items() if settings.get(group) is None}}
    for group, stored in whole.items():
        if isinstance(stored, Mapping):
            values = {key: value for key, value in stored.items() if f"{group}.{key}" not in REMOVED}
            schema = WITHOUT_KINDS.get(group) or KINDS.get(group, {}).get(str(values.get("kind")))
            whole[group] = _with_defaults(values, _defaults(schema)) if schema else values
    return whole


def _with_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    missing = {key: value for key, value in defaults.items() if key not in values and not _follows(value)}
    groups = {
        key: _with_defaults(value, defaults[key])
        for key, value in values.items()
        if isinstance(value, Mapping) and isinstance(defaults.get(key), dict)
    }
    return {**values, **groups, **missing}


def _defaults(schema: type) -> dict[str, Any]:
    """The default of each field, as plain data."""
    return {
        field.name: _plain(field.default if field.default_factory is MISSING else field.default_factory())
        for field in fields(schema)
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value.name if isinstance(value, Enum) else value


def _follows(default: Any) -> bool:
    """Whether a default is an interpolation, or isn't there."""
    return default is MISSING or (isinstance(default, str) and ("${" in default or default == "???"))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"n_head": 4}}` as `{"model.n_head": 4}`, in the order that they stand in; lists stay values."""
    return dict(_leaves(settings, prefix))


def _leaves(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def matters(key: str) -> bool:
    """Whether a setting, by its dotted name, is part of what is compared."""
    return key not in ACCIDENTAL | REMOVED and not key.startswith(ACCIDENTAL_GROUPS)


def settings_that_matter(settings: Mapping[str, Any], also: Iterable[str] = ()) -> dict[str, Any]:
    """The settings that make a configuration, flat, by dotted name; what says no more than its absence is left out.

    Args:
        settings: what config.yaml holds, nested or already flat.
        also: dotted names to keep although they are accidental (to compare `trainer.compile`, say).
    """
    flat, unsaid = flatten(settings), flatten(ABSENT)
    plugins = computing_plugins(flat)
    kept = {*also, *(["trainer.val_every_steps"] if plugins else [])}  # they look at validations
    return {
        key: value
        for key, value in flat.items()
        if key in kept
        or (matters(key) and (key, value) not in unsaid.items() and (key in plugins or not key.startswith(PLUGINS)))
    }


def computing_plugins(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of callbacks that can change what is computed, from flat settings."""
    names = [
        key.removesuffix("._target_")
        for key, target in flat.items()
        if key.startswith(PLUGINS) and key.endswith("._target_") and target not in OBSERVERS
    ]
    return {key: value for key, value in flat.items() if any(key.startswith(f"{name}.") for name in names)}


def identity(settings: Mapping[str, Any], *, seed: bool = False) -> str:
    """Eight hexadecimal digits that name a configuration; with seed=True, one run of it."""
    flat = settings_that_matter(settings, also=("seed",) if seed else ())
    text = json.dumps(flat, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
