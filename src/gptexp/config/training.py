"""Settings of the schedule and the trainer, and of what a run records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import II

from gptexp.config.length import LENGTHS, asked, require_budget, seconds_of
from gptexp.config.rules import require, require_at_least
from gptexp.util.options import PRECISIONS

Accelerator = Enum("Accelerator", ["auto", "cpu", "gpu", "mps"])
Strategy = Enum("Strategy", ["auto", "ddp", "fsdp"])
Recompute = Enum("Recompute", ["none", "blocks"])

NO_BLOCKS = "the model has no blocks; use trainer.recompute=none"
ACTIVATIONS = tuple(f"activation/{name}" for name in ("embedding", "attention", "mlp", "stream", "logits"))
NOVELTY = ("novelty/longest_span", "novelty/new_ngrams_5", "novelty/invented_words")


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """Linear warm-up, then a constant learning rate.

    Another schedule is a subclass with its own `after_warmup`.
    """

    kind: str = "constant"
    """Name of the schedule. The preset sets it."""
    warmup_steps: int | None = None
    """Steps in which the learning rate rises linearly to its peak. null: 1/20 of trainer.max_steps, at most 1,000."""

    def __post_init__(self) -> None:
        require_at_least(0, "schedule", self, "warmup_steps")

    def after_warmup(self, step: int, warmup: int, max_steps: int) -> float:
        """Return the factor of the peak learning rate at a step from `warmup` on; steps are counted from 0."""
        return 1.0

    def require_warmup(self, max_steps: int, named: str) -> None:
        """Refuse a warm-up that is longer than the run. named: what gives its steps, for the message."""
        warmup = self.warmup_steps
        remedy = f"must be at most {named}; null means 1/20 of it"
        require(warmup is None or warmup <= max_steps, "schedule.warmup_steps", warmup, remedy)


@dataclass(kw_only=True, slots=True)
class CosineConfig(ScheduleConfig):
    """Linear warm-up, then half a cosine down to min_lr_ratio (arXiv 1608.03983, without restarts)."""

    kind: str = "cosine"
    min_lr_ratio: float = 0.1
    """Final learning rate divided by the peak learning rate, from 0 to 1."""

    def __post_init__(self) -> None:
        ScheduleConfig.__post_init__(self)
        require(0 <= self.min_lr_ratio <= 1, "schedule.min_lr_ratio", self.min_lr_ratio, "must be from 0 to 1")

    def after_warmup(self, step: int, warmup: int, max_steps: int) -> float:
        cosine = (1 + math.cos(math.pi * _progress(step, warmup, max_steps))) / 2
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * cosine


@dataclass(kw_only=True, slots=True)
class LinearConfig(CosineConfig):
    """Linear warm-up, then a linear decay to min_lr_ratio."""

    kind: str = "linear"

    def after_warmup(self, step: int, warmup: int, max_steps: int) -> float:
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * (1 - _progress(step, warmup, max_steps))


@dataclass(kw_only=True, slots=True)
class WSDConfig(LinearConfig):
    """Linear warm-up, a constant phase, then a linear decay (arXiv 2404.06395)."""

    kind: str = "wsd"
    min_lr_ratio: float = 0.0
    decay_fraction: float = 0.2
    """Fraction of the steps, at the end, in which the learning rate decays; above 0, at most 1."""

    def __post_init__(self) -> None:
        LinearConfig.__post_init__(self)
        require(
            0 < self.decay_fraction <= 1, "schedule.decay_fraction", self.decay_fraction, "must be above 0, at most 1"
        )

    def after_warmup(self, step: int, warmup: int, max_steps: int) -> float:
        start = max(warmup, max_steps - round(self.decay_fraction * max_steps))
        return LinearConfig.after_warmup(self, step, start, max_steps)


def _progress(step: int, start: int, end: int) -> float:
    """Return the fraction of the steps from `start` to `end` before `step`, from 0 to 1."""
    if step >= end:
        return 1.0
    return (step - start) / (end - start) if step > start else 0.0


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """Length, hardware and numerical precision of training. A step is always an optimizer step."""

    max_steps: int | None = 580
    """Number of optimizer steps of the whole run. The last given of this and the next four settings is its length."""
    max_tokens: int | None = None
    """Length in tokens, with repetitions: the most steps that learn from at most so many."""
    max_flops: float | None = None
    """Length in FLOPs of forward and backward passes (1e15), without validation."""
    tokens_per_parameter: float | None = None
    """Length in tokens for each parameter that is trained, embeddings included (20)."""
    max_time: str | None = None
    """Length in time (30s, 5min, 1h30m), with validation: the number of steps follows from a short measurement on this
    machine before the first step."""
    val_every_steps: int = 200
    """Steps between two validations. Each also writes a sample and a checkpoint. The last step is always validated."""
    log_every_steps: int = 10
    """Steps between two logged values of the training loss."""
    gradient_clip: float | None = 1.0
    """Largest L2 norm of all gradients together; larger ones are scaled down. null: no clipping."""
    accelerator: Accelerator = Accelerator.auto
    """Hardware to train on. auto: a GPU if there is one, then MPS, then the CPU."""
    devices: int | str = "auto"
    """Number of training processes on each node, or auto: one for each GPU, and one on a CPU."""
    num_nodes: int = 1
    """Number of machines that train together."""
    strategy: Strategy = Strategy.auto
    """How several processes share the work. ddp: a copy of the model on each; fsdp: the model is sharded."""
    precision: str = "auto"
    """Numerical precision: auto, 32-true, bf16-mixed, 16-mixed or 64-true. auto: chosen for the hardware and the
    size of the model. A resumed run keeps its precision."""
    compile: bool | str = "auto"
    """Whether torch.compile compiles the model. auto: on a GPU, if the run is long enough to save time."""
    recompute: Recompute = Recompute.none
    """Which activations the backward pass computes again instead of storing them. blocks: all within each block, which
    takes a third more FLOPs and much less memory."""
    digests: bool = False
    """Whether digests.jsonl records eight bytes of each tensor at each logged step, for gptexp diverge."""
    log_norms: bool = False
    """Whether metrics.csv has the norms of gradient, weights and update at each logged step, by group of parameters."""

    def __post_init__(self) -> None:
        require_at_least(
            1, "trainer", self, "max_steps", "max_tokens", "val_every_steps", "log_every_steps", "num_nodes"
        )
        for name in ("max_flops", "tokens_per_parameter"):
            require_budget(name, getattr(self, name))
        if self.max_time is not None:
            seconds_of(self.max_time)
        require(
            self.gradient_clip is None or self.gradient_clip > 0,
            "trainer.gradient_clip",
            self.gradient_clip,
            "must be above 0, or null for no clipping",
        )
        require(
            self.precision in PRECISIONS,
            "trainer.precision",
            self.precision,
            f"choose one of {', '.join(PRECISIONS)}",
        )
        require(
            not (self.strategy is Strategy.fsdp and self.precision == "16-mixed"),
            "trainer.precision",
            self.precision,
            "not supported with trainer.strategy=fsdp; choose bf16-mixed, 32-true or 64-true",
        )
        require(
            not (self.digests and self.strategy is Strategy.fsdp),
            "trainer.digests",
            "true",
            "not supported with trainer.strategy=fsdp, whose tensors are sharded; use trainer.strategy=ddp",
        )
        require(self.compile in (True, False, "auto"), "trainer.compile", self.compile, "choose true, false or auto")
        devices = self.devices
        require(
            devices == "auto" or (isinstance(devices, int) and not isinstance(devices, bool) and devices > 0),
            "trainer.devices",
            devices,
            "must be auto or a number of processes, at least 1",
        )

    @property
    def length(self) -> dict[str, int | float | str]:
        """The setting that gives the length of the run, by name."""
        return asked({name: getattr(self, name) for name in LENGTHS})


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """When last.ckpt is written in addition to each validation and the end of the run."""

    every_steps: int | None = None
    """Steps between two checkpoints. null: no checkpoints by steps."""
    every_minutes: float | None = 15.0
    """Minutes between two checkpoints. null: no checkpoints by time."""
    asynchronous: bool = False
    """Whether training continues while a checkpoint is written, which takes the memory of one more copy of it. A job
    that shares steps with others of its sweep waits in any case."""

    def __post_init__(self) -> None:
        require_at_least(1, "callbacks.checkpoint", self, "every_steps")
        require(
            self.every_minutes is None or self.every_minutes > 0,
            "callbacks.checkpoint.every_minutes",
            self.every_minutes,
            "must be above 0, or null",
        )


@dataclass(kw_only=True, slots=True)
class SamplesConfig:
    """Text that the model generates at each validation, for samples.md and TensorBoard."""

    tokens: int = 64
    """Most tokens to generate. Fewer are generated if they would take longer than the validation. 0: none."""
    prompt: str = ""
    """Text that the sample continues. Empty: the first characters of the validation text."""
    temperature: float = 0.8
    """Sampling temperature. 0: always the most likely token."""
    top_k: int | None = 50
    """Number of most likely tokens that are sampled from. null: all tokens."""

    def __post_init__(self) -> None:
        require_at_least(0, "callbacks.samples", self, "tokens", "temperature")
        require_at_least(1, "callbacks.samples", self, "top_k")


@dataclass(kw_only=True, slots=True)
class NoveltyConfig:
    """Texts that are generated after the last step and searched for in the training text, for metrics `novelty/`."""

    samples: int = 0
    """Number of texts. 0: none."""
    tokens: int = 400
    """Tokens of each text."""
    temperature: float = 0.8
    """Sampling temperature. 0: always the most likely token."""
    top_k: int | None = 50
    """Number of most likely tokens that are sampled from. null: all tokens."""

    def __post_init__(self) -> None:
        require_at_least(0, "callbacks.novelty", self, "samples", "temperature")
        require_at_least(1, "callbacks.novelty", self, "tokens", "top_k")


@dataclass(kw_only=True, slots=True)
class CallbacksConfig:
    """Checkpoints, samples and further callbacks."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When checkpoints are written."""
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """Which text is generated at each validation."""
    novelty: NoveltyConfig = field(default_factory=NoveltyConfig)
    """How much of what the trained model writes is measured for copies from the training text."""
    activations: bool = False
    """Whether metrics.csv has the root mean square of a GPT's activations at each logged step, by kind of layer."""
    attention_entropy: bool = False
    """Whether metrics.csv has the entropy of a GPT's attention in bits after each validation, by layer."""
    plugins: dict[str, Any] = field(default_factory=dict)
    """Further callbacks, each added by +callbacks.plugins.NAME={_target_: CLASS, option: value}."""


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """Where metrics are logged in addition to metrics.csv."""

    tensorboard: bool = True
    """Whether TensorBoard event files are written."""
    plugins: dict[str, Any] = field(default_factory=dict)
    """Further loggers, each added by +logger.plugins.NAME={_target_: CLASS, option: value}."""


@dataclass(kw_only=True, slots=True)
class PathsConfig:
    """Folders, relative to the current directory. A leading ~ is the home folder."""

    data: str = "data"
    """Folder of the corpora."""
    logs: str = "logs"
    """Folder of runs and sweeps."""
    cache: str = II("paths.data") + "/cache"
    """Folder of tokenized corpora and downloads."""
