"""Every setting of an experiment: its name, its type, its default and its rules.

The YAML under conf/ is composed by Hydra (gptexp.compose) and converted into these dataclasses,
which are handed to the code that reads them. A rule about one value lives in the `__post_init__`
of its group (the files beside this one), a rule across groups in `Config.__post_init__`. Nothing
here imports torch, so a wrong command line is answered at once; nothing changes a setting after
composition.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from omegaconf import MISSING

# ruff: noqa: F401 (the schemas of all rooms are imported from here)
from gptexp.config.data import (
    DataConfig,
    HarryPotterConfig,
    HuggingFaceConfig,
    LabelledConfig,
    PydocsConfig,
    PythonStdlibConfig,
    ShakespeareConfig,
    TextConfig,
)
from gptexp.config.finetune import FinetuneConfig, LoRAConfig
from gptexp.config.model import (
    Activation,
    BigramConfig,
    GPTConfig,
    MLPConfig,
    ModelConfig,
    Norm,
    NormPosition,
    Position,
)
from gptexp.config.objective import (
    UNSAID,
    ClassificationConfig,
    ClassWeights,
    LMConfig,
    MLMConfig,
    ObjectiveConfig,
    best_by,
)
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
    Accelerator,
    AdamWConfig,
    CallbacksConfig,
    CheckpointConfig,
    CosineConfig,
    LinearConfig,
    LoggerConfig,
    MuonConfig,
    PathsConfig,
    SamplesConfig,
    ScheduleConfig,
    Strategy,
    TrainerConfig,
    WSDConfig,
)

# Which dataclass a group's preset is an instance of, by its `kind`.
KINDS: dict[str, dict[str, type]] = {
    "model": {"bigram": BigramConfig, "mlp": MLPConfig, "gpt": GPTConfig},
    "tokenizer": {
        "char": CharConfig,
        "byte": ByteConfig,
        "bpe": BPEConfig,
        "gpt2": GPT2TokenizerConfig,
        "files": FilesTokenizerConfig,
    },
    "data": {
        "pydocs": PydocsConfig,
        "python_stdlib": PythonStdlibConfig,
        "text": TextConfig,
        "harrypotter": HarryPotterConfig,
        "shakespeare": ShakespeareConfig,
        "huggingface": HuggingFaceConfig,
        "labelled": LabelledConfig,
    },
    "objective": {"lm": LMConfig, "classification": ClassificationConfig, "mlm": MLMConfig},
    "optimizer": {"adamw": AdamWConfig, "muon": MuonConfig},
    "schedule": {"constant": ScheduleConfig, "cosine": CosineConfig, "linear": LinearConfig, "wsd": WSDConfig},
    "finetune": {"full": FinetuneConfig, "lora": LoRAConfig},
}


@dataclass(kw_only=True, slots=True)
class Config:
    """One experiment, whole."""

    name: str = "run"  # folder under logs/runs/
    seed: int = 1
    resume: str | None = None  # run folder, checkpoint or `latest` to go on from
    init_from: str | None = None  # the same, gpt2, or a folder of Hugging Face's, to take weights and tokenizer from
    model: ModelConfig = MISSING
    tokenizer: TokenizerConfig = MISSING
    data: DataConfig = MISSING
    objective: ObjectiveConfig = MISSING
    optimizer: AdamWConfig = MISSING
    schedule: ScheduleConfig = MISSING
    finetune: FinetuneConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "must be a whole number from 0")
        require_safe_name(self.name)
        for group in KINDS:
            settings = getattr(self, group)
            require(
                settings.kind == _kind_of(type(settings)),
                f"{group}.kind",
                settings.kind,
                f"is set by the preset; choose one by {group}=…",
            )
        self.objective.check(self.model, self.data)
        require(
            self.data.block_size == self.model.block_size,
            "data.block_size",
            self.data.block_size,
            f"follows model.block_size={self.model.block_size}; set that instead",
        )
        warmup, steps = self.schedule.warmup_steps, self.trainer.max_steps
        require(
            warmup is None or warmup <= steps,
            "schedule.warmup_steps",
            warmup,
            f"is longer than training (trainer.max_steps={steps}); give at most {steps}, or null for 1/20 of it",
        )
        for name, plugin in self.callbacks.plugins.items():
            monitor = plugin.get("monitor") if isinstance(plugin, dict) else None
            require(
                monitor is None or monitor in self.objective.metrics,
                f"callbacks.plugins.{name}.monitor",
                monitor,
                f"must be a metric of objective={self.objective.kind}: {', '.join(self.objective.metrics)}",
            )
        if isinstance(self.finetune, LoRAConfig):
            self._require_adaptable(self.finetune)
        if isinstance(self.trainer.devices, int):
            self.require_divisible_batch(self.trainer.devices * self.trainer.num_nodes)
        else:
            self.require_divisible_batch(1)

    def _require_adaptable(self, lora: LoRAConfig) -> None:
        """Adapters need trained weights, layers that are there, and AdamW."""
        source = self.resume or self.init_from
        require(source is not None, "finetune", "lora", "adapts a trained model; give init_from=RUN, or finetune=full")
        require(
            not isinstance(self.optimizer, MuonConfig),
            "optimizer",
            "muon",
            "steps equally far in all directions of a whole weight, and finetune=lora trains two thin factors of one; "
            "use optimizer=adamw",
        )
        if self.model.adaptable is not None:
            lora.require_layers(self.model.adaptable)

    def require_divisible_batch(self, world_size: int) -> None:
        """Refuse a global batch that the devices, or an explicit micro batch on them, can't share evenly."""
        micro, total = self.data.micro_batch_size or 1, self.data.windows_per_step
        share = micro * world_size
        setting = "data.global_batch_size" if self.data.global_batch_tokens is None else "data.global_batch_tokens"
        unit = 1 if self.data.global_batch_tokens is None else self.data.block_size
        require(
            total % share == 0,
            setting,
            total * unit,
            f"must be a multiple of {share * unit} (micro batch {micro} × {world_size} "
            f"{'device' if world_size == 1 else 'devices'}{' × block_size' if unit > 1 else ''}); "
            f"nearest: {nearest_multiples(total * unit, share * unit)}",
        )

    @property
    def lr(self) -> float:
        """The peak learning rate: `optimizer.lr`, or the model's natural one."""
        return self.model.natural_lr if self.optimizer.lr is None else self.optimizer.lr


def _kind_of(schema: type) -> object:
    return next(f.default for f in fields(schema) if f.name == "kind")


def require_safe_name(name: str) -> None:
    """A run's name becomes a folder below logs/, and nothing else."""
    safe = bool(name.strip(". ")) and not any(c in '/\\:*?"<>|' or not c.isprintable() for c in name)
    require(safe and len(name.encode()) <= 100, "name", name, "becomes a folder name: up to 100 bytes, no / or \\")
