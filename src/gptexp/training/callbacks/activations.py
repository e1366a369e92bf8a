"""The size of a GPT's activations during training, by kind of layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from gptexp.config.training import ACTIVATIONS
from gptexp.data.batches import Batch
from gptexp.machine.lightning import pl
from gptexp.models.gpt import Transformer
from gptexp.training.callbacks.observing import observing
from gptexp.training.module import LitGPT


class Activations(pl.Callback):
    """Logs the root mean square of activations at each logged step, with the weights before its update.

    They are those of the first micro-batch of rank 0, without dropout: embedding (with positions), the outputs of
    attention and mlp over all layers, the residual stream after the last layer, and logits. An additional forward pass
    measures them, so that training is unchanged.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, lit: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        assert isinstance(lit, LitGPT)
        step = lit.step + 1
        if batch_idx % lit.plan.accumulate or not lit.logs(step):
            return
        with trainer.precision_plugin.forward_context():
            sizes = activation_sizes(lit, batch)
        for logger in trainer.loggers:
            logger.log_metrics(sizes, step=step)


def activation_sizes(lit: LitGPT, batch: Batch) -> dict[str, float]:
    """Return the root mean square by the names in ACTIVATIONS, without a trace in the model; all ranks must call it."""
    model, squares = lit.model, defaultdict[str, list[torch.Tensor]](list)

    def measure(name: str, module: nn.Module, given: Any, out: torch.Tensor) -> None:
        squares[name].append(out.float().square().mean())

    handles = [layer.register_forward_hook(partial(measure, name)) for name, layer in _watched(model)]
    with observing(model, handles):
        lit.objective.loss(model, batch)
    return {name: float(torch.stack(squares[name]).mean().sqrt()) for name in ACTIVATIONS if name in squares}


def _watched(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers whose outputs are measured, with the name in ACTIVATIONS."""
    embedding, attention, mlp, stream, logits = ACTIVATIONS
    transformer = model.get_submodule("transformer")
    assert isinstance(transformer, Transformer)
    yield embedding, transformer.drop
    for name, layer in transformer.h.named_modules():
        kind = {"attn": attention, "mlp": mlp}.get(name.partition(".")[2])
        if kind is not None:
            yield kind, layer
    yield stream, transformer.h[-1]
    for name in ("lm_head", "score"):
        if isinstance(getattr(model, name, None), nn.Module):
            yield logits, model.get_submodule(name)
