"""The classes of callbacks and loggers that `_target_` may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EARLY_STOPPING = "lightning.pytorch.callbacks.EarlyStopping"

# An exact list: a prefix would also allow lightning.pytorch.LightningModule.load_from_checkpoint, which unpickles
# an untrusted file and so executes its code.
PLUGINS = {
    "callbacks": {
        EARLY_STOPPING,
        "lightning.pytorch.callbacks.DeviceStatsMonitor",
        "lightning.pytorch.callbacks.Timer",
        "gptexp.training.callbacks.outputs.Outputs",
        "gptexp.training.callbacks.trace.Trace",
    },
    "logger": {
        "lightning.pytorch.loggers.WandbLogger",
        "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.loggers.CometLogger",
    },
}

# Callbacks that only observe. Every other callback can change the computation, as early stopping does.
OBSERVERS = {
    "lightning.pytorch.callbacks.DeviceStatsMonitor",
    "gptexp.training.callbacks.outputs.Outputs",
    "gptexp.training.callbacks.trace.Trace",
}


def computing(plugins: Mapping[str, Any]) -> dict[str, Any]:
    """Return the callbacks, of plug-ins by name, that can change the computation."""
    return {name: s for name, s in plugins.items() if isinstance(s, dict) and s.get("_target_") not in OBSERVERS}
