"""GPT: a decoder-only transformer in which every choice is a setting; the defaults are GPT-2's.

Parameters have the names of OpenAI's and Hugging Face's GPT-2 (transformer.h.0.attn.c_attn ...), so that published
weights need no rename table. The letters of the shapes are explained in attention.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gptexp.config.model import GPTConfig, Init, NormPosition, Position
from gptexp.models.attention import Angles, CausalSelfAttention, attention_mask, rope_angles, two_sided_mask
from gptexp.models.init import init_gpt2
from gptexp.models.kernels.attention import Mask
from gptexp.models.kernels.choice import ModuleWithKernels
from gptexp.models.kernels.chunked_loss import linear_cross_entropy
from gptexp.models.kv_cache import KVCache, Positions, shifted
from gptexp.models.layers import Dropout, FeedForward, NgramEmbeddings, make_norm, require_length, sinusoidal_table
from gptexp.models.losses import cross_entropy
from gptexp.models.recompute import Recomputable


class Block(Recomputable):
    """Attention, then feed-forward, each on a residual branch: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig, layer: int, causal: bool = True) -> None:
        super().__init__()
        self.residual = config.residual
        self.pre_norm = config.norm_position is NormPosition.pre
        self.dropout = Dropout(config.dropout)
        self.ln_1 = make_norm(config)
        self.attn = CausalSelfAttention(config, layer, causal)
        has_mlp = config.mlp_width > 0
        self.ln_2 = make_norm(config) if has_mlp else None
        self.mlp = FeedForward(config) if has_mlp else None

    def compute(
        self,
        x: Float[Tensor, "B T C"],
        rope: Angles | None = None,
        mask: Mask | None = None,
        cache: KVCache | None = None,
        positions: Positions | None = None,
    ) -> Float[Tensor, "B T C"]:
        normed = self.ln_1(x) if self.pre_norm else x
        branch = self.attn(normed, rope, mask, cache, positions)  # (B, T, C)
        x = self.join(x, branch, self.ln_1)
        if self.mlp is not None and self.ln_2 is not None:
            x = self.join(x, self.mlp(self.ln_2(x) if self.pre_norm else x), self.ln_2)
        return x

    def join(
        self, x: Float[Tensor, "B T C"], branch: Float[Tensor, "B T C"], norm: nn.Module
    ) -> Float[Tensor, "B T C"]:
        """x + branch, or the branch alone if `residual` is off; normalized afterwards with post-norm (GPT-1)."""
        branch = self.dropout(branch)
        x = x + branch if self.residual else branch
        if not self.pre_norm:
            x = norm(x)
        return x


class Transformer(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, C) after the last layer and its norm, divided by `width_ratio`.

    This division is muP's multiplier of the logits, which is the same for a tied head, an untied one and labels.

    Args:
        causal: each token attends only to itself and those before it.
    """

    def __init__(self, config: GPTConfig, vocab_size: int, causal: bool = True) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        learned = config.position is Position.learned
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if learned else None
        self.ngrams = NgramEmbeddings(config.ngram, config.ngram_rows, config.n_embd) if config.ngram > 1 else None
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer, causal) for layer in range(config.n_layer))
        # With post-norm the output of the last block is normalized already.
        self.ln_f = make_norm(config) if config.norm_position is NormPosition.pre else nn.Identity()

    def forward(
        self, tokens: Int[Tensor, "B T"], cache: KVCache | None = None, lengths: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """Hidden states of the tokens, after those in the cache if there is one.

        lengths: tokens of each text without its padding on the right; causal attention needs none, because padding
        comes after every token.
        """
        length = tokens.shape[1]  # T
        positions = torch.arange(length, device=tokens.device) if cache is None else cache.new_positions(length)
        x = self.drop(self.embed(tokens, positions, cache))  # (B, T, C)
        # Computed here once for all layers, and not stored: a buffer could keep an old device or dtype, or remain
        # without values in a model that is built on the meta device.
        is_rope = self.config.position is Position.rope
        theta = self.config.rope_theta
        rope = rope_angles(positions, self.config.head_dim, x.dtype, theta) if is_rope else None
        windows = [self.config.window_of(layer) for layer in range(self.config.n_layer)]
        if self.causal:
            held = max(cache.lengths) if cache else 0
            masks = {window: attention_mask(self.config, positions, held, x, window) for window in set(windows)}
        else:
            masks = {window: two_sided_mask(self.config, length, lengths, x, window) for window in set(windows)}
        for layer, block in enumerate(self.h):
            x = block(x, rope, masks[windows[layer]], cache, positions)  # (B, T, C)
        return self.finish(x)

    def finish(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """The hidden states, from the residual stream after the last layer."""
        out: Tensor = self.ln_f(x)
        ratio = self.config.width_ratio
        return out if ratio == 1 else out / ratio

    def embed(
        self, tokens: Int[Tensor, "B T"], positions: Positions, cache: KVCache | None = None
    ) -> Float[Tensor, "B T C"]:
        """Token vectors, plus those of n-grams and of learned or sinusoidal positions."""
        x: Tensor = self.wte(tokens)  # (B, T, C)
        if self.ngrams is not None:
            n = self.config.ngram
            history = shifted(tokens, n) if cache is None else cache.history(tokens, positions, n)
            x = x + self.ngrams(history)
        if self.wpe is not None:
            x = x + self.wpe(positions)  # (B, T, C) + (T, C) or (B, T, C)
        if self.config.position is Position.sinusoidal:
            # The sines have amplitude 1, wte's weights 0.02; section 3.4 of arXiv 1706.03762 scales tokens up.
            table = sinusoidal_table(positions, self.config.n_embd, x.dtype)  # (T, C) or (B, T, C)
            scale: float = (self.config.n_embd / self.config.width_ratio) ** 0.5  # with muP that of base_width
            x = x * scale + table.to(x.dtype)
        return x


class GPT(ModuleWithKernels):
    """Generative pre-trained transformer (Radford et al. 2019).

    takes_targets: given targets, `forward` returns the loss, which needs less memory than all logits.

    Args:
        config: the settings `model.*`.
        vocab_size: V, how many tokens the tokenizer has.
        causal: False: each token attends to both sides; such a model cannot generate.
    """

    takes_targets = True

    def __init__(self, config: GPTConfig, vocab_size: int, causal: bool = True) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config, vocab_size, causal)
        self.lm_head = nn.Linear(config.n_embd, vocab_size, bias=False)
        if config.tie_weights:
            self.lm_head.weight = self.transformer.wte.weight  # arXiv 1608.05859
        init_gpt2(self, config.n_layer, zero=config.init is Init.zero, width_ratio=config.width_ratio)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        cache: KVCache | None = None,
        at: Int[Tensor, " B"] | None = None,
        lengths: Int[Tensor, " B"] | None = None,
        targets: Int[Tensor, "B T"] | None = None,
        reduction: str = "mean",
    ) -> Float[Tensor, "B T V"] | Float[Tensor, "B 1 V"] | Float[Tensor, ""]:
        """Logits (B, T, V) of the token after each of the tokens; with targets, the loss.

        Args:
            cache: holds the tokens before `tokens`; it is extended by them.
            at: one position of each sequence; only its logits are returned, (B, 1, V).
            lengths: tokens of each text without its padding on the right, where attention is not causal.
            targets: the tokens to predict; see `cross_entropy` for them and `reduction`.

        Raises:
            ValueError: the tokens, with those in the cache, exceed block_size.
        """
        require_length(tokens.shape[1], self.config.block_size)
        hidden: Tensor = self.transformer(tokens, cache, lengths)  # (B, T, C)
        if cache is not None:
            cache.advance(tokens.shape[1])
        if at is not None:
            hidden = hidden[torch.arange(len(hidden), device=hidden.device), at][:, None]  # (B, 1, C)
        if targets is not None:
            return self.loss(hidden, targets, reduction)
        logits: Tensor = self.lm_head(hidden)
        return logits

    def loss(
        self, hidden: Float[Tensor, "B T C"], targets: Int[Tensor, "B T"], reduction: str = "mean"
    ) -> Float[Tensor, ""]:
        """Mean or sum of the nats of the targets, given the hidden states of the last layer."""
        head = self.lm_head
        plain = type(head) is nn.Linear and not head._forward_hooks  # neither adapted nor observed
        if plain and self.kernels.use_chunks(hidden, len(head.weight)):
            return linear_cross_entropy(hidden, head.weight, targets, reduction, self.kernels.chunk_bytes)
        return cross_entropy(head(hidden), targets, reduction)

    def new_cache(self, batch_size: int, size: int | None = None) -> KVCache:
        """An empty cache for `batch_size` sequences of up to `size` tokens (default and limit: block_size)."""
        assert self.transformer.causal, "a model without causality has no KV cache"
        block_size = self.config.block_size
        return KVCache(self.config, batch_size, min(size or block_size, block_size), self.transformer.wte.weight)
