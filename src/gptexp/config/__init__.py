"""The schema of every setting of an experiment: name, type, default, description and rules.

Hydra composes the YAML under conf/ (gptexp.compose) and converts it into these dataclasses, which the
rest of the code reads. A rule about one group is checked in the `__post_init__` of that group, a rule
across groups in `Config.__post_init__`. The string literal below a field describes it: the help and
docs/settings.md are made from these descriptions. Nothing here imports torch, so a wrong command line is
refused quickly. Settings do not change after composition.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from omegaconf import MISSING

from gptexp.config.data import (
    WEIGHTED,
    DataConfig,
    Exhausted,
    HarryPotterConfig,
    HuggingFaceConfig,
    LabelledConfig,
    MixtureConfig,
    PydocsConfig,
    PythonStdlibConfig,
    ShakespeareConfig,
    TextConfig,
)
from gptexp.config.finetune import FinetuneConfig, LoRAConfig
from gptexp.config.kinds import KINDS
from gptexp.config.length import require_one
from gptexp.config.model import (
    Activation,
    BigramConfig,
    GPTConfig,
    MLPConfig,
    ModelConfig,
    Norm,
    NormPosition,
    Parametrization,
    Position,
)
from gptexp.config.objective import (
    ClassificationConfig,
    ClassWeights,
    LMConfig,
    MLMConfig,
    ObjectiveConfig,
    best_by,
)
from gptexp.config.optimizer import AdamWConfig, MuonConfig, OptimizerConfig
from gptexp.config.prepare import PrepareConfig
from gptexp.config.rules import nearest_multiples, require, require_at_least
from gptexp.config.sweep import SweepConfig
from gptexp.config.tokenizer import (
    BPEConfig,
    ByteConfig,
    CharConfig,
    FilesTokenizerConfig,
    GPT2TokenizerConfig,
    TokenizerConfig,
)
from gptexp.config.training import (
    NO_BLOCKS,
    Accelerator,
    CallbacksConfig,
    CheckpointConfig,
    CosineConfig,
    LinearConfig,
    LoggerConfig,
    NoveltyConfig,
    PathsConfig,
    Recompute,
    SamplesConfig,
    ScheduleConfig,
    Strategy,
    TrainerConfig,
    WSDConfig,
)

# fmt: off
__all__ = [  # noqa: RUF022
    "Accelerator", "Activation", "AdamWConfig", "BPEConfig", "BigramConfig", "ByteConfig", "CallbacksConfig",
    "CharConfig", "CheckpointConfig", "ClassWeights", "ClassificationConfig", "Config", "CosineConfig",
    "DataConfig", "Exhausted", "FilesTokenizerConfig", "FinetuneConfig", "GPT2TokenizerConfig", "GPTConfig",
    "HarryPotterConfig", "HuggingFaceConfig", "KINDS", "LMConfig", "LabelledConfig", "LinearConfig",
    "LoRAConfig", "LoggerConfig", "MLMConfig", "MLPConfig", "MixtureConfig", "ModelConfig", "MuonConfig", "Norm",
    "NormPosition", "NoveltyConfig", "ObjectiveConfig", "OptimizerConfig", "Parametrization", "PathsConfig", "Position",
    "PrepareConfig", "PydocsConfig", "PythonStdlibConfig", "Recompute", "SamplesConfig", "ScheduleConfig",
    "ShakespeareConfig", "Strategy", "SweepConfig", "TextConfig", "TokenizerConfig", "TrainerConfig", "WSDConfig",
    "best_by", "require", "require_at_least", "require_safe_name",
]
# fmt: on


@dataclass(kw_only=True, slots=True)
class Config:
    """All settings of one experiment."""

    name: str = "run"
    """Name of the run: its folder below logs/runs/."""
    seed: int = 1
    """Seed of initialization, order of the data and dropout; a whole number from 0."""
    resume: str | None = None
    """Run to continue: a run folder, a checkpoint file, `latest`, or `auto` (the run of this name, if it exists)."""
    init_from: str | None = None
    """Run, published GPT-2 model or Hugging Face folder that initial weights and the tokenizer are taken from."""
    model: ModelConfig = MISSING
    """The model."""
    tokenizer: TokenizerConfig = MISSING
    """The tokenizer."""
    data: DataConfig = MISSING
    """The corpus and the batches."""
    objective: ObjectiveConfig = MISSING
    """What the model is trained to predict."""
    optimizer: OptimizerConfig = MISSING
    """The optimizer."""
    schedule: ScheduleConfig = MISSING
    """How the learning rate depends on the step."""
    finetune: FinetuneConfig = MISSING
    """Which parameters are trained."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Length, hardware and numerical precision of training."""
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    """Checkpoints, samples and further callbacks."""
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    """Where metrics are logged."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    """Folders of data, logs and caches."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """How the jobs of a sweep are stored and run."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """How `gptexp prepare` divides its work."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "must be a whole number from 0")
        require_safe_name(self.name)
        for group in KINDS:
            settings = getattr(self, group)
            require(
                settings.kind == _kind_of(type(settings)),
                f"{group}.kind",
                settings.kind,
                f"is set by the preset; choose one with {group}=…",
            )
        self.objective.check(self.model, self.data)
        self.data.require_whole_windows(self.model.block_size)
        require_one(list(self.trainer.length))
        if self.trainer.max_steps is not None:
            steps = self.trainer.max_steps
            self.schedule.require_warmup(steps, f"trainer.max_steps={steps}")
        for name, plugin in self.callbacks.plugins.items():
            monitor = plugin.get("monitor") if isinstance(plugin, dict) else None
            require(
                monitor is None or monitor in self.metrics,
                f"callbacks.plugins.{name}.monitor",
                monitor,
                f"must be a metric of objective={self.objective.kind}: {', '.join(self.metrics)}",
            )
        remedy = f"needs a model of kind gpt, and it is {self.model.kind}; leave it out"
        has_layers = isinstance(self.model, GPTConfig)
        for name in ("activations", "attention_entropy"):
            require(has_layers or not getattr(self.callbacks, name), f"callbacks.{name}", "true", remedy)
        if isinstance(self.model, GPTConfig) and self.model.parametrization is Parametrization.mup:
            remedy = "needs optimizer=adamw or optimizer=muon, because the rates depend on the kind of update"
            require(isinstance(self.optimizer, AdamWConfig), "model.parametrization", "mup", remedy)
        recomputes = self.trainer.recompute is not Recompute.none
        require(self.model.has_blocks or not recomputes, "trainer.recompute", self.trainer.recompute.name, NO_BLOCKS)
        if isinstance(self.optimizer, AdamWConfig) and isinstance(self.model, GPTConfig):
            self._require_own_head(self.optimizer, self.model)
        if isinstance(self.finetune, LoRAConfig):
            self._require_adaptable(self.finetune)
        if isinstance(self.trainer.devices, int):
            self.require_divisible_batch(self.trainer.devices * self.trainer.num_nodes)
        else:
            self.require_divisible_batch(1)

    def _require_own_head(self, optimizer: AdamWConfig, model: GPTConfig) -> None:
        """Refuse a rate of the output layer if it shares the matrix of the embedding; a classifier's never does."""
        shared = model.tie_weights and not isinstance(self.objective, ClassificationConfig)
        remedy = "is for an output layer with its own matrix; use optimizer.embedding_lr, or model.tie_weights=false"
        require(optimizer.head_lr is None or not shared, "optimizer.head_lr", optimizer.head_lr, remedy)

    def _require_adaptable(self, lora: LoRAConfig) -> None:
        """Refuse adapters without trained weights, on layers that do not exist, or trained with Muon."""
        source = self.resume or self.init_from
        remedy = "needs a trained model; add init_from=RUN, or use finetune=full"
        require(source is not None, "finetune", "lora", remedy)
        # Muon orthogonalizes the update of a whole matrix; an adapter is a product of two thin ones.
        remedy = "is not supported with finetune=lora; use optimizer=adamw"
        require(not isinstance(self.optimizer, MuonConfig), "optimizer", "muon", remedy)
        if self.model.adaptable is not None:
            lora.require_layers(self.model.adaptable)

    def require_divisible_batch(self, world_size: int) -> None:
        """Refuse a global batch that is no multiple of the number of devices times the micro-batch."""
        micro, total = self.data.micro_batch_size or 1, self.windows_per_step
        share = micro * world_size
        setting = "data.global_batch_size" if self.data.global_batch_tokens is None else "data.global_batch_tokens"
        unit = 1 if self.data.global_batch_tokens is None else self.model.block_size
        require(
            total % share == 0,
            setting,
            total * unit,
            f"must be a multiple of {share * unit} (micro batch {micro} × {world_size} "
            f"{'device' if world_size == 1 else 'devices'}{' × block_size' if unit > 1 else ''}); "
            f"nearest: {nearest_multiples(total * unit, share * unit)}",
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that validation computes: those of the objective, then those of the parts of a mixture."""
        parts = (WEIGHTED, *self.data.parts) if isinstance(self.data, MixtureConfig) else ()
        return (*self.objective.metrics, *(f"{self.objective.best_by}/{name}" for name in parts))

    @property
    def windows_per_step(self) -> int:
        """Windows in one optimizer step, over all devices."""
        return self.data.windows_per_step(self.model.block_size)

    @property
    def lr(self) -> float:
        """Peak learning rate: `optimizer.lr`, or the model's default if that is null."""
        return self.model.default_lr if self.optimizer.lr is None else self.optimizer.lr


def _kind_of(schema: type) -> object:
    return next(f.default for f in fields(schema) if f.name == "kind")


def require_safe_name(name: str) -> None:
    """Refuse a run's name that is not the name of one folder."""
    safe = bool(name.strip(". ")) and not any(c in '/\\:*?"<>|' or not c.isprintable() for c in name)
    remedy = "must be a valid folder name: at most 100 bytes, without / or \\"
    require(safe and len(name.encode()) <= 100, "name", name, remedy)
