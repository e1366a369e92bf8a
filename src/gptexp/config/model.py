"""Settings of the models."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gptexp.config.rules import nearest_multiples, require, require_at_least, require_fraction

Norm = Enum("Norm", ["layernorm", "rmsnorm", "none"])
NormPosition = Enum("NormPosition", ["pre", "post"])
Position = Enum("Position", ["learned", "sinusoidal", "rope", "alibi", "none"])
Init = Enum("Init", ["gpt2", "zero"])
Activation = Enum("Activation", ["gelu", "gelu_tanh", "relu", "relu2", "swiglu"])


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """What every model has. `kind` names the file under gptexp/models/ and is set by the preset."""

    kind: str = ""
    block_size: int = 128  # context length T, in tokens

    def __post_init__(self) -> None:
        require_at_least(1, "model", self, "block_size")

    @property
    def natural_lr(self) -> float:
        """Learning rate used while `optimizer.lr` is null."""
        return 1e-3

    @property
    def adaptable(self) -> tuple[str, ...] | None:
        """Linear layers that `finetune=lora` can target, by their names within a block; None: known once it is made."""
        return None


@dataclass(kw_only=True, slots=True)
class BigramConfig(ModelConfig):
    """A table of next-token logits: vocab_size x vocab_size."""

    kind: str = "bigram"
    block_size: int = 64

    @property
    def natural_lr(self) -> float:
        return 3e-2

    @property
    def adaptable(self) -> tuple[str, ...]:
        return ()  # a table


@dataclass(kw_only=True, slots=True)
class MLPConfig(ModelConfig):
    """Bengio et al. 2003: the embeddings of the last n_context tokens, one tanh layer."""

    kind: str = "mlp"
    block_size: int = 64
    n_context: int = 8  # tokens the network sees
    n_embd: int = 64
    n_hidden: int = 256

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        require_at_least(1, "model", self, "n_context", "n_embd", "n_hidden")

    @property
    def adaptable(self) -> tuple[str, ...]:
        return ("c_fc", "lm_head")


@dataclass(kw_only=True, slots=True)
class GPTConfig(ModelConfig):
    """A decoder-only transformer; the defaults of this class are GPT-2's own choices."""

    kind: str = "gpt"
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_kv_head: int | None = None  # key/value heads (grouped-query attention); null: n_head
    n_embd: int = 768
    dropout: float = 0.0  # on embeddings and on each residual branch
    attn_dropout: float = 0.0  # on attention weights
    bias: bool = True  # in linear layers and LayerNorms
    norm: Norm = Norm.layernorm
    norm_position: NormPosition = NormPosition.pre
    residual: bool = True
    position: Position = Position.learned
    activation: Activation = Activation.gelu_tanh
    mlp_ratio: float = 4.0  # hidden width of the feed-forward / n_embd; 0: no feed-forward
    qk_norm: bool = False  # RMS-normalise queries and keys
    tie_weights: bool = True  # lm_head shares wte's matrix
    init: Init = Init.gpt2  # zero: blocks begin as the identity, and an untied lm_head at 0

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        require(self.n_layer <= 10_000, "model.n_layer", self.n_layer, "must be at most 10,000")
        require_at_least(1, "model", self, "n_layer", "n_head", "n_kv_head", "n_embd")
        require_at_least(0, "model", self, "mlp_ratio")
        require(
            self.mlp_ratio == 0 or self.mlp_width >= 1,
            "model.mlp_ratio",
            self.mlp_ratio,
            "gives the feed-forward no width; take 0 for none, 4 for GPT-2's",
        )
        require_fraction("model", self, "dropout", "attn_dropout")
        require(
            self.n_embd % self.n_head == 0,
            "model.n_embd",
            self.n_embd,
            f"must be a multiple of model.n_head={self.n_head}; nearest: {nearest_multiples(self.n_embd, self.n_head)}",
        )
        require(
            self.n_head % self.kv_heads == 0,
            "model.n_kv_head",
            self.n_kv_head,
            f"must divide model.n_head={self.n_head}",
        )
        if self.position is Position.rope:
            require(
                self.head_dim % 2 == 0,
                "model.position",
                "rope",
                f"needs an even head_dim = n_embd/n_head, which is {self.head_dim}; choose another model.n_head",
            )

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def mlp_width(self) -> int:
        """Hidden units of the feed-forward; 0 means that a block has none."""
        return int(self.mlp_ratio * self.n_embd)

    @property
    def kv_heads(self) -> int:
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def adaptable(self) -> tuple[str, ...]:
        gate = ("mlp.c_gate",) if self.activation is Activation.swiglu else ()
        mlp = ("mlp.c_fc", *gate, "mlp.c_proj") if self.mlp_width else ()
        head = () if self.tie_weights else ("lm_head",)  # a tied one is wte's, which no merged matrix could stay
        return ("attn.c_attn", "attn.c_proj", *mlp, *head)

    @property
    def natural_lr(self) -> float:
        """2 / n_embd^1.2, at most 6e-3; 4e-2 without norms and residuals.

        A power law near what is published, 1e-3 at a width of 384 (nanoGPT), 6e-4 at 768 and 2e-4 at
        2048 (GPT-3, arXiv 2005.14165, table 2.1), and near 6e-3 at 128, which the default experiment
        learned faster with than with 3e-3. It is within a factor 1.6 of each. Where neither norms nor
        residuals keep the size of what flows through it, GPT-2's small first weights make it tiny, and
        so the gradients: at 6e-3 a single head is behind the bigram after 600 steps, at 4e-2 ahead.
        """
        if self.norm is Norm.none and not self.residual:
            return 4e-2
        return min(6e-3, 2 / self.n_embd**1.2)
