"""Whether the data settings of a run may be acted on: a stranger's could name any file, glob or address (no torch)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptexp.config.data import FILE_FORMATS
from gptexp.util.text import typed_value

PLACES = ("path", "val_path", "data_files")  # of settings data.*: what is read


def is_own(run: Path, logs: Path) -> bool:
    """Whether a run lies below the user's folder of logs, as it is written or as links lead there."""
    folder = Path(os.path.abspath(run))  # noqa: PTH100 (Path.absolute keeps `..`)
    return folder.is_relative_to(os.path.abspath(logs)) or run.resolve().is_relative_to(logs.resolve())  # noqa: PTH100


def from_network(data: Mapping[str, Any]) -> bool:
    """Whether settings data.* name a data set that is fetched from wherever they say."""
    dataset = data.get("dataset")
    return (dataset is not None and dataset not in FILE_FORMATS) or any("://" in str(data.get(name)) for name in PLACES)


def is_near(data: Mapping[str, Any]) -> bool:
    """Whether settings data.* name nothing, or plain files and folders below the current directory."""
    here = Path.cwd()
    for name in PLACES:
        value = data.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or "\0" in value or set(value) & set("*?[~"):
            return False
        if not (here / value).resolve().is_relative_to(here):
            return False
    return not from_network(data)


def reaching_out(settings: Mapping[str, Any]) -> dict[str, str]:
    """What a run's settings name that lies beyond its folder and the current one, by group, in words."""
    found = {} if is_near(settings["data"]) else {"data": named(settings["data"])}
    loggers = [f"logger.plugins.{name}" for name, plugin in _plugins(settings, "logger").items() if plugin]
    if loggers:
        found["logger"] = " ".join(map(str, loggers))
    if "oc.env" in str(_plugins(settings, "callbacks")):
        found["callbacks"] = "environment variables in callbacks.plugins"
    return found


def _plugins(settings: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    chosen = settings.get(group)
    plugins = chosen.get("plugins") if isinstance(chosen, Mapping) else None
    return plugins if isinstance(plugins, Mapping) else {}


def named(data: Mapping[str, Any]) -> str:
    """What settings data.* name, for a message: data.kind=text data.path=/**."""
    names = ("kind", "dataset", *PLACES)
    return " ".join(f"data.{name}={typed_value(data[name])[:80]}" for name in names if data.get(name) is not None)
