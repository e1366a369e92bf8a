"""Which settings make an experiment what it is, and a short hash of them (no torch).

Two runs are the same configuration when these settings agree; the seed tells them apart inside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gptexp.config.objective import UNSAID

# Where and how a run computes and what it writes down; by law 1 none of it changes the curve (but to rounding).
ACCIDENTAL = frozenset(
    {
        "name",
        "seed",
        "resume",
        "data.block_size",  # follows model.block_size
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
# Of the callbacks only plug-ins remain: early stopping makes another experiment.
ACCIDENTAL_GROUPS = ("paths.", "logger.", "hydra.", "callbacks.checkpoint.", "callbacks.samples.", "sweep.")

# Groups that are younger than some stored runs, and what a run without them is.
ABSENT: dict[str, dict[str, Any]] = {"objective": UNSAID, "finetune": {"kind": "full"}}


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, nested, with the groups that didn't exist when they were stored."""
    return {**settings, **{group: dict(means) for group, means in ABSENT.items() if settings.get(group) is None}}


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
    return key not in ACCIDENTAL and not key.startswith(ACCIDENTAL_GROUPS)


def settings_that_matter(settings: Mapping[str, Any], also: Iterable[str] = ()) -> dict[str, Any]:
    """The settings that make a configuration, flat, by dotted name; what says no more than its absence is left out.

    Args:
        settings: what config.yaml holds, nested or already flat.
        also: dotted names to keep although they are accidental (to compare `trainer.compile`, say).
    """
    kept = set(also)
    unsaid = flatten(ABSENT)
    return {
        key: value
        for key, value in flatten(settings).items()
        if key in kept or (matters(key) and (key, value) not in unsaid.items())
    }


def identity(settings: Mapping[str, Any], *, seed: bool = False) -> str:
    """Eight hexadecimal digits that name a configuration; with seed=True, one run of it."""
    flat = settings_that_matter(settings, also=("seed",) if seed else ())
    text = json.dumps(flat, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
