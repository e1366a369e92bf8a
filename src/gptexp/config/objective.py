"""Settings of the objectives: what a model is trained to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from gptexp.config.data import DataConfig, LabelledConfig
from gptexp.config.model import ModelConfig
from gptexp.config.rules import require, require_at_least

ClassWeights = Enum("ClassWeights", ["none", "balanced"])

HIGHER = frozenset({"val/accuracy", "val/macro_f1", "val/mlm_accuracy"})  # metrics of which more is better

# What settings mean that were written before there was a choice.
UNSAID: dict[str, Any] = {"kind": "lm"}


@dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    """What every objective has. `kind` names the file under gptexp/objectives/ and is set by the preset.

    metrics: what its validation says, by the names of every log and table, the loss first.
    best_by: that one of them by which best.ckpt is chosen and which a search minimises.
    """

    kind: str = ""
    metrics: ClassVar[tuple[str, ...]] = ()
    best_by: ClassVar[str] = ""

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return True

    def check(self, model: ModelConfig, data: DataConfig) -> None:
        """Refuse settings of other groups that this objective can't be trained with."""
        if isinstance(data, LabelledConfig):
            for name in ("val_path", "val_split"):
                remedy = f"objective={self.kind} takes its validation from the end of the texts; leave it out"
                require(not getattr(data, name), f"data.{name}", getattr(data, name), remedy)


@dataclass(kw_only=True, slots=True)
class LMConfig(ObjectiveConfig):
    """The next token of a text: what makes a language model."""

    kind: str = "lm"
    metrics: ClassVar[tuple[str, ...]] = ("val/loss", "val/bpb", "val/perplexity")
    best_by: ClassVar[str] = "val/bpb"


@dataclass(kw_only=True, slots=True)
class MLMConfig(ObjectiveConfig):
    """Masked language modelling with attention to both sides (BERT, arXiv 1810.04805, section 3.1)."""

    kind: str = "mlm"
    mask_fraction: float = 0.15  # share of a window's tokens that are to be found again
    metrics: ClassVar[tuple[str, ...]] = ("val/mlm_loss", "val/mlm_accuracy")
    best_by: ClassVar[str] = "val/mlm_loss"

    def __post_init__(self) -> None:
        holds = 0 < self.mask_fraction < 1
        require(holds, "objective.mask_fraction", self.mask_fraction, "must be above 0 and below 1")

    @property
    def causal(self) -> bool:
        return False

    def check(self, model: ModelConfig, data: DataConfig) -> None:
        ObjectiveConfig.check(self, model, data)
        _require_gpt(self, model)


@dataclass(kw_only=True, slots=True)
class ClassificationConfig(ObjectiveConfig):
    """The label of a text, from the hidden state of its last token (GPT-1: Radford et al. 2018, section 3.2)."""

    kind: str = "classification"
    lm_weight: float | None = None  # of the loss of the text's own tokens, beside the label's; null: 0.5 (if causal)
    class_weights: ClassWeights = ClassWeights.none  # balanced: rare labels weigh as much as frequent ones
    bidirectional: bool = False  # attention to both sides; an init_from of objective=mlm sets it
    metrics: ClassVar[tuple[str, ...]] = ("val/loss", "val/accuracy", "val/macro_f1")
    best_by: ClassVar[str] = "val/loss"

    def __post_init__(self) -> None:
        require_at_least(0, "objective", self, "lm_weight")
        require(
            not (self.bidirectional and self.lm_weight),
            "objective.lm_weight",
            self.lm_weight,
            "with objective.bidirectional=true a token sees the one that it should predict; give 0, or leave it out",
        )

    @property
    def causal(self) -> bool:
        return not self.bidirectional

    @property
    def auxiliary(self) -> float:
        """The weight of the language model's loss: `lm_weight`, or GPT-1's 0.5 where that loss has a meaning."""
        default = 0.5 if self.causal else 0.0
        return default if self.lm_weight is None else self.lm_weight

    def check(self, model: ModelConfig, data: DataConfig) -> None:
        _require_gpt(self, model)
        require(
            isinstance(data, LabelledConfig),
            "objective",
            self.kind,
            f"learns from texts with labels, which data={data.kind} hasn't; "
            "give data=labelled data.path=FILE.csv (or .jsonl, .parquet)",
        )


def _require_gpt(objective: ObjectiveConfig, model: ModelConfig) -> None:
    """Hidden states, and attention that can look both ways: of the kinds of models only gpt has them."""
    needs = "hidden states" if objective.causal else "attention to both sides"
    remedy = f"model.kind={model.kind} has no {needs}; choose a model of kind gpt, such as model=mini_gpt"
    require(model.kind == "gpt", "objective", objective.kind, remedy)


def best_by(schema: type) -> str:
    """What runs of an objective are judged by, from its schema."""
    assert issubclass(schema, ObjectiveConfig)
    return schema.best_by
