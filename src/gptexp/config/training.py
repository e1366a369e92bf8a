"""Settings of optimizer, schedule and trainer, and of what a run records."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import II

from gptexp.config.rules import require, require_at_least, require_fraction

Accelerator = Enum("Accelerator", ["auto", "cpu", "gpu", "mps"])
Strategy = Enum("Strategy", ["auto", "ddp", "fsdp"])

LARGEST_RATE = 1e30  # float32 ends at 3.4e38, and a rate is multiplied
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true")


def _require_rate(name: str, rate: float | None) -> None:
    allowed = rate is None or 0 < rate < LARGEST_RATE
    require(allowed, name, rate, f"must be above 0 and below {LARGEST_RATE:.0e}")


@dataclass(kw_only=True, slots=True)
class AdamWConfig:
    """AdamW (arXiv 1711.05101) with GPT-2's groups: matrices decay, vectors don't."""

    kind: str = "adamw"
    lr: float | None = None  # null: the model's natural one (gpt: 2 / n_embd^1.2, at most 6e-3)
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        _require_rate("optimizer.lr", self.lr)
        require(self.eps > 0, "optimizer.eps", self.eps, "must be above 0")
        require_fraction("optimizer", self, "beta1", "beta2")
        require_at_least(0, "optimizer", self, "weight_decay")


@dataclass(kw_only=True, slots=True)
class MuonConfig(AdamWConfig):
    """Muon (Jordan et al. 2024) for hidden matrices, AdamW for embeddings, heads and vectors."""

    kind: str = "muon"
    muon_lr: float | None = None  # of the hidden matrices; null: the same as lr (updates have AdamW's RMS)
    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5  # Newton-Schulz iterations

    def __post_init__(self) -> None:
        AdamWConfig.__post_init__(self)
        _require_rate("optimizer.muon_lr", self.muon_lr)
        require_fraction("optimizer", self, "momentum")
        require(1 <= self.ns_steps <= 50, "optimizer.ns_steps", self.ns_steps, "must be from 1 to 50")


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """Warm-up, then constant. The learning rate is a pure function of the step (gptexp.config.schedule)."""

    kind: str = "constant"
    warmup_steps: int | None = None  # null: 1/20 of trainer.max_steps, at most 1,000

    def __post_init__(self) -> None:
        require_at_least(0, "schedule", self, "warmup_steps")


@dataclass(kw_only=True, slots=True)
class CosineConfig(ScheduleConfig):
    """Warm-up, then half a cosine down to min_lr_ratio (arXiv 1608.03983, without restarts)."""

    kind: str = "cosine"
    min_lr_ratio: float = 0.1

    def __post_init__(self) -> None:
        ScheduleConfig.__post_init__(self)
        require(0 <= self.min_lr_ratio <= 1, "schedule.min_lr_ratio", self.min_lr_ratio, "must be from 0 to 1")


@dataclass(kw_only=True, slots=True)
class LinearConfig(CosineConfig):
    """Warm-up, then a straight line down to min_lr_ratio."""

    kind: str = "linear"


@dataclass(kw_only=True, slots=True)
class WSDConfig(CosineConfig):
    """Warm-up, stable, decay (the trapezoid; arXiv 2404.06395)."""

    kind: str = "wsd"
    min_lr_ratio: float = 0.0
    decay_fraction: float = 0.2  # share of the steps, at the end, in which the rate falls

    def __post_init__(self) -> None:
        CosineConfig.__post_init__(self)
        require(
            0 < self.decay_fraction <= 1, "schedule.decay_fraction", self.decay_fraction, "must be above 0, at most 1"
        )


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """How long, on what, how exactly. A step is always an optimizer step."""

    max_steps: int = 580
    val_every_steps: int = 200
    log_every_steps: int = 10
    gradient_clip: float | None = 1.0  # largest L2 norm of all gradients together; null: no clipping
    accelerator: Accelerator = Accelerator.auto
    devices: int | str = "auto"  # processes on each node: a number, or auto: every GPU, one process on a CPU
    num_nodes: int = 1
    strategy: Strategy = Strategy.auto
    precision: str = "auto"  # auto, 32-true, bf16-mixed, 16-mixed, 64-true
    compile: bool | str = "auto"  # by torch.compile; auto: on a GPU, where the run is long enough to pay it back

    def __post_init__(self) -> None:
        require_at_least(1, "trainer", self, "max_steps", "val_every_steps", "log_every_steps", "num_nodes")
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
            "trainer.strategy=fsdp has no scaling of float16 gradients; choose bf16-mixed, 32-true or 64-true",
        )
        require(self.compile in (True, False, "auto"), "trainer.compile", self.compile, "choose true, false or auto")
        devices = self.devices
        require(
            devices == "auto" or (isinstance(devices, int) and not isinstance(devices, bool) and devices > 0),
            "trainer.devices",
            devices,
            "must be a number of processes from 1, or auto",
        )


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """When last.ckpt is written, besides after each validation and at the end."""

    every_steps: int | None = None
    every_minutes: float | None = 15.0

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
    """What the model writes at each validation, into samples.md and TensorBoard."""

    tokens: int = 64  # at most; fewer where that would cost more than the validation. 0: none
    prompt: str = ""  # empty: the first characters of the validation text
    temperature: float = 0.8
    top_k: int | None = 50

    def __post_init__(self) -> None:
        require_at_least(0, "callbacks.samples", self, "tokens", "temperature")
        require_at_least(1, "callbacks.samples", self, "top_k")


@dataclass(kw_only=True, slots=True)
class CallbacksConfig:
    """What runs beside training. Plug-ins are `{_target_: class, …}` from gptexp.config.plugins.PLUGINS."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    plugins: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """Where metrics go: metrics.csv always, TensorBoard unless off, plug-ins by `_target_`."""

    tensorboard: bool = True
    plugins: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class PathsConfig:
    """Folders, relative to the current directory."""

    data: str = "data"
    logs: str = "logs"
    cache: str = II("paths.data") + "/cache"
