"""Any objective of a text, learned from a mixture and scored on each of its parts."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from gptexp.config import Config
from gptexp.config.data import WEIGHTED
from gptexp.config.model import ModelConfig
from gptexp.data.batches import Batch, BatchPlan, ScoredBatches
from gptexp.data.mixture import MixtureData
from gptexp.objectives.base import Objective
from gptexp.objectives.base import Score as ScoreBase


@dataclass(frozen=True)
class Score(ScoreBase):
    """The scores of the parts. names, shares: of the parts. by: the metric that each part has."""

    scores: tuple[ScoreBase, ...]
    names: tuple[str, ...]
    shares: tuple[float, ...]
    by: str

    def __add__(self, other: Score) -> Score:
        scores = tuple(a + b for a, b in zip(self.scores, other.scores, strict=True))
        return Score(scores, self.names, self.shares, self.by)

    def sums(self) -> list[float]:
        return [number for score in self.scores for number in score.sums()]

    @property
    def together(self) -> ScoreBase:
        """The score of all validation texts as one, in which every byte counts equally."""
        first, *others = self.scores
        for score in others:
            first = first + score
        return first

    def metrics(self) -> dict[str, float]:
        """Return the metrics of all validation texts together, of each part, and the mean by the parts' weights."""
        parts = [score.metrics()[self.by] for score in self.scores]
        mean = math.fsum(share * value for share, value in zip(self.shares, parts, strict=True))
        of_parts = {f"{self.by}/{name}": value for name, value in zip(self.names, parts, strict=True)}
        return {**self.together.metrics(), f"{self.by}/{WEIGHTED}": mean, **of_parts}

    def record(self) -> dict[str, Any]:
        parts = {name: score.record() for name, score in zip(self.names, self.scores, strict=True)}
        return {**self.together.record(), "parts": parts}

    def line(self) -> str:
        parts = [f"{name} {score.metrics()[self.by]:.3f}" for name, score in zip(self.names, self.scores, strict=True)]
        return f"{self.together.line()} · {' · '.join(parts)}"


class Mixed(Objective[MixtureData]):
    """Batches of training are those of the objective; a batch of validation also has the number of its part, ()."""

    def __init__(self, objective: Objective[Any], data: MixtureData) -> None:
        super().__init__(objective.config, objective.tokenizer, objective.facts)
        self.objective, self.data = objective, data
        self.names, self.shares = tuple(data.parts), tuple(data.shares)
        # Class variables of an objective, which here depend on the one that is wrapped.
        self.parts, self.generates = objective.parts, objective.generates  # type: ignore[misc]
        self.why_no_text = objective.why_no_text  # type: ignore[misc]
        of_parts = (f"{self.config.best_by}/{name}" for name in data.parts)
        self.headline = (*objective.headline, *of_parts)  # type: ignore[misc]

    def next_command(self, run: str, data: MixtureData) -> str:
        return self.objective.next_command(run, next(iter(data.parts.values())))

    def train_batches(
        self, data: MixtureData, config: Config, plan: BatchPlan, *, rank: int, first_step: int, last_step: int
    ) -> Dataset[Batch]:
        return self.objective.train_batches(data, config, plan, rank=rank, first_step=first_step, last_step=last_step)

    def val_batches(self, data: MixtureData, config: Config, plan: BatchPlan, *, rank: int) -> Dataset[Batch]:
        return PartBatches([self._val_batches(part, config, plan, rank) for part in data.parts.values()])

    def _val_batches(self, part: Any, config: Config, plan: BatchPlan, rank: int) -> ScoredBatches:
        batches = self.objective.val_batches(part, config, plan, rank=rank)
        assert isinstance(batches, ScoredBatches)
        return batches

    def describe(self, data: MixtureData, config: Config, plan: BatchPlan, steps: int) -> tuple[str, str]:
        texts = {name: self.objective.describe(part, config, plan, steps) for name, part in data.parts.items()}
        learned = [next(iter(texts.values()))[0].partition(" · ")[0]]
        for name, used in self.used(config, plan, steps).items():
            tokens = len(data.parts[name].train)
            learned.append(f"{name}: {used['share']:.1%} of the windows · {used['epochs']:.1f} epochs of {tokens:,}")
        return "\n".join(learned), ", ".join(f"{scored} of {name}" for name, (_, scored) in texts.items())

    def used(self, config: Config, plan: BatchPlan, steps: int) -> dict[str, Any]:
        """Return share, windows, epochs and the hash of the validation text of each part."""
        order, samples = self.data.order(config.model.block_size, config.seed), steps * plan.windows
        counts, epochs = order.shares.counts(samples), order.epochs(samples)
        return {
            name: {"share": share, "windows": count, "epochs": times, "text_sha256": part.text_sha256}
            for (name, part), share, count, times in zip(
                self.data.parts.items(), self.shares, counts, epochs, strict=True
            )
        }

    @property
    def vocab_size(self) -> int:
        return self.objective.vocab_size

    def make_model(self, config: ModelConfig) -> nn.Module:
        return self.objective.make_model(config)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return self.objective.loss(model, batch)

    def measure(self, model: nn.Module, batch: Batch) -> Score:
        *tensors, part = batch
        found = self.objective.measure(model, tuple(tensors))
        nothing = self.objective.score([0.0] * len(found.sums()))
        return self._score([found if i == int(part) else nothing for i in range(len(self.names))])

    def score(self, sums: list[float]) -> Score:
        size = len(sums) // len(self.names)
        return self._score([self.objective.score(sums[i : i + size]) for i in range(0, len(sums), size)])

    def _score(self, scores: Sequence[ScoreBase]) -> Score:
        return Score(tuple(scores), self.names, self.shares, self.config.best_by)


class PartBatches(Dataset[Batch]):
    """The validation batches of each part in turn, each with the number of its part as the last tensor, ()."""

    def __init__(self, parts: Sequence[ScoredBatches]) -> None:
        self.parts = list(parts)
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, j: int) -> Batch:
        i = bisect.bisect_right(self._ends, j)
        batches = self.parts[i]
        return *batches[j - (self._ends[i] - len(batches))], torch.tensor(i)
