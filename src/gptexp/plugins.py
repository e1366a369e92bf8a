"""What a user may plug in by `_target_`: callbacks and loggers from an exact list of classes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
        "lightning.pytorch.loggers.NeptuneLogger",
    },
}


def load_plugins(group: str, plugins: dict[str, Any]) -> list[Any]:
    """Objects that the user plugs in, from an exact list of classes.

    Raises:
        ValueError: a `_target_` that isn't on the list, or arguments that the class refuses.
    """
    made = []
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
            made.append(getattr(import_module(module), cls)(**arguments))
        except (TypeError, ValueError, ModuleNotFoundError) as error:
            raise ValueError(f"{group}.plugins.{name}: {error}") from None
    return made
