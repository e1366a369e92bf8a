"""Callbacks and loggers that the user adds, created from an exact list of classes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gptexp.config.environment_variables import read_variables
from gptexp.config.plugins import PLUGINS
from gptexp.util.text import first_line


def load_plugins(group: str, plugins: dict[str, Any]) -> dict[str, Any]:
    """Objects that the user plugs in, by name, from an exact list of classes.

    Raises:
        ValueError: a `_target_` that isn't on the list, arguments that the class refuses, or a logger that can't start.
    """
    made = {}
    for name, settings in plugins.items():
        if settings is None:
            continue
        target = settings.get("_target_") if isinstance(settings, dict) else None
        if target not in PLUGINS[group]:
            raise ValueError(
                f"{group}.plugins.{name}._target_={target}: not allowed; "
                f"choose one of {', '.join(sorted(PLUGINS[group]))}"
            )
        module, _, cls = target.rpartition(".")
        arguments = {key: value for key, value in settings.items() if key != "_target_"}
        if any("_target_" in str(value) for value in arguments.values()):
            raise ValueError(f"{group}.plugins.{name}: a plug-in inside a plug-in is not allowed")
        try:
            plugin = getattr(import_module(module), cls)(**read_variables(arguments))
            if group == "logger":
                _ = plugin.experiment  # loggers meet their service only here
        except Exception as error:  # whatever a library raises: what is wrong lies in the user's set-up
            raise ValueError(f"{group}.plugins.{name}: {first_line(error)}") from error
        made[name] = plugin
    return made
