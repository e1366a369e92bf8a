"""Errors of Hydra and OmegaConf in one line: the key, the value and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import SequenceMatcher, get_close_matches
from enum import EnumMeta
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from hydra.errors import MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ConfigTypeError, OmegaConfBaseException

from gptexp.compose.other_names import hint, published
from gptexp.compose.registry import groups, setting_types
from gptexp.config import KINDS
from gptexp.config.conversion import message_of
from gptexp.config.kinds import unknown
from gptexp.config.override_syntax import parse
from gptexp.util.errors import ConfigError


def check_groups(overrides: list[str]) -> None:
    """Refuse an unknown option of a group.

    Raises:
        ConfigError: naming the option and similar ones.
    """
    for override in overrides:
        parsed = parse(override)
        group, options = parsed.key_or_group, groups().get(parsed.key_or_group)
        if options is None or parsed.is_delete() or parsed.is_sweep_override():
            continue
        option = parsed.value()
        if option is None and group not in ("experiment", "debug", "sweep"):
            raise ConfigError(f"{group}=null: must be chosen; one of {', '.join(options)}")
        if isinstance(option, str) and option not in (*options, "source"):
            meant = published(option) if group == "model" else None
            raise ConfigError(f"{group}={option}: no such option; {meant or closest(option, options)}")


def explain(overrides: list[str], error: Exception) -> str:
    """Return one line about the override that caused an error of Hydra."""
    for override in overrides:
        parsed = parse(override)
        key = parsed.key_or_group
        if parsed.is_sweep_override():
            return f"{override}: several values are a sweep; add -m, or quote the value: '{key}=\"…\"'"
        if key not in groups() and not key.startswith("hydra") and not _known(key):
            value = parsed.get_value_element_as_str()
            return f"{key}={value}: no such setting; {hint(key, value) or closest(key, setting_names())}"
        already = f"already at '{key}'", f"Multiple values for {key}."  # Hydra gives the key in its message only
        if parsed.is_add() and any(words in str(error) for words in already):
            return f"{override}: already exists; remove the plus"
        if _failed_at(key, error):
            if parsed.is_delete():
                return f"{override}: a setting can't be deleted; give it another value"
            if kinds := kinds_with(key):
                return f"{key}={parsed.get_value_element_as_str()}: only {kinds} has it"
            if ".plugins." in key:
                return f"{override}: a new plug-in is added with a plus: +{override}"
            if key.startswith("hydra"):
                names = _beside(key, error)
                remedy = closest(key, names) if names else "`gptexp train --cfg hydra` shows all"
                return f"{override}: no such setting of Hydra; {remedy}"
        if isinstance(error, MissingConfigException) and error.missing_cfg_file == f"{key}/{parsed.value()}":
            return f"{override}: no such option; {closest(str(parsed.value()), error.options or ())}"
    return _of_another_kind(overrides, error) or _of_no_kind(error) or type_error(error) or message_of(error)


def _of_no_kind(error: Exception) -> str | None:
    """Return an error for a preset whose kind does not exist, or whose package can't be imported."""
    found = re.fullmatch(r"(.*): Could not load 'schema/(\w+)/(\w+)'.*", message_of(error))
    return f"{found[1]}: {unknown(found[2], found[3])}" if found and found[2] in KINDS else None


def _failed_at(key: str, error: Exception) -> bool:
    """Return whether Hydra could not change or delete a setting because the composition does not have or allow it."""
    cause = error.__cause__
    failed = cause.full_key if isinstance(cause, (ConfigKeyError, ConfigAttributeError, ConfigTypeError)) else None
    return bool(failed) and (key == failed or key.startswith(f"{failed}."))


def _beside(key: str, error: Exception) -> list[str]:
    """Return the settings, or the groups, where Hydra did not find one."""
    node, parent = getattr(error.__cause__, "parent_node", None), key.rpartition(".")[0]
    if "/" in key or not isinstance(node, DictConfig):
        return [f"hydra/{group}" for group in ("launcher", "sweeper", "job_logging", "hydra_logging")]
    return [f"{parent}.{name}" for name in map(str, node) if not name.startswith("_")]


def without_dashes(flag: str, following: str | None) -> str:
    """Return how an option, --seed=3 or --seed 3, is written as a setting."""
    word, separator, value = flag.partition("=")
    name = word.lstrip("-")
    if not separator:
        value = following if following and not following.startswith("-") and "=" not in following else "…"
    names = (*setting_names(), *groups())
    known = name.replace("-", "_") if name.replace("-", "_") in names else None
    meant = f"write {known}={value}" if known else hint(name, value) or closest(name, names)
    return f"{flag}: a setting has no dashes; {meant}"


def kinds_with(key: str) -> str:
    """Return the kinds of a group that have a setting, as in `a model of kind gpt`; empty if none has it."""
    group, _, name = key.rpartition(".")
    kinds = [kind for kind, schema in KINDS.get(group, {}).items() if name in {f.name for f in fields(schema)}]
    article = "an" if group[:1] in tuple("aeiou") else "a"
    return f"{article} {group} of kind {' or '.join(kinds)}" if kinds else ""


def _of_another_kind(overrides: list[str], error: Exception) -> str | None:
    """Return an error for an experiment with a setting that the kind chosen on the command line does not have."""
    cause = error.__context__
    key = getattr(cause, "full_key", None) or ""
    chosen = {parsed.key_or_group: parsed.get_value_element_as_str() for parsed in map(parse, overrides)}
    group, experiment = key.rpartition(".")[0], chosen.get("experiment")
    if experiment is None or group not in chosen or not isinstance(cause, ConfigKeyError):
        return None
    return f"{group}={chosen[group]}: experiment={experiment} sets {key}, which only {kinds_with(key)} has"


def _known(key: str) -> bool:
    below = any(name.startswith(f"{key}.") for name in setting_names())
    return key in setting_names() or below or ".plugins." in key or key.startswith("data.parts.")


def setting_names() -> tuple[str, ...]:
    """Return the dotted name of every setting of every schema, in order."""
    return tuple(sorted(setting_types()))


def closest(word: str, known: Iterable[str]) -> str:
    """Return a question that names similar words, or the words that can be chosen."""
    known = list(known)
    prefix, _, leaf = word.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == prefix] if prefix else known
    similar = get_close_matches(word, siblings, n=3, cutoff=0.7)
    near = [name for name in similar if SequenceMatcher(None, name.rpartition(".")[2], leaf).ratio() >= 0.6]
    near = near or [name for name in known if name.rpartition(".")[2] == leaf]  # n_layer, optimizer.n_layer
    if near:
        return f"did you mean {' or '.join(near)}?"
    if siblings and len(siblings) <= 25:
        return f"choose one of {', '.join(siblings)}"
    return "`gptexp train --help` lists the groups, `gptexp train --cfg job` the settings"


def type_error(error: BaseException | None) -> str | None:
    """Return the key, the value and the type that OmegaConf expected; None if no error in the chain names a key."""
    while error is not None:
        if isinstance(error, OmegaConfBaseException) and error.full_key:
            if isinstance(error, ConfigKeyError):
                return f"{error.full_key}: no such setting; {closest(error.full_key, setting_names())}"
            value = "null" if error.value is None else error.value
            return f"{error.full_key}={value}: {_expected(error)}"
        error = error.__cause__ or error.__context__
    return None


# Names of types in errors. In a union with another type, str only allows the value auto.
_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


def _expected(error: OmegaConfBaseException) -> str:
    """Return the requirement of a setting's type, from the schema that the error refers to."""
    hints = get_type_hints(error.object_type) if is_dataclass(error.object_type) else {}
    hint = hints.get(str(error.full_key).rpartition(".")[2])
    if hint is None:
        return message_of(error)
    if error.value is None:
        return "can't be null"
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if isinstance(choices[0], EnumMeta):
        return f"choose one of {', '.join(choices[0].__members__)}"
    if get_origin(choices[0]) is list:
        return "must be a list, such as [a,b]"
    if get_origin(choices[0]) is dict:
        return "must be a mapping, such as {a: b}"
    names = ["auto" if choice is str and choice is not choices[0] else _TYPES.get(choice) for choice in choices]
    return f"must be {' or '.join(name for name in names if name)}" if any(names) else message_of(error)
