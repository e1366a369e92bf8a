"""Environment variables in the arguments of plug-ins: stored as `${oc.env:TOKEN}`, read where the plug-in is made.

So no file of a run, and no service that gets its settings, holds what the variable says (no torch).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

VARIABLE = re.compile(r"\$\{oc\.env:[^${}]*\}")
GROUPS = ("callbacks", "logger")  # whose plugins may name variables; neither is kept in checkpoints


def kept(raw: Any, resolved: Any, where: str) -> Any:
    """Resolved arguments of plug-ins, but with what names an environment variable as it was typed.

    Raises:
        ValueError: a text that holds other interpolations beside it.
    """
    if isinstance(raw, dict) and isinstance(resolved, dict):
        return {key: kept(raw[key], value, f"{where}.{key}") for key, value in resolved.items()}
    if isinstance(raw, list) and isinstance(resolved, list):
        return [kept(*pair, where) for pair in zip(raw, resolved, strict=True)]
    if not isinstance(raw, str) or "oc.env" not in raw:
        return resolved
    if "${" in VARIABLE.sub("", raw):
        raise ValueError(f"{where}={raw}: beside ${{oc.env:…}} no other ${{…}} may stand; write its value")
    return raw


def read(arguments: Any) -> Any:
    """Arguments with the values of the environment variables that they name. OmegaConf's error: one isn't set."""
    if isinstance(arguments, dict):
        return {key: read(value) for key, value in arguments.items()}
    if isinstance(arguments, list):
        return [read(value) for value in arguments]
    named = isinstance(arguments, str) and VARIABLE.search(arguments)
    return OmegaConf.create({"value": arguments})["value"] if named else arguments


def interpolates(settings: Mapping[str, Any]) -> bool:
    """Whether stored settings hold an interpolation, other than variables in the arguments of plug-ins."""
    plugins = [group.get("plugins") for name in GROUPS if isinstance(group := settings.get(name), Mapping)]
    rest = {
        name: {key: value for key, value in group.items() if key != "plugins"}
        if name in GROUPS and isinstance(group, Mapping)
        else group
        for name, group in settings.items()
    }
    return "${" in str(rest) or "${" in VARIABLE.sub("", str(plugins))
