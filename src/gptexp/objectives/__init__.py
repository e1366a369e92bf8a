"""What a model is trained to do. One kind a file: a class of `Objective`, named `Implementation`.

An objective says what data it learns from, what is put on top of the model, what the loss of a batch is, and
how validation is scored. Nothing else in gptexp knows which objective a run has. A new one is a file here
with a schema, and a preset in conf/objective/.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from gptexp.models.classifier import HEAD

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from gptexp.config import Config, ModelConfig, ObjectiveConfig
    from gptexp.data.batches import Batch, BatchPlan
    from gptexp.tokenizers import Tokenizer


class Score(ABC):
    """What one validation found."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """By the names that every log and table uses: those of `objective.metrics`."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The sums behind the metrics, as plain data for result.json."""

    def line(self) -> str:
        """For the one who watches."""
        return " · ".join(f"{name} {value:.3f}" for name, value in self.metrics().items())


class Objective(ABC):
    """One objective, for one tokenizer.

    facts: what it must know of its data besides, plain data that checkpoints carry; they may come from a stranger.
    parts: names of the tensors of a batch.
    """

    parts: ClassVar[tuple[str, ...]]
    writes: ClassVar[bool] = False  # does the model give the probability of a next token?
    gives: ClassVar[str] = "it gives no next token"  # what is told to those who want a text of one that doesn't
    told: ClassVar[tuple[str, ...]]  # the metrics to end with
    after: ClassVar[str]  # the command to type after training; RUN stands for the run

    def __init__(self, config: ObjectiveConfig, tokenizer: Tokenizer, facts: Mapping[str, Any]) -> None:
        self.config: Any = config
        self.tokenizer, self.facts = tokenizer, facts

    def next_command(self, run: str, data: Any) -> str:
        """What to type after training; run: as a command line names it."""
        return self.after.replace("RUN", run)

    # ------------------------------------------------------------------------------ data

    @staticmethod
    def prepare(config: Config, tokenizer: Any, cache: Path) -> Any:
        """The data to learn from, made if they aren't in the cache: tokens of a text.

        tokenizer: settings to make one, or one that exists. What comes back has tokenizer, facts, train_tokens,
        train_bytes, fingerprint, text_sha256 and folder; the rest is between it and the objective.
        """
        from gptexp.data.prepare import prepare

        return prepare(config.data, tokenizer, cache, block_size=config.model.block_size)

    @abstractmethod
    def train_batches(
        self, data: Any, config: Config, plan: BatchPlan, *, rank: int, first_step: int, last_step: int
    ) -> Dataset[Batch]:
        """The micro-batches of a rank in order, a pure function of (seed, step) and the plan."""

    @abstractmethod
    def val_batches(self, data: Any, config: Config, plan: BatchPlan, *, rank: int) -> Dataset[Batch]:
        """What a rank scores; every rank has as many."""

    def tokens_per_step(self, data: Any, config: Config, plan: BatchPlan) -> int:
        """Tokens that a step learns from, padding not counted."""
        return plan.windows * config.model.block_size

    @abstractmethod
    def describe(self, data: Any, config: Config, plan: BatchPlan) -> tuple[str, str]:
        """In words: how much a run learns from, and what it is scored on."""

    # ----------------------------------------------------------------------------- model

    @property
    def vocab_size(self) -> int:
        """Rows of the model's embedding."""
        return self.tokenizer.vocab_size

    def make_model(self, config: ModelConfig) -> nn.Module:
        """The model with what this objective puts on top; its first weights are torch's next draws."""
        from gptexp.models.build import plain_model

        return plain_model(config, self.vocab_size)

    # --------------------------------------------------------------------- loss and score

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The mean to minimise, such that the mean over equal micro-batches is that of the whole batch."""

    @abstractmethod
    def measure(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """What a validation batch adds to the sums, (n,) float64 on the CPU: sums know no layout."""

    @abstractmethod
    def score(self, sums: torch.Tensor) -> Score:
        """The score from the sums over all batches of all ranks."""


def implementation(kind: str) -> type[Objective]:
    """The class that `objective.kind` means: gptexp.objectives.<kind>.Implementation."""
    return importlib.import_module(f"{__name__}.{kind}").Implementation


def carried_over(stored: dict[str, torch.Tensor], model: nn.Module, tokens: int) -> dict[str, torch.Tensor]:
    """The weights of a run as `init_from` gives them to a model that another objective may have put a head on.

    The transformer's stay. A head that the model hasn't is left out, `score` always begins anew (its labels
    are others), and the mask's row goes where the model has no more rows than there are `tokens`.
    """
    own = dict(model.named_parameters())
    carried = {name: tensor for name, tensor in stored.items() if name in own or not name.startswith(HEADS)}
    carried |= {name: parameter.detach() for name, parameter in own.items() if name.startswith(HEAD)}
    for name in ("transformer.wte.weight", "lm_head.weight"):
        if name in own and name in carried and len(carried[name]) == tokens + 1 > len(own[name]):
            carried[name] = carried[name][:tokens]
    return carried


HEADS = (HEAD, "lm_head.")
