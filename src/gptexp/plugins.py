"""What a user may plug in by `_target_`: callbacks and loggers from an exact list of classes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gptexp.environment import read
from gptexp.words import first_line

# The only classes that a configuration may name: a prefix would let in
# lightning.pytorch.LightningModule.load_from_checkpoint, which runs a stranger's pickle.
PLUGINS = {
    "callbacks": {
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.callbacks.DeviceStatsMonitor",
        "lightning.pytorch.callbacks.Timer",
        "gptexp.callbacks.trace.Trace",
    },
    "logger": {
        "lightning.pytorch.loggers.WandbLogger",
        "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.loggers.CometLogger",
    },
}

# Callbacks that only look. Every other one may change what is computed, as early stopping does.
OBSERVERS = {"lightning.pytorch.callbacks.DeviceStatsMonitor", "gptexp.callbacks.trace.Trace"}


def computing(plugins: dict[str, Any]) -> dict[str, Any]:
    """The callbacks among plug-ins that may change what is computed."""
    return {name: s for name, s in plugins.items() if isinstance(s, dict) and s.get("_target_") not in OBSERVERS}


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
            plugin = getattr(import_module(module), cls)(**read(arguments))
            if group == "logger":
                _ = plugin.experiment  # loggers meet their service only here
        except Exception as error:  # whatever a library raises: what is wrong lies in the user's set-up
            raise ValueError(f"{group}.plugins.{name}: {first_line(error)}") from error
        made[name] = plugin
    return made
