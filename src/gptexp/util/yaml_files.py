"""YAML files of plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gptexp.util.files import MIB, atomic_write, read_bytes

SETTINGS_BYTES = MIB // 4  # a config.yaml has about 3,000
MAX_DEPTH = 32
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, at_most: int = SETTINGS_BYTES) -> Any:
    """Return the content of a YAML file of plain data. Aliases are refused because they can expand exponentially.

    Raises:
        ValueError: not valid YAML, nested too deeply, or with an alias; the message names the file.
        OSError: as `read_bytes`.
    """
    data = read_bytes(path, at_most)
    try:
        _require_bounded_yaml(data)
        return yaml.load(data, _LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _require_bounded_yaml(data: bytes) -> None:
    depth = 0
    for event in yaml.parse(data, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 1}: *{event.anchor} is an alias; write the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"line {event.start_mark.line + 1}: nested more than {MAX_DEPTH} levels deep")


def write_yaml(path: Path, value: object) -> None:
    """Write a YAML file atomically."""
    atomic_write(path, yaml_text(value).encode())


def yaml_text(value: object) -> str:
    """Return plain data as YAML."""
    text: str = yaml.dump(value, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True)
    return text


class _WithoutAliases(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: object) -> bool:
        return True
