"""What a user may plug in by `_target_`: callbacks and loggers from an exact list of classes."""

from __future__ import annotations

from typing import Any

# The only classes that a configuration may name: a prefix would let in
# lightning.pytorch.LightningModule.load_from_checkpoint, which runs a stranger's pickle.
PLUGINS = {
    "callbacks": {
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.callbacks.DeviceStatsMonitor",
        "lightning.pytorch.callbacks.Timer",
        "gptexp.training.callbacks.trace.Trace",
    },
    "logger": {
        "lightning.pytorch.loggers.WandbLogger",
        "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.loggers.CometLogger",
    },
}

# Callbacks that only look. Every other one may change what is computed, as early stopping does.
OBSERVERS = {"lightning.pytorch.callbacks.DeviceStatsMonitor", "gptexp.training.callbacks.trace.Trace"}


def computing(plugins: dict[str, Any]) -> dict[str, Any]:
    """The callbacks among plug-ins that may change what is computed."""
    return {name: s for name, s in plugins.items() if isinstance(s, dict) and s.get("_target_") not in OBSERVERS}
