"""Settings of the objectives: what a model is trained to predict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from gptexp.config.data import DataConfig, LabelledConfig, MixtureConfig
from gptexp.config.model import ModelConfig
from gptexp.config.rules import require, require_at_least

ClassWeights = Enum("ClassWeights", ["none", "balanced"])

# Metrics for which larger values are better.
HIGHER = frozenset({"val/accuracy", "val/macro_f1", "val/mlm_accuracy", "novelty/new_ngrams_5"})


@dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    """Settings that every objective has.

    metrics: the metrics that validation computes, named as in logs and tables, the loss first.
    implementation: the class, as module:name, an Objective.
    best_by: the one of them that selects best.ckpt and that a search optimizes.
    unit: what the loss is a mean over, token or text.
    masks: whether the model has a mask token.
    follows_attention: whether `bidirectional` is set to the attention of the run in init_from.
    units: the units of metrics that have one. per_token: metrics that are averages over tokens, which are comparable
    only between runs with the same tokenizer.
    """

    kind: str = ""
    """Name of the objective's kind. The preset sets it."""
    implementation: ClassVar[str] = ""
    metrics: ClassVar[tuple[str, ...]] = ()
    best_by: ClassVar[str] = ""
    unit: ClassVar[str] = "token"
    masks: ClassVar[bool] = False
    follows_attention: ClassVar[bool] = False
    units: ClassVar[dict[str, str]] = {"val/loss": "nats per token", "val/bpb": "bits per byte"}
    per_token: ClassVar[tuple[str, ...]] = ("val/loss", "val/perplexity")

    @property
    def causal(self) -> bool:
        """Whether a position attends only to itself and to positions before it."""
        return True

    def check(self, model: ModelConfig, data: DataConfig) -> None:
        """Refuse settings of other groups that this objective does not support."""
        given = dict[str, object]()
        if isinstance(data, LabelledConfig):
            given = {"data.val_path": data.val_path, "data.val_split": data.val_split}
        if isinstance(data, MixtureConfig):
            of = {f"data.parts.{name}": part for name, part in data.parts.items()}
            given = {f"{name}.{key}": part.get(key) for name, part in of.items() for key in ("val_path", "val_split")}
        remedy = f"objective={self.kind} validates on the end of the training texts; leave it out"
        for setting, value in given.items():
            require(not value, setting, value, remedy)


@dataclass(kw_only=True, slots=True)
class LMConfig(ObjectiveConfig):
    """Predict the next token of a text (language modelling)."""

    implementation: ClassVar[str] = "gptexp.objectives.lm:LanguageModelling"
    kind: str = "lm"
    metrics: ClassVar[tuple[str, ...]] = ("val/loss", "val/bpb", "val/perplexity")
    best_by: ClassVar[str] = "val/bpb"


@dataclass(kw_only=True, slots=True)
class MLMConfig(ObjectiveConfig):
    """Predict masked tokens with bidirectional attention (BERT, arXiv 1810.04805, section 3.1)."""

    implementation: ClassVar[str] = "gptexp.objectives.mlm:MaskedLanguageModelling"
    kind: str = "mlm"
    mask_fraction: float = 0.15
    """Fraction of the tokens of a window that the model must predict; above 0 and below 1."""
    metrics: ClassVar[tuple[str, ...]] = ("val/mlm_loss", "val/mlm_accuracy")
    best_by: ClassVar[str] = "val/mlm_loss"
    masks: ClassVar[bool] = True
    units: ClassVar[dict[str, str]] = {"val/mlm_loss": "nats per masked token"}
    per_token: ClassVar[tuple[str, ...]] = metrics

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
    """Predict the label of a text from the hidden state of its last token (GPT: Radford et al. 2018, section 3.2)."""

    implementation: ClassVar[str] = "gptexp.objectives.classification:Classification"
    kind: str = "classification"
    lm_weight: float | None = None
    """Weight of the language-modelling loss that is added to the label's loss. null: 0.5, or 0 if bidirectional."""
    class_weights: ClassWeights = ClassWeights.none
    """Weights of the labels in the loss. balanced: each label counts equally, however frequent it is."""
    bidirectional: bool = False
    """Whether attention is bidirectional. init_from=RUN sets it where RUN was trained with objective=mlm."""
    metrics: ClassVar[tuple[str, ...]] = ("val/loss", "val/accuracy", "val/macro_f1")
    best_by: ClassVar[str] = "val/loss"
    unit: ClassVar[str] = "text"
    follows_attention: ClassVar[bool] = True
    units: ClassVar[dict[str, str]] = {"val/loss": "nats per text"}
    per_token: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require_at_least(0, "objective", self, "lm_weight")
        require(
            not (self.bidirectional and self.lm_weight),
            "objective.lm_weight",
            self.lm_weight,
            "must be 0 with objective.bidirectional=true, where each position attends to the token that it predicts",
        )

    @property
    def causal(self) -> bool:
        return not self.bidirectional

    @property
    def auxiliary(self) -> float:
        """Weight of the language-modelling loss after null is resolved: 0.5 as in GPT, or 0 if bidirectional."""
        default = 0.5 if self.causal else 0.0
        return default if self.lm_weight is None else self.lm_weight

    def check(self, model: ModelConfig, data: DataConfig) -> None:
        _require_gpt(self, model)
        require(
            isinstance(data, LabelledConfig),
            "objective",
            self.kind,
            f"needs texts with labels, and data={data.kind} has none; "
            "use data=labelled data.path=FILE.csv (or .jsonl, .parquet)",
        )


def _require_gpt(objective: ObjectiveConfig, model: ModelConfig) -> None:
    """Refuse models other than gpt: only gpt has hidden states and bidirectional attention."""
    needs = "hidden states" if objective.causal else "bidirectional attention"
    remedy = f"model.kind={model.kind} has no {needs}; choose a model of kind gpt, for example model=mini_gpt"
    require(model.kind == "gpt", "objective", objective.kind, remedy)


def best_by(schema: type) -> str:
    """Return the metric that runs of an objective are compared by."""
    assert issubclass(schema, ObjectiveConfig)
    return schema.best_by
