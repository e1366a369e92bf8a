"""How much the trained model copies from its training text, in result.json and metrics.csv."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, cast

import torch

from gptexp.config import Config
from gptexp.config.rules import require
from gptexp.config.training import NOVELTY
from gptexp.data.mixture import Texts
from gptexp.data.prepared import PreparedData
from gptexp.generation.continuations import compared, continued, held_out_windows
from gptexp.machine.lightning import pl
from gptexp.objectives import Objective
from gptexp.training.callbacks.record import RunRecord
from gptexp.training.module import LitGPT


class NoveltyMetrics(pl.Callback):
    """Generates texts after the last step, and logs the means of what is new in them. Without texts it does nothing.

    Raises:
        ValueError: the model generates no text, or the validation text is too short.
    """

    def __init__(self, config: Config, objective: Objective[Any], data: PreparedData, record: RunRecord) -> None:
        self.config, self.data, self.record = config.callbacks.novelty, cast("Texts", data), record
        samples, remedy = self.config.samples, "needs a model that generates text; use objective=lm"
        require(objective.generates or not samples, "callbacks.novelty.samples", samples, remedy)
        place = (config.model.block_size, "callbacks.novelty.tokens")
        self.windows = held_out_windows(self.data, self.config, *place) if samples else []

    def on_train_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        sharded = isinstance(trainer.strategy, pl.strategies.ModelParallelStrategy)  # all ranks generate together
        if not self.windows or not (trainer.is_global_zero or sharded):
            return
        with torch.compiler.set_stance("force_eager") if lit.compiled else nullcontext():
            written = continued(lit.model, self.windows, self.config, lit.config.seed)
        if trainer.is_global_zero:
            found = [one.values for one in compared(self.data, written)]
            known = {name: [v for values in found if (v := values[name[8:]]) is not None] for name in NOVELTY}
            means = {name: math.fsum(some) / len(some) if some else math.nan for name, some in known.items()}
            self.record.add(means, trainer, lit.step)
