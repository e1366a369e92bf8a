"""Settings to plain data by their declared types, without the nodes of OmegaConf, which take 20 ms. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

SCALARS = (str, int, float, bool)


class OtherType(Exception):
    """A value is not exactly of its declared type: OmegaConf must convert or refuse it."""


def plain_fields(config: object) -> dict[str, Any]:
    """Return the fields of a dataclass as str, int, float, bool, None, list and dict.

    Raises:
        OtherType: of a field or of a part of it.
    """
    if isinstance(config, Mapping) or not is_dataclass(config) or isinstance(config, type):
        raise OtherType
    return {name: _plain(getattr(config, name), declared) for name, declared in _declared(type(config))}


@cache
def _declared(schema: type) -> tuple[tuple[str, Any], ...]:
    """The fields of a schema with their types; OmegaConf leaves some out on request."""
    hints = get_type_hints(schema)
    kept = [field.name for field in fields(schema) if not field.metadata.get("omegaconf_ignore")]
    return tuple((name, hints[name]) for name in kept)


def _plain(value: Any, declared: Any) -> Any:
    if declared is Any:
        declared = type(value) if value is None or type(value) in SCALARS else {dict: dict[str, Any]}.get(type(value))
    if get_origin(declared) in (Union, UnionType):
        return _of_union(value, get_args(declared))
    if get_origin(declared) is dict:
        return _of_dict(value, *get_args(declared))
    if get_origin(declared) is list:
        return [_plain(item, *get_args(declared)) for item in _exactly(list, value)]
    if isinstance(declared, type) and is_dataclass(declared) and isinstance(value, declared):
        return plain_fields(value)
    found = _exactly(declared, value)
    if isinstance(found, Enum):
        return found.name
    if (found is not None and type(found) not in SCALARS) or (isinstance(found, str) and "${" in found):
        raise OtherType
    return found


def _of_union(value: Any, members: tuple[Any, ...]) -> Any:
    """OmegaConf keeps a value of a union only if it is exactly of one of its types."""
    if value is None and type(None) in members:
        return None
    others = [member for member in members if member is not type(None)]
    if len(others) == 1:
        return _plain(value, others[0])
    return _plain(value, _exactly_one_of(others, value))


def _exactly_one_of(types: list[Any], value: Any) -> Any:
    if type(value) not in types:
        raise OtherType
    return type(value)


def _of_dict(value: Any, key: Any, item: Any) -> dict[str, Any]:
    if key is not str or any(type(name) is not str for name in _exactly(dict, value)):
        raise OtherType
    return {name: _plain(content, item) for name, content in value.items()}


def _exactly(declared: Any, value: Any) -> Any:
    if type(value) is not declared:
        raise OtherType
    return value
