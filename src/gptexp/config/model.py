"""Settings of the models."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from gptexp.config.rules import nearest_multiples, require, require_at_least, require_fraction

Norm = Enum("Norm", ["layernorm", "rmsnorm", "none"])
NormPosition = Enum("NormPosition", ["pre", "post"])
Position = Enum("Position", ["learned", "sinusoidal", "rope", "alibi", "none"])
Init = Enum("Init", ["gpt2", "zero"])
Activation = Enum("Activation", ["gelu", "gelu_tanh", "relu", "relu2", "swiglu"])
Parametrization = Enum("Parametrization", ["standard", "mup"])

QK_EPS = 1e-6  # of QK-norm, whatever model.norm_eps is


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """Settings that every model has.

    implementation: the class, as module:name, which is created with (config, vocab_size).
    has_blocks: False if the model has no blocks that trainer.recompute=blocks can recompute.
    """

    implementation: ClassVar[str] = ""
    has_blocks: ClassVar[bool] = True
    kind: str = ""
    """Name of the model's kind. The preset sets it."""
    block_size: int = 128
    """Context length in tokens: the most tokens that the model reads at once."""

    def __post_init__(self) -> None:
        require_at_least(1, "model", self, "block_size")

    @property
    def default_lr(self) -> float:
        """Learning rate used while `optimizer.lr` is null."""
        return 1e-3

    @property
    def adaptable(self) -> tuple[str, ...] | None:
        """Names of the linear layers that `finetune=lora` can target; None if only the built model knows them."""
        return None


@dataclass(kw_only=True, slots=True)
class BigramConfig(ModelConfig):
    """A lookup table of next-token logits with shape (vocab_size, vocab_size)."""

    implementation: ClassVar[str] = "gptexp.models.bigram:Bigram"
    has_blocks: ClassVar[bool] = False
    kind: str = "bigram"
    block_size: int = 64

    @property
    def default_lr(self) -> float:
        return 3e-2

    @property
    def adaptable(self) -> tuple[str, ...]:
        return ()  # the table is an embedding, not a linear layer


@dataclass(kw_only=True, slots=True)
class MLPConfig(ModelConfig):
    """The model of Bengio et al. (2003): the embeddings of the last n_context tokens and one tanh layer."""

    implementation: ClassVar[str] = "gptexp.models.mlp:MLP"
    has_blocks: ClassVar[bool] = False
    kind: str = "mlp"
    block_size: int = 64
    n_context: int = 8
    """Number of preceding tokens that a prediction depends on."""
    n_embd: int = 64
    """Width of the token embeddings."""
    n_hidden: int = 256
    """Width of the hidden layer."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        require_at_least(1, "model", self, "n_context", "n_embd", "n_hidden")

    @property
    def adaptable(self) -> tuple[str, ...]:
        return ("c_fc", "lm_head")


@dataclass(kw_only=True, slots=True)
class GPTConfig(ModelConfig):
    """A decoder-only transformer. The defaults of this class are those of GPT-2 (124M parameters)."""

    implementation: ClassVar[str] = "gptexp.models.gpt:GPT"
    kind: str = "gpt"
    block_size: int = 1024
    n_layer: int = 12
    """Number of transformer blocks, at most 10,000."""
    n_head: int = 12
    """Number of attention heads in each block; must divide n_embd."""
    n_kv_head: int | None = None
    """Number of key/value heads for grouped-query attention; must divide n_head. null: equal to n_head."""
    n_embd: int = 768
    """Width of the residual stream and of the embeddings."""
    dropout: float = 0.0
    """Dropout probability on the embeddings and on the output of each residual branch, at least 0 and below 1."""
    attn_dropout: float = 0.0
    """Dropout probability on the attention weights, at least 0 and below 1."""
    bias: bool = True
    """Whether linear layers and LayerNorms have a bias."""
    norm: Norm = Norm.layernorm
    """Normalization layer; none removes all of them."""
    norm_eps: float = 1e-5
    """What LayerNorm and RMSNorm add to the variance or mean square before they take its root."""
    norm_position: NormPosition = NormPosition.pre
    """Whether normalization comes before each branch (pre, GPT-2) or after each residual sum (post, GPT)."""
    residual: bool = True
    """Whether each branch is added to its input."""
    position: Position = Position.learned
    """How the model encodes token positions."""
    rope_theta: float = 10_000.0
    """Base of the angles of RoPE; models with long contexts have a larger one."""
    activation: Activation = Activation.gelu_tanh
    """Activation function of the feed-forward layers. relu2 is squared ReLU; swiglu adds a gate matrix."""
    mlp_ratio: float = 4.0
    """Hidden width of the feed-forward layers divided by n_embd. 0: no feed-forward layers."""
    qk_norm: bool = False
    """Whether queries and keys are RMS-normalized before attention."""
    qk_norm_gain: bool = False
    """Whether qk_norm multiplies each column of a head by a gain, one for queries and one for keys, as in Qwen3."""
    tie_weights: bool = True
    """Whether the output layer (lm_head) shares the matrix of the token embedding (wte)."""
    init: Init = Init.gpt2
    """Initialization. gpt2: as in GPT-2; zero: each block starts as the identity and an untied lm_head at 0."""
    ngram: int = 1
    """Embeddings of the last 2, 3 … ngram tokens are added to each token's embedding, at most 8. 1: none."""
    ngram_rows: int = 4096
    """Rows of the table for each length of n-grams, which share rows by a hash."""
    window: str | None = None
    """Layers that see only the last tokens, as a pattern that is repeated from the first layer: S sees window_size
    tokens, L all of them. SSSL: three of four layers. The last layer is always L. null: every layer is L."""
    window_size: int | None = None
    """Tokens that an S layer of model.window sees, the token itself included; if attention is not causal, on each
    side. null: a quarter of block_size, rounded up."""
    parametrization: Parametrization = Parametrization.standard
    """How initial weights, learning rates and multipliers depend on n_embd. mup: so that the best learning rate does
    not (maximal update parametrization, arXiv 2203.03466)."""
    base_width: int = 64
    """The n_embd at which mup equals standard, and for which optimizer.lr is given with mup."""
    base_head_dim: int | None = None
    """Width of an attention head at base_width, for mup. null: n_head is the same, so that head_dim grows with n_embd;
    where n_head grows instead, give head_dim."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        require(self.n_layer <= 10_000, "model.n_layer", self.n_layer, "must be at most 10,000")
        require(1 <= self.ngram <= 8, "model.ngram", self.ngram, "must be from 1 to 8")
        require_at_least(1, "model", self, "n_layer", "n_head", "n_kv_head", "n_embd", "ngram_rows")
        require_at_least(1, "model", self, "base_width", "base_head_dim")
        require_at_least(0, "model", self, "mlp_ratio")
        require(
            self.mlp_ratio == 0 or self.mlp_width >= 1,
            "model.mlp_ratio",
            self.mlp_ratio,
            "results in a feed-forward layer of width 0; use 0 for no feed-forward layers, or 4 as in GPT-2",
        )
        require_fraction("model", self, "dropout", "attn_dropout")
        require(0 < self.norm_eps < 1, "model.norm_eps", self.norm_eps, "must be above 0 and below 1")
        require(1 < self.rope_theta < 1e15, "model.rope_theta", self.rope_theta, "must be above 1 and below 1e+15")
        require(
            self.qk_norm or not self.qk_norm_gain,
            "model.qk_norm_gain",
            "true",
            "has no effect while model.qk_norm is false",
        )
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
        self._require_window()
        if self.position is Position.rope:
            require(
                self.head_dim % 2 == 0,
                "model.position",
                "rope",
                f"needs an even head_dim = n_embd/n_head, but it is {self.head_dim}; choose another model.n_head",
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def width_ratio(self) -> float:
        """n_embd divided by base_width with mup, 1 with standard."""
        return self.n_embd / self.base_width if self.parametrization is Parametrization.mup else 1.0

    @property
    def query_scale(self) -> float:
        """Factor of the queries with mup, so that scores decrease as 1 / D and are q k / sqrt(D) at base_width.

        Queries and keys become correlated during training, and q k then grows as D (arXiv 2203.03466, definition 4.1).
        That holds for normalized ones too: with qk_norm the largest score is that of base_width at every width.
        """
        if self.parametrization is Parametrization.standard:
            return 1.0
        grown = self.width_ratio if self.base_head_dim is None else self.head_dim / self.base_head_dim
        return float(grown**-0.5)

    @property
    def mlp_width(self) -> int:
        """Hidden width of the feed-forward layers; 0 if blocks have none."""
        return int(self.mlp_ratio * self.n_embd)

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads after null is resolved."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    def _require_window(self) -> None:
        require_at_least(1, "model", self, "window_size")
        require(
            self.window is None or (self.window != "" and set(self.window) <= {"S", "L"}),
            "model.window",
            self.window,
            "must be a pattern of S and L such as SSSL, or null",
        )
        require(
            self.window is not None or self.window_size is None,
            "model.window_size",
            self.window_size,
            "has no effect while model.window is null; give a pattern such as model.window=SSSL",
        )

    def window_of(self, layer: int) -> int | None:
        """Return how many tokens this layer, counted from 0, sees, the token itself included. None: all."""
        if self.window is None or layer == self.n_layer - 1 or self.window[layer % len(self.window)] == "L":
            return None
        return self.window_size or -(-self.block_size // 4)

    @property
    def adaptable(self) -> tuple[str, ...]:
        gate = ("mlp.c_gate",) if self.activation is Activation.swiglu else ()
        mlp = ("mlp.c_fc", *gate, "mlp.c_proj") if self.mlp_width else ()
        # A tied lm_head shares its matrix with wte, which merging an adapter would change too.
        head = () if self.tie_weights else ("lm_head",)
        return ("attn.c_attn", "attn.c_proj", *mlp, *head)

    @property
    def default_lr(self) -> float:
        """2 / n_embd^1.2, at most 6e-3; 4e-2 without norms and residual connections; with mup that of base_width.

        The power law is within a factor of 1.6 of published rates: 1e-3 at width 384 (nanoGPT), 6e-4 at 768
        and 2e-4 at 2048 (GPT-3, arXiv 2005.14165, table 2.1). At width 128 the default experiment learned
        faster with 6e-3 than with 3e-3. Without norms and residual connections, GPT-2's small initial weights
        make activations and gradients tiny: a single head trained at 6e-3 was worse than the bigram after
        600 steps, and better than it at 4e-2.
        """
        if self.norm is Norm.none and not self.residual:
            return 4e-2
        width = self.base_width if self.parametrization is Parametrization.mup else self.n_embd
        rate: float = 2 / width**1.2
        return min(6e-3, rate)
