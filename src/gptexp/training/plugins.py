"""Callbacks and loggers that the user adds to a run, from a fixed list of classes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gptexp.config.environment_variables import read_variables
from gptexp.config.plugins import PLUGINS
from gptexp.util.text import first_line


def load_plugins(group: str, plugins: dict[str, Any]) -> dict[str, Any]:
    """Create the user's plug-ins of a group (callbacks, logger), by name.

    Raises:
        ValueError: a `_target_` that is not in the list, wrong arguments, or a logger that cannot start.
    """
    created = {}
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
                _ = plugin.experiment  # a logger connects to its service here
        except Exception as error:  # libraries raise any kind for a wrong setup
            raise ValueError(f"{group}.plugins.{name}: {first_line(error)}") from error
        created[name] = plugin
    return created
