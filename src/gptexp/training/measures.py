"""What a run logs about its model only if its settings ask for it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from gptexp.config import Config
from gptexp.config.training import ACTIVATIONS, NOVELTY
from gptexp.machine.lightning import pl
from gptexp.training.callbacks.activations import Activations
from gptexp.training.callbacks.attention_entropy import AttentionEntropy, entropy_columns
from gptexp.training.callbacks.norms import Norms, norm_columns
from gptexp.training.datamodule import Windows


def measures(config: Config, windows: Windows) -> list[pl.Callback]:
    """Return the callbacks that measure the model."""
    return [
        *([Activations()] if config.callbacks.activations else []),
        *([AttentionEntropy(windows)] if config.callbacks.attention_entropy else []),
        *([Norms()] if config.trainer.log_norms else []),
    ]


def optional_columns(config: Config, model: nn.Module, peaks: Iterable[str]) -> list[str]:
    """Return the columns of metrics.csv that not every run has. peaks: those of `peak_rates`."""
    return [
        *peaks,
        *(ACTIVATIONS if config.callbacks.activations else ()),
        *(entropy_columns(getattr(config.model, "n_layer", 0)) if config.callbacks.attention_entropy else ()),
        *(norm_columns(model) if config.trainer.log_norms else ()),
        *(NOVELTY if config.callbacks.novelty.samples else ()),
    ]
