"""The interface of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import nn
from torch.utils.data import Dataset

from gptexp.config import Config
from gptexp.config.model import ModelConfig
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.data.batches import Batch, BatchPlan
from gptexp.data.mixture import prepare_texts
from gptexp.data.prepared import DataFacts, PreparedData
from gptexp.models.build import plain_model
from gptexp.tokenizers import Tokenizer

Data = TypeVar("Data", bound=PreparedData)


class Score(ABC):
    """Sums over scored tokens or texts, and the metrics that follow from them.

    Scores are added: the score of a validation is the sum over its batches and over all ranks.
    """

    @abstractmethod
    def sums(self) -> list[float]:
        """Return the sums in a fixed order, as checkpoints store them; `Objective.score` reads them."""

    @abstractmethod
    def __add__(self, other: Self) -> Self:
        """Return the score of both parts together."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Return the metrics by the names that every log and table uses: those of `objective.metrics`."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return the sums by name, as plain data for result.json."""

    def line(self) -> str:
        """Return the metrics as text for the terminal."""
        return " · ".join(f"{name} {value:.3f}" for name, value in self.metrics().items())


class Objective(ABC, Generic[Data]):
    """What a model is trained to predict: the data, the head of the model, the loss and the score.

    facts: what checkpoints record about the data; they may come from an untrusted file.
    parts: names of the tensors of a batch.
    generates: whether the model gives the probability of the next token, so that it can generate text.
    why_no_text: reason for the error if text is requested from a model that generates none.
    headline: the metrics to print after training.
    next_step: the command to suggest after training, with RUN for the run.
    """

    facts_type: ClassVar[type[DataFacts]] = DataFacts
    parts: ClassVar[tuple[str, ...]]
    generates: ClassVar[bool] = False
    why_no_text: ClassVar[str] = "it predicts no next token"
    headline: ClassVar[tuple[str, ...]]
    next_step: ClassVar[str]

    def __init__(self, config: Any, tokenizer: Tokenizer, facts: DataFacts) -> None:
        self.config, self.tokenizer, self.facts = config, tokenizer, facts

    def next_command(self, run: str, data: Data) -> str:
        """Return the command to suggest after training; run: its name on a command line."""
        return self.next_step.replace("RUN", run)

    # ------------------------------------------------------------------------------ data

    @staticmethod
    def prepare(config: Config, tokenizer: TokenizerConfig | Tokenizer, cache: Path) -> PreparedData:
        """Return the data to learn from, after preparing it if it is not in the cache.

        By default these are the tokens of a text. tokenizer: settings to make one, or a tokenizer.
        """
        return prepare_texts(config.data, tokenizer, cache, block_size=config.model.block_size)

    @abstractmethod
    def train_batches(
        self, data: Data, config: Config, plan: BatchPlan, *, rank: int, first_step: int, last_step: int
    ) -> Dataset[Batch]:
        """Return the micro-batches of a rank in order, a pure function of (seed, step) and the plan."""

    @abstractmethod
    def val_batches(self, data: Data, config: Config, plan: BatchPlan, *, rank: int) -> Dataset[Batch]:
        """Return the batches that a rank scores; every rank has the same number of them."""

    def tokens_per_step(self, data: Data, config: Config, plan: BatchPlan) -> int:
        """Return the number of tokens that a step learns from, without padding."""
        return plan.windows * config.model.block_size

    def used(self, config: Config, plan: BatchPlan, steps: int) -> dict[str, Any] | None:
        """Return what so many steps use of each part of a mixture, as plain data; None without parts."""
        return None

    @abstractmethod
    def describe(self, data: Data, config: Config, plan: BatchPlan, steps: int) -> tuple[str, str]:
        """Return two texts: what a run of so many steps learns from, and what it is scored on."""

    # ----------------------------------------------------------------------------- model

    @property
    def vocab_size(self) -> int:
        """Number of rows of the model's embedding."""
        return self.tokenizer.vocab_size

    def make_model(self, config: ModelConfig) -> nn.Module:
        """Return the model with this objective's head; torch's next random numbers initialize its weights."""
        return plain_model(config, self.vocab_size)

    # --------------------------------------------------------------------- loss and score

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss to minimize, (). The mean over equal micro-batches must be the loss of the whole batch."""

    @abstractmethod
    def measure(self, model: nn.Module, batch: Batch) -> Score:
        """Return the score of a validation batch."""

    @abstractmethod
    def score(self, sums: list[float]) -> Score:
        """Return the score that has these `Score.sums()`."""
