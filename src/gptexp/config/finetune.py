"""Settings of fine-tuning: which parameters train."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gptexp.config.rules import require, require_at_least, require_fraction


@dataclass(kw_only=True, slots=True)
class FinetuneConfig:
    """All parameters train: from scratch, or on from the weights of `init_from`."""

    kind: str = "full"


@dataclass(kw_only=True, slots=True)
class LoRAConfig(FinetuneConfig):
    """Low-rank adapters (arXiv 2106.09685): the source's weights are frozen, and W x becomes W x + alpha/rank B A x.

    A target is the name of a linear layer within a block, as its weights bear it: `attn.c_attn` stands for
    transformer.h.<every layer>.attn.c_attn. The end of a name does, too: `c_proj` is that of attn and that of mlp.
    """

    kind: str = "lora"
    rank: int = 8  # r: rows of A, columns of B
    alpha: float = 16.0  # B A x is multiplied by alpha / rank
    dropout: float = 0.0  # on what goes into A
    targets: list[str] = field(default_factory=lambda: ["attn.c_attn", "attn.c_proj"])  # W_q W_k W_v and W_o

    def __post_init__(self) -> None:
        require_at_least(1, "finetune", self, "rank")
        require(0 < self.alpha < 1e30, "finetune.alpha", self.alpha, "must be above 0 and below 1e+30")
        require_fraction("finetune", self, "dropout")
        require(
            bool(self.targets) and len(set(self.targets)) == len(self.targets) and all(self.targets),
            "finetune.targets",
            shown(self.targets),
            "must name layers, each once, for example [attn.c_attn,mlp.c_fc]",
        )

    def aims_at(self, layer: str) -> bool:
        """Whether a target names this layer, or the end of its dotted name."""
        return any(layer == target or layer.endswith(f".{target}") for target in self.targets)

    def require_layers(self, layers: Iterable[str]) -> None:
        """Refuse, by name, a target that is none of the layers.

        Raises:
            ValueError: with what there is.
        """
        known = list(layers)
        for target in self.targets:
            require(
                any(layer == target or layer.endswith(f".{target}") for layer in known),
                "finetune.targets",
                shown(self.targets),
                f"the model has no linear layer {target} of its own; "
                + (f"choose among {', '.join(known)}" if known else "nor any other: it can't have adapters"),
            )


def shown(targets: Iterable[str]) -> str:
    """A list as the command line takes it."""
    return f"[{','.join(targets)}]"
