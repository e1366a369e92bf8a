"""The entropy of a GPT's attention after each validation, by layer."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gptexp.data.batches import Batch
from gptexp.machine.lightning import pl
from gptexp.models.attention import CausalSelfAttention
from gptexp.models.kernels.attention import attention_weights
from gptexp.training.callbacks.observing import observing
from gptexp.training.datamodule import Windows
from gptexp.training.module import LitGPT


class AttentionEntropy(pl.Callback):
    """Logs the entropy of attention in the first window of the validation text; training is unchanged.

    Replicas are equal, so rank 0 measures; with sharded weights all ranks do.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def on_validation_epoch_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        """Measure before `on_validation_end`, where the score completes the row of metrics.csv."""
        assert isinstance(lit, LitGPT)
        if not (trainer.is_global_zero or isinstance(trainer.strategy, pl.strategies.ModelParallelStrategy)):
            return
        batch = trainer.strategy.batch_to_device(self.windows.first_scored())
        with trainer.precision_plugin.forward_context():
            bits = attention_entropies(lit, batch)
        for logger in trainer.loggers:
            logger.log_metrics(bits, step=lit.step)


def entropy_columns(n_layer: int) -> list[str]:
    """Return the column of each layer."""
    return [f"attention_entropy/h.{layer}" for layer in range(n_layer)]


def attention_entropies(lit: LitGPT, batch: Batch) -> dict[str, float]:
    """Return the entropy of each layer in bits: the mean over heads and tokens, without padding.

    batch: one window or text, without dropout. A token that attends to n tokens equally has log2 n bits.
    """
    named = dict(zip(lit.objective.parts, batch, strict=False))  # a mixture's batch ends with the number of its part
    length = int(named["lengths"]) if "lengths" in named else batch[0].shape[1]
    found: list[Tensor] = []
    layers = [layer for layer in lit.model.modules() if isinstance(layer, CausalSelfAttention)]
    handles = [layer.register_forward_pre_hook(partial(_measure, found, length)) for layer in layers]
    with observing(lit.model, handles):
        lit.objective.measure(lit.model, batch)
    return dict(zip(entropy_columns(len(layers)), torch.stack(found).tolist(), strict=True))


def _measure(found: list[Tensor], length: int, layer: nn.Module, given: tuple[Any, ...]) -> None:
    assert isinstance(layer, CausalSelfAttention)
    x, rope, mask = given[:3]
    q, k, _ = layer.project(x, rope)
    weights = attention_weights(q, k, mask)[:, :, :length]  # (1, H, T, T)
    found.append(torch.special.entr(weights).sum(-1).mean() / math.log(2))
