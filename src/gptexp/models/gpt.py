"""GPT: a decoder-only transformer whose every choice is a setting; by default GPT-2's.

Parameters bear the names of OpenAI's and Hugging Face's GPT-2 (transformer.h.0.attn.c_attn …), so
that published weights need no rename table. The letters of the shapes are explained in attention.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptexp.config.model import GPTConfig, Init, NormPosition, Position
from gptexp.models.attention import CausalSelfAttention, KVCache, attention_mask, rope_angles, two_sided_mask
from gptexp.models.dropout import Dropout
from gptexp.models.init import init_gpt2
from gptexp.models.layers import FeedForward, make_norm, require_length, sinusoidal_table
from gptexp.models.losses import cross_entropy, linear_cross_entropy, worthwhile


class Block(nn.Module):
    """Attention, then feed-forward, each on a residual branch: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.residual = config.residual
        self.pre_norm = config.norm_position is NormPosition.pre
        self.dropout = Dropout(config.dropout)
        self.ln_1 = make_norm(config)
        self.attn = CausalSelfAttention(config, layer)
        has_mlp = config.mlp_width > 0
        self.ln_2 = make_norm(config) if has_mlp else None
        self.mlp = FeedForward(config) if has_mlp else None

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        branch = self.attn(self.ln_1(x) if self.pre_norm else x, rope, mask, cache, positions)
        x = self.join(x, branch, self.ln_1)
        if self.mlp is not None and self.ln_2 is not None:
            x = self.join(x, self.mlp(self.ln_2(x) if self.pre_norm else x), self.ln_2)
        return x

    def join(self, x: Tensor, branch: Tensor, norm: nn.Module) -> Tensor:
        """x + branch; normed afterwards where norms come last (GPT-1), without x where there is no residual."""
        branch = self.dropout(branch)
        x = x + branch if self.residual else branch
        return x if self.pre_norm else norm(x)


class Transformer(nn.Module):
    """Tokens (B, T) -> the last hidden states (B, T, C). causal: a token sees only those before it."""

    def __init__(self, config: GPTConfig, vocab_size: int, causal: bool = True) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        learned = config.position is Position.learned
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if learned else None
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        # Where norms follow each addition, the last block's output is normed already.
        self.ln_f = make_norm(config) if config.norm_position is NormPosition.pre else nn.Identity()

    def forward(self, tokens: Tensor, cache: KVCache | None = None, lengths: Tensor | None = None) -> Tensor:
        """lengths (B,): of texts that are padded on the right; what is causal doesn't see padding anyway."""
        length = tokens.shape[1]  # T
        positions = torch.arange(length, device=tokens.device) if cache is None else cache.new_positions(length)
        x = self.drop(self.embed(tokens, positions))  # (B, T, C)
        # Made here once for all layers, and not kept: there is no buffer that a change of device or
        # dtype, or a model built on the meta device, could leave behind.
        by_angle = self.config.position is Position.rope
        rope = rope_angles(positions, self.config.head_dim, x.dtype) if by_angle else None
        if self.causal:
            mask = attention_mask(self.config, positions, max(cache.lengths) if cache else 0, like=x)
        else:
            mask = two_sided_mask(self.config, length, lengths, like=x)
        for block in self.h:
            x = block(x, rope, mask, cache, positions)
        return self.ln_f(x)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token vectors, with position vectors where the position kind has any: (B, T, C)."""
        x = self.wte(tokens)
        if self.wpe is not None:
            return x + self.wpe(positions)  # (B, T, C) + (T, C) or (B, T, C)
        if self.config.position is Position.sinusoidal:
            # Sines have the size 1 and would drown wte's 0.02; section 3.4 of arXiv 1706.03762 scales tokens up.
            table = sinusoidal_table(positions, self.config.n_embd, x.dtype)
            return x * self.config.n_embd**0.5 + table.to(x.dtype)
        return x


class GPT(nn.Module):
    """Generative pre-trained transformer.

    takes_targets: `forward` gives the loss itself where it gets targets, since it knows ways around the logits.

    Args:
        config: the settings `model.*`.
        vocab_size: V, how many tokens the tokenizer has.
        causal: False lets every token see those on both sides; such a model can't generate.
    """

    takes_targets = True

    def __init__(self, config: GPTConfig, vocab_size: int, causal: bool = True) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config, vocab_size, causal)
        self.lm_head = nn.Linear(config.n_embd, vocab_size, bias=False)
        if config.tie_weights:
            self.lm_head.weight = self.transformer.wte.weight  # arXiv 1608.05859
        init_gpt2(self, config.n_layer, zero=config.init is Init.zero)

    def forward(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        at: Tensor | None = None,
        lengths: Tensor | None = None,
        targets: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """Logits (B, T, V) of the token after each of `tokens` (B, T), int64; with `targets` (B, T) the loss on them.

        With a cache, `tokens` are only those that follow the cache's, and the cache is extended.
        `at` (B,) asks for one place of each sequence only: (B, 1, V).
        lengths (B,): of texts that are padded on the right, where attention isn't causal.
        Raises ValueError where more than block_size tokens come together.
        """
        require_length(tokens.shape[1], self.config.block_size)
        hidden = self.transformer(tokens, cache, lengths)
        if cache is not None:
            cache.advance(tokens.shape[1])
        if at is not None:
            hidden = hidden[torch.arange(len(hidden), device=hidden.device), at][:, None]  # (B, 1, C)
        return self.lm_head(hidden) if targets is None else self.loss(hidden, targets, reduction)

    def loss(self, hidden: Tensor, targets: Tensor, reduction: str) -> Tensor:
        """Nats of the targets (B, T) after the last hidden states (B, T, C): their mean, or their sum."""
        head = self.lm_head
        bare = type(head) is nn.Linear and not head._forward_hooks  # no adapter, and nobody who wants to see logits
        if bare and worthwhile(hidden, len(head.weight)):
            return linear_cross_entropy(hidden, head.weight, targets, reduction)
        return cross_entropy(head(hidden), targets, reduction)

    def new_cache(self, batch_size: int, size: int | None = None) -> KVCache:
        """An empty cache for `batch_size` sequences of up to `size` tokens (default: block_size)."""
        assert self.transformer.causal, "what a token sees to its right can't be cached"
        block_size = self.config.block_size
        return KVCache(self.config, batch_size, min(size or block_size, block_size), self.transformer.wte.weight)


Model = GPT
