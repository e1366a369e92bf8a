"""Whether the settings of an untrusted run may be used: they can name any file, glob pattern or address. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptexp.config.data import FILE_FORMATS
from gptexp.config.kinds import BUILT_IN
from gptexp.util.text import typed_value

PLACES = ("path", "val_path", "data_files")  # the settings data.* that name files or addresses


def is_in_logs(run: Path, logs: Path) -> bool:
    """Return whether a run is below the user's folder of logs, as the path is written or after following links."""
    folder = Path(os.path.abspath(run))  # noqa: PTH100 (Path.absolute keeps `..`)
    return folder.is_relative_to(os.path.abspath(logs)) or run.resolve().is_relative_to(logs.resolve())  # noqa: PTH100


def from_network(data: Mapping[str, Any]) -> bool:
    """Return whether settings data.* name a data set that is downloaded."""
    if any(map(from_network, _parts(data).values())):
        return True
    dataset = data.get("dataset")
    return (dataset is not None and dataset not in FILE_FORMATS) or any("://" in str(value) for value in data.values())


def is_local(data: Mapping[str, Any]) -> bool:
    """Return whether settings data.* name only files and folders below the current directory, or nothing."""
    if not all(map(is_local, _parts(data).values())):
        return False
    here = Path.cwd()
    own = data.get("kind") not in BUILT_IN["data"]  # a package's kind can name files in any setting
    for name in (*PLACES, *(name for name, value in data.items() if own and isinstance(value, str))):
        value = data.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or "\0" in value or set(value) & set("*?[~"):
            return False
        if not (here / value).resolve().is_relative_to(here):
            return False
    return not from_network(data)


def _parts(data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the settings of the parts of a mixture. What is no group of settings is refused when it is opened."""
    parts = data.get("parts")
    found = parts.items() if isinstance(parts, Mapping) else ()
    return {str(name): part for name, part in found if isinstance(part, Mapping)}


def require_trusted(run: str, checkpoint: Path, data: Mapping[str, Any], logs: Path, instead: str | None) -> None:
    """Refuse to read the corpus that an untrusted checkpoint names: any file of this machine, or any address.

    run: as the user named it. data: its settings data.*. instead: another remedy.

    Raises:
        ValueError: the run is outside logs, or its corpus is downloaded.
    """
    if not is_in_logs(checkpoint, logs):
        why = f"is outside --logs {logs}"
    elif from_network(data):
        why = "was trained on a corpus from the network"
    else:
        return
    raise ValueError(
        f"{run}: {why}, and the settings in {checkpoint} name the corpus to read ({data_text(data)}); "
        f"add --trust-data to allow that{f', or {instead}' if instead else ''}"
    )


def external_references(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return, by group, a text of what a run's settings name outside its folder and the current directory."""
    found = {} if is_local(settings["data"]) else {"data": data_text(settings["data"])}
    loggers = [f"logger.plugins.{name}" for name, plugin in _plugins(settings, "logger").items() if plugin]
    if loggers:
        found["logger"] = " ".join(loggers)
    if "oc.env" in str(_plugins(settings, "callbacks")):
        found["callbacks"] = "environment variables in callbacks.plugins"
    return found


def _plugins(settings: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    chosen = settings.get(group)
    plugins = chosen.get("plugins") if isinstance(chosen, Mapping) else None
    return plugins if isinstance(plugins, Mapping) else {}


def data_text(data: Mapping[str, Any], prefix: str = "data") -> str:
    """Return the files or the data set that settings data.* name, for a message: data.kind=text data.path=/**."""
    own = data.get("kind") not in BUILT_IN["data"]
    if parts := _parts(data):
        return " ".join(data_text(part, f"{prefix}.parts.{typed_value(name)[:80]}") for name, part in parts.items())
    names = dict.fromkeys(["kind", "dataset", *PLACES, *(name for name in data if own and isinstance(data[name], str))])
    return " ".join(f"{prefix}.{name}={typed_value(data[name])[:80]}" for name in names if data.get(name) is not None)


def needs_trust(settings: Mapping[str, Any], downloads: Path) -> list[str]:
    """Return the settings of a run, as `key=value`, that name plug-ins, a network, or files outside this directory.

    downloads: folder of the texts that need no download.
    """
    data = settings["data"]
    found = [] if is_local(data) else [data_text(data)]
    downloaded = [part for part in (data, *_parts(data).values()) if part.get("kind") == "shakespeare"]
    if any(p.get("path") is None for p in downloaded) and not any(downloads.glob("*shakespeare*")):
        found.append("data.kind=shakespeare, which is downloaded")
    for group, name in (("", "init_from"), ("tokenizer", "path")):
        value = (settings[group] if group else settings).get(name)
        if value is not None and not (is_local({"path": value}) and Path(str(value)).exists()):
            found.append(f"{group}{'.' * bool(group)}{name}={typed_value(value)[:80]}")
    plugins = _plugins(settings, "callbacks").items()
    return found + [f"callbacks.plugins.{typed_value(name)[:80]}" for name, plugin in plugins if plugin]
