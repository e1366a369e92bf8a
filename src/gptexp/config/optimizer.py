"""Settings of the optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gptexp.config.rules import require, require_at_least, require_fraction

LARGEST_RATE = 1e30  # the largest float32 is 3.4e38, and the rate is multiplied


def _require_rate(name: str, rate: float | None) -> None:
    allowed = rate is None or 0 < rate < LARGEST_RATE
    require(allowed, name, rate, f"must be above 0 and below {LARGEST_RATE:.0e}")


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """Settings that every optimizer has.

    implementation: a function, as module:name, that returns the optimizer (gptexp.training.optimizers.Parameters).
    """

    implementation: ClassVar[str] = ""
    kind: str = ""
    """Name of the optimizer's kind. The preset sets it."""
    lr: float | None = None
    """Peak learning rate. null: for gpt 2 / n_embd^1.2, at most 6e-3 (4e-2 without norms and residual connections); for
    bigram 3e-2; for other models 1e-3. With mup, base_width replaces n_embd."""

    def __post_init__(self) -> None:
        _require_rate("optimizer.lr", self.lr)


@dataclass(kw_only=True, slots=True)
class AdamWConfig(OptimizerConfig):
    """AdamW (arXiv 1711.05101). As in GPT-2, weight decay applies to matrices and not to vectors."""

    implementation: ClassVar[str] = "gptexp.training.optimizers:adamw"
    kind: str = "adamw"
    beta1: float = 0.9
    """Decay rate of the average of gradients, at least 0 and below 1."""
    beta2: float = 0.95
    """Decay rate of the average of squared gradients, at least 0 and below 1."""
    eps: float = 1e-8
    """Term added to the denominator of the update, above 0."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices: in each step they shrink by lr times this value."""
    embedding_lr: float | None = None
    """Peak learning rate of the embeddings of tokens, n-grams and positions. null: lr."""
    head_lr: float | None = None
    """Peak learning rate of an output layer that does not share the matrix of the token embedding. null: lr."""
    scalar_lr: float | None = None
    """Peak learning rate of biases, gains and all other parameters with fewer than two dimensions. null: lr."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        require(self.eps > 0, "optimizer.eps", self.eps, "must be above 0")
        require_fraction("optimizer", self, "beta1", "beta2")
        require_at_least(0, "optimizer", self, "weight_decay")
        for name in ("embedding_lr", "head_lr", "scalar_lr"):
            _require_rate(f"optimizer.{name}", getattr(self, name))


@dataclass(kw_only=True, slots=True)
class MuonConfig(AdamWConfig):
    """Muon (Jordan et al. 2024) for hidden matrices, and AdamW for embeddings, the output layer and vectors."""

    implementation: ClassVar[str] = "gptexp.training.optimizers:muon_with_adamw"
    kind: str = "muon"
    muon_lr: float | None = None
    """Peak learning rate of the hidden matrices. null: equal to lr, since updates have the RMS of AdamW's."""
    momentum: float = 0.95
    """Momentum of the hidden matrices, at least 0 and below 1."""
    nesterov: bool = True
    """Whether the momentum is Nesterov momentum."""
    ns_steps: int = 5
    """Number of iterations that orthogonalize an update, from 1 to 50."""
    normuon: bool = False
    """Whether the rows of an update are divided by the root of the running average of their mean squares, with decay
    rate beta2 (NorMuon, arXiv 2510.05491). The norm of the update does not change."""
    split_qkv: bool = False
    """Whether the query, key and value parts of attn.c_attn.weight are orthogonalized separately."""

    def __post_init__(self) -> None:
        AdamWConfig.__post_init__(self)
        _require_rate("optimizer.muon_lr", self.muon_lr)
        require_fraction("optimizer", self, "momentum")
        require(1 <= self.ns_steps <= 50, "optimizer.ns_steps", self.ns_steps, "must be from 1 to 50")
