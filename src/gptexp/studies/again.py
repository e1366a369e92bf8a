"""The settings with which a recorded run, possibly of a stranger, is trained again in a temporary folder. No torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptexp.compose.composition import config_from_plain
from gptexp.compose.trust import needs_trust
from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.util.errors import ConfigError, RunError

CACHE, DOWNLOADS = "cache", "downloads"
USERS_CACHE = Path("data", CACHE)  # the default of paths.cache: what was downloaded before is not downloaded again


def config_for(
    settings: Mapping[str, Any],
    place: Path,
    *,
    of: str,
    trust: bool,
    device: str = "",
    **trainer: Any,
) -> Config:
    """Return the settings of a run for a training in `place`, with its logs and its cache.

    of: name of the run, for errors. device: on which it was trained. trainer: settings to replace.

    Raises:
        RunError: the settings are invalid, or need trust.
    """
    stored = {
        key: value for key, value in settings.items() if key not in ("name", "resume", "sweep", "prepare", "paths")
    }
    groups = {
        name: dict(settings[name]) for name in ("trainer", "callbacks", "data") if isinstance(settings.get(name), dict)
    }
    if len(groups) < 3:
        raise RunError(f"{of}: its settings are not those of a gptexp run")
    groups["trainer"] |= {"num_nodes": 1, "accelerator": _accelerator(device), **trainer}
    devices = groups["trainer"].get("devices")
    if isinstance(devices, int) and devices > (os.cpu_count() or 1):
        groups["trainer"]["devices"] = "auto"
    groups["callbacks"] |= {"checkpoint": {"every_steps": None, "every_minutes": None}, "samples": {"tokens": 0}}
    groups["data"]["num_workers"] = 0
    elsewhere = {
        "resume": None,
        "logger": {"tensorboard": False, "plugins": {}},
        "paths": {"data": str(place), "logs": str(place), "cache": str(place / CACHE)},
    }
    try:
        config = config_from_plain({**stored, **groups, **elsewhere})
    except ConfigError as error:
        raise RunError(f"{of}: {error}") from None
    _bring_downloads(place)
    needed = needs_trust(to_plain(config), place / CACHE / DOWNLOADS)
    if needed and not trust:
        raise RunError(f"{of}: its settings name {'; '.join(needed)}; if you trust them, add --trust")
    return config


def _accelerator(device: str) -> str:
    """The device of the run if this machine has it, else the best one."""
    if device == "cuda":
        from torch import cuda

        return "gpu" if cuda.is_available() else "auto"
    return "cpu" if device == "cpu" else "auto"


def _bring_downloads(place: Path) -> None:
    """Copy the corpora that were downloaded earlier; their content is checked where they are read."""
    target = place / CACHE / DOWNLOADS
    if (USERS_CACHE / DOWNLOADS).is_dir() and not target.exists():
        shutil.copytree(USERS_CACHE / DOWNLOADS, target)
