"""Settings of fine-tuning: which parameters are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gptexp.config.rules import require, require_at_least, require_fraction


@dataclass(kw_only=True, slots=True)
class FinetuneConfig:
    """All parameters are trained, from scratch or from the weights of `init_from`."""

    kind: str = "full"
    """Which parameters are trained. The preset sets it."""


@dataclass(kw_only=True, slots=True)
class LoRAConfig(FinetuneConfig):
    """Low-rank adapters (arXiv 2106.09685): weights are frozen, and W x becomes W x + alpha/rank B A x.

    A target is the name of a linear layer within a block: `attn.c_attn` is transformer.h.<every layer>.attn.c_attn.
    The end of a name matches too: `c_proj` is the one of attn and the one of mlp.
    """

    kind: str = "lora"
    rank: int = 8
    """Rank r of the adapters: the number of rows of A and of columns of B."""
    alpha: float = 16.0
    """Scale of the adapters: B A x is multiplied by alpha / rank. Above 0 and below 1e30."""
    dropout: float = 0.0
    """Dropout probability on the input of A, at least 0 and below 1."""
    targets: list[str] = field(default_factory=lambda: ["attn.c_attn", "attn.c_proj"])  # W_q, W_k, W_v and W_o
    """Linear layers that get adapters, by their names within a block or the ends of these names."""

    def __post_init__(self) -> None:
        require_at_least(1, "finetune", self, "rank")
        require(0 < self.alpha < 1e30, "finetune.alpha", self.alpha, "must be above 0 and below 1e+30")
        require_fraction("finetune", self, "dropout")
        require(
            bool(self.targets) and len(set(self.targets)) == len(self.targets) and all(self.targets),
            "finetune.targets",
            _list_text(self.targets),
            "must name at least one layer, and each layer once, for example [attn.c_attn,mlp.c_fc]",
        )

    def matches(self, layer: str) -> bool:
        """Return whether a target is this layer's dotted name or the end of it."""
        return any(_matches(layer, target) for target in self.targets)

    def require_layers(self, layers: Iterable[str]) -> None:
        """Refuse a target that matches none of the layers.

        Raises:
            ValueError: with the layers that exist.
        """
        known = list(layers)
        remedy = f"choose from {', '.join(known)}" if known else "it has no linear layers, so use finetune=full"
        for target in self.targets:
            require(
                any(_matches(layer, target) for layer in known),
                "finetune.targets",
                _list_text(self.targets),
                f"the model has no separate linear layer {target}; {remedy}",
            )


def _matches(layer: str, target: str) -> bool:
    return layer == target or layer.endswith(f".{target}")


def _list_text(targets: Iterable[str]) -> str:
    """Return a list in the form that the command line accepts."""
    return f"[{','.join(targets)}]"
