"""The schemas of gptexp.config, where Hydra finds them; settings to plain data and back. No torch."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptexp import words
from gptexp.config import KINDS, CallbacksConfig, Config, LoggerConfig, PathsConfig, TrainerConfig, best_by
from gptexp.environment import interpolates
from gptexp.hydra_versions import register_resolver
from gptexp.identity import WITHOUT_KINDS, completed
from gptexp.sweep.slots import job_slots

# Where an implementation of a group's `kind` lives, and the files there that are none.
ROOMS = {
    "model": "gptexp.models",
    "tokenizer": "gptexp.tokenizers",
    "data": "gptexp.data.corpora",
    "objective": "gptexp.objectives",
}
OWN_SCHEMA = re.compile(r"^(class )?Config\b", re.MULTILINE)


class ConfigError(ValueError):
    """A setting that can't be: one line for the user, without a traceback."""


def conf_dir() -> Path:
    """The YAML: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Every group of conf/ and its options, by name."""
    folders = sorted(folder for folder in conf_dir().iterdir() if folder.is_dir() and folder.name != "hydra")
    return {folder.name: tuple(sorted(p.stem for p in folder.glob("*.yaml"))) for folder in folders}


@cache
def register_schemas() -> None:
    """Put the schemas where the YAML finds them, and the resolvers of run names."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for name, schema in {
        "trainer": TrainerConfig,
        "callbacks": CallbacksConfig,
        "logger": LoggerConfig,
        "paths": PathsConfig,
    }.items():
        store.store(group="schema", name=name, node=schema)
    _discover_kinds()
    for group, kinds in KINDS.items():
        for kind, schema in kinds.items():
            store.store(group=f"schema/{group}", name=kind, node=schema)
    register_resolver("job_slots", job_slots, replace=True)
    register_resolver("best_by", _best_by, replace=True)
    register_resolver("tokenizer_sha256", _tokenizer_sha256, replace=True)
    register_resolver("run_name", _run_name, replace=True)
    register_resolver("run_id", _run_id, replace=True, use_cache=True)


def _discover_kinds() -> None:
    """A file that the user adds to a room brings its own schema, as the class `Config` beside the implementation.

    A file without that class holds parts of others. A new model's file imports torch, so only where there is one is
    torch imported this early.
    """
    for group, package in ROOMS.items():
        folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
        for path in sorted(folder.glob("[!_]*.py")):
            if path.stem not in KINDS[group] and OWN_SCHEMA.search(path.read_text(encoding="utf-8")):
                KINDS[group][path.stem] = import_module(f"{package}.{path.stem}").Config


@cache
def setting_types() -> dict[str, type[Node]]:
    """The dotted name of every setting of every schema, and OmegaConf's type of its value."""
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
    """Of a tokenizer's files, so that what a run is doesn't hang on where they lie; empty where there are none."""
    from gptexp.files import user_path
    from gptexp.tokenizers.huggingface_files import sha256_of

    return sha256_of(user_path(path, "tokenizer.path")) if path else ""


def _run_name(model: str, data: str) -> str:
    return f"{model}-{data}"


def _run_id() -> str:
    """Time and two random letters: runs that start in the same second stay apart."""
    letters = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(3))
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{letters}"


def to_plain(config: object) -> dict[str, Any]:
    """A config as str, int, float, bool, None, list and dict, complete and resolved."""
    # What a config holds is resolved, but for the variables that plug-ins name, which stay so.
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def from_plain(group: str, plain: object) -> Any:
    """Read one group's settings back through its schema; what a stranger wrote stays data.

    Raises:
        ConfigError: an unknown kind, key or type, named.
    """
    register_schemas()
    if not isinstance(plain, dict) or (group in KINDS and not isinstance(plain.get("kind"), str)):
        raise ConfigError(f"{group}: not a group of settings")
    schema = KINDS[group].get(plain["kind"]) if group in KINDS else WITHOUT_KINDS[group]
    if schema is None:
        raise ConfigError(f"{group}.kind={plain['kind']}: not known here; known: {', '.join(KINDS[group])}")
    if interpolates({group: plain}):
        raise ConfigError(f"{group}: stored settings must be plain values, not interpolations")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), completed({group: plain})[group]))
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{group}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """As in gptexp.words, without what OmegaConf says before an error of a resolver of ours."""
    return words.first_line(error).removeprefix("ValueError raised while resolving interpolation: ")
