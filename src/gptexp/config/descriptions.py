"""Descriptions of the settings, read from the schemas: name, type, default and sentence."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import EnumMeta
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from gptexp.config import KINDS, Config

WORDS = {NoneType: "null", Any: "any"}


@dataclass(frozen=True)
class Setting:
    """One setting as the help shows it."""

    name: str
    type: str
    default: str
    sentence: str
    choices: tuple[str, ...] = ()


@cache
def sentences(schema: type) -> dict[str, str]:
    """Return the sentence below each field of a dataclass; a field of a base class has the sentence there."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        found |= _sentences_below(base)
    return found


def _sentences_below(schema: type) -> dict[str, str]:
    """Return the string literals that stand below the fields in the source of one class."""
    for node in ast.walk(_syntax_tree(schema.__module__)):
        if isinstance(node, ast.ClassDef) and node.name == schema.__name__:
            return {
                field.target.id: " ".join(text.value.value.split())
                for field, text in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }
    return {}


@cache
def _syntax_tree(module: str) -> ast.Module:
    try:
        return ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # a module without source
        return ast.Module(body=[], type_ignores=[])


def settings_of(schema: type, prefix: str = "") -> list[Setting]:
    """Return the settings of a schema and of its nested groups, without the kind."""
    hints, found = _hints(schema), []
    for field in fields(schema):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        if field.name == "kind":
            continue
        if is_dataclass(hint):
            found += settings_of(hint, f"{name}.")  # type: ignore[arg-type]
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        sentence = sentences(schema).get(field.name, "")
        found.append(Setting(name, type_text(hint), value_text(default), sentence, _choices(hint)))
    return found


def _hints(schema: type) -> dict[str, Any]:
    try:
        return get_type_hints(schema)
    except NameError:  # an annotation of a user's class that is imported for type checkers only
        return {field.name: field.type for field in fields(schema)}


def type_text(hint: Any) -> str:
    """Return a type as the help shows it: `int or null`, and the choices of an Enum."""
    if isinstance(hint, EnumMeta):
        return ", ".join(hint.__members__)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(type_text(choice) for choice in get_args(hint))
    if get_origin(hint) is list:
        return f"list of {type_text(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return "mapping"
    return WORDS.get(hint, str(getattr(hint, "__name__", hint)))


def _choices(hint: Any) -> tuple[str, ...]:
    """Return all values that a setting of a type can have, if they are few."""
    return tuple(hint.__members__) if isinstance(hint, EnumMeta) else ("true", "false") if hint is bool else ()


def value_text(value: Any) -> str:
    """Return a value as the command line accepts it."""
    if isinstance(type(value), EnumMeta):
        return str(value.name)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) + "}"
    return str(value) or "''"


def schema_of(group: str) -> type:
    """Return the schema of a group, or the one that all its kinds share."""
    hint: type = _hints(Config)[group]
    return hint


@dataclass(frozen=True)
class Section:
    """Settings of one kind of a group, or with kind=None those that all kinds have."""

    kind: str | None
    about: str
    settings: list[Setting]


def sections(group: str) -> Iterator[Section]:
    """Yield the settings that all kinds of a group share, then those of each kind that are new or differ in default."""
    base = schema_of(group)
    shared = settings_of(base, f"{group}.")
    yield Section(None, about(base), shared)
    for kind, schema in KINDS.get(group, {}).items():
        yield Section(
            kind,
            "" if schema is base else about(schema),
            [setting for setting in settings_of(schema, f"{group}.") if setting not in shared],
        )


def about(schema: type) -> str:
    """Return the first paragraph of a schema's docstring; empty if dataclass generated the docstring."""
    text = inspect.cleandoc(schema.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    return "" if text.startswith(f"{schema.__name__}(") else text


def setting_groups() -> list[str]:
    """Return the groups of settings in the order of an experiment's schema."""
    return [name for name, hint in _hints(Config).items() if is_dataclass(hint)]


def top_settings() -> list[Setting]:
    """Return the settings that belong to no group."""
    return [setting for setting in settings_of(Config) if "." not in setting.name]
