"""Environment variables in arguments of plug-ins: stored as `${oc.env:TOKEN}`, read when the plug-in is created.

So neither the files of a run nor a service that logs its settings contain the value, which can be secret. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

VARIABLE = re.compile(r"\$\{oc\.env:[^${}]*\}")
GROUPS = ("callbacks", "logger")  # their plugins may name variables; checkpoints do not contain these groups


def keep_variables(raw: Any, resolved: Any, where: str) -> Any:
    """Return resolved arguments of plug-ins, with unresolved values where these name an environment variable.

    Raises:
        ValueError: a value contains another interpolation too.
    """
    if isinstance(raw, dict) and isinstance(resolved, dict):
        return {key: keep_variables(raw[key], value, f"{where}.{key}") for key, value in resolved.items()}
    if isinstance(raw, list) and isinstance(resolved, list):
        return [keep_variables(*pair, where) for pair in zip(raw, resolved, strict=True)]
    if not isinstance(raw, str) or "oc.env" not in raw:
        return resolved
    if "${" in VARIABLE.sub("", raw):
        raise ValueError(f"{where}={raw}: contains ${{oc.env:…}} and another ${{…}}; write its value")
    return raw


def read_variables(arguments: Any) -> Any:
    """Return arguments with the values of the environment variables that they name.

    Raises:
        OmegaConfBaseException: a variable is not set.
    """
    if isinstance(arguments, dict):
        return {key: read_variables(value) for key, value in arguments.items()}
    if isinstance(arguments, list):
        return [read_variables(value) for value in arguments]
    named = isinstance(arguments, str) and VARIABLE.search(arguments)
    return OmegaConf.create({"value": arguments})["value"] if named else arguments


def interpolates(settings: Mapping[str, Any]) -> bool:
    """Return whether stored settings contain an interpolation other than a variable in arguments of plug-ins."""
    plugins = [group.get("plugins") for name in GROUPS if isinstance(group := settings.get(name), Mapping)]
    rest = {
        name: {key: value for key, value in group.items() if key != "plugins"}
        if name in GROUPS and isinstance(group, Mapping)
        else group
        for name, group in settings.items()
    }
    return "${" in str(rest) or "${" in VARIABLE.sub("", str(plugins))
