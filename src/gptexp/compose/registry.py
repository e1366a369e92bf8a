"""Registers the schemas of gptexp.config and the resolvers of the YAML with Hydra. No torch."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime
from functools import cache

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, Node, OmegaConf

from gptexp.compose.hydra_versions import register_resolver
from gptexp.compose.presets import presets, register_search_path
from gptexp.config import KINDS, CallbacksConfig, Config, LoggerConfig, PathsConfig, TrainerConfig, best_by
from gptexp.machine.job_slots import job_slots
from gptexp.util.files import user_path


def groups() -> dict[str, tuple[str, ...]]:
    """Return the groups of presets with the names of their options."""
    return {group: tuple(options) for group, options in presets().items()}


# What Hydra composes for each job whose settings are stored, instead of train.yaml, which takes three times as long.
STORED_JOB = "stored_job"
_STORED_JOB = {
    "defaults": [*({f"override hydra/{log}_logging": "none"} for log in ("hydra", "job")), "_self_"],
    "sweep": {"job": None},
    "hydra": {"output_subdir": None, "job": {"chdir": False}},
}


@cache
def register_schemas() -> None:
    """Register the schemas and the resolvers, once."""
    register_search_path()
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for name, schema in {
        "trainer": TrainerConfig,
        "callbacks": CallbacksConfig,
        "logger": LoggerConfig,
        "paths": PathsConfig,
    }.items():
        store.store(group="schema", name=name, node=schema)
    store.store(name=STORED_JOB, node=_STORED_JOB)
    for group, kinds in KINDS.items():
        for kind, schema in kinds.items():
            store.store(group=f"schema/{group}", name=kind, node=schema)
    register_resolver("job_slots", job_slots, replace=True)
    register_resolver("best_by", _best_by, replace=True)
    register_resolver("tokenizer_sha256", _tokenizer_sha256, replace=True)
    register_resolver("run_name", _run_name, replace=True)
    register_resolver("run_id", _run_id, replace=True, use_cache=True)


@cache
def setting_types() -> dict[str, type[Node]]:
    """Return OmegaConf's type of every setting of every schema, by dotted name."""
    register_schemas()
    found = dict(_leaves("", OmegaConf.structured(Config)))
    for group, kinds in KINDS.items():
        for schema in kinds.values():
            found.update(_leaves(f"{group}.", OmegaConf.structured(schema)))
    return found


def _leaves(prefix: str, node: DictConfig) -> Iterator[tuple[str, type[Node]]]:
    for key in map(str, node):
        child = node._get_node(key)
        assert isinstance(child, Node)
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_interpolation():
            yield from _leaves(f"{prefix}{key}.", child)
        yield f"{prefix}{key}", type(child)


def _best_by(objective: str) -> str:
    return best_by(KINDS["objective"][objective])


def _tokenizer_sha256(path: str | None) -> str:
    """Return the hash of a tokenizer's files, which identifies them independently of their path; empty without path."""
    from gptexp.tokenizers.huggingface_files import sha256_of  # imports tokenizers, which takes 0.3 s

    return sha256_of(user_path(path, "tokenizer.path")) if path else ""


def _run_name(model: str, data: str) -> str:
    return f"{model}-{data}"


def _run_id() -> str:
    """Return the time and three random characters, so that runs that start in the same second differ."""
    suffix = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(3))
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{suffix}"
