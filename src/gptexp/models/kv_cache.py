"""KV cache: keys and values of past tokens, so that a new token costs a forward pass over one token.

The letters of the shapes are explained in attention.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gptexp.config.model import GPTConfig
from gptexp.models.layers import require_length

Positions = Int[Tensor, " T"] | Int[Tensor, "B T"]  # one row for all sequences, or one for each


class KVCache:
    """Keys and values of the tokens seen so far.

    Allocates at once, for each layer, two tensors (B, K, size, D), for up to `size` tokens per sequence. Sequences
    may hold different numbers of tokens, `lengths`; entries after the end of a sequence are never read.
    """

    def __init__(self, config: GPTConfig, batch_size: int, size: int, like: Tensor) -> None:
        shape = (batch_size, config.kv_heads, size, config.head_dim)  # (B, K, size, D)
        self.keys, self.values = (
            [torch.zeros(shape, device=like.device, dtype=like.dtype) for _ in range(config.n_layer)] for _ in "kv"
        )
        # The tokens themselves (B, size), for embeddings of n-grams.
        self.tokens = torch.zeros((batch_size, size), device=like.device, dtype=torch.int64)
        self.size = size
        self.lengths = [0] * batch_size  # tokens held by each sequence

    def new_positions(self, n_tokens: int) -> Positions:
        """Positions of the next tokens: (T,), or (B, T) where the sequences differ in length.

        Raises:
            ValueError: the tokens exceed `size`.
        """
        require_length(max(self.lengths) + n_tokens, self.size)
        device = self.keys[0].device
        new = torch.arange(n_tokens, device=device)  # (T,)
        if len(set(self.lengths)) == 1:  # allows slices instead of indices, and usually needs no mask
            return self.lengths[0] + new
        return torch.tensor(self.lengths, device=device)[:, None] + new  # (B, 1) + (T,) -> (B, T)

    def extend(
        self, layer: int, k: Float[Tensor, "B K T D"], v: Float[Tensor, "B K T D"], positions: Positions
    ) -> tuple[Float[Tensor, "B K S D"], Float[Tensor, "B K S D"]]:
        """Write keys and values of the new tokens at their positions; return those of all tokens so far.

        `lengths` stay as they are until `advance`, which is called once every layer has written.
        """
        end = max(self.lengths) + k.shape[2]  # S
        for held, new in ((self.keys[layer], k), (self.values[layer], v)):
            if positions.ndim == 1:
                held[:, :, end - k.shape[2] : end] = new
            else:
                rows = torch.arange(len(k), device=k.device)[:, None]  # (B, 1), broadcast with positions (B, T)
                held[rows, :, positions] = new.transpose(1, 2).to(held.dtype)  # (B, T, K, D)
        return self.keys[layer][:, :, :end].to(k.dtype), self.values[layer][:, :, :end].to(v.dtype)

    def history(self, tokens: Int[Tensor, "B T"], positions: Positions, n: int) -> Int[Tensor, "B T n"]:
        """Hold the new tokens; return each of them and the n - 1 before it, -1 where there is none."""
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]  # (B, 1), broadcast with (T,) and (B, T)
        self.tokens[rows, positions] = tokens
        places = positions[..., None] - torch.arange(n, device=tokens.device)  # (..., T, n)
        return self.tokens[rows[..., None], places.clamp(min=0)].where(places >= 0, -1)

    def advance(self, n_tokens: int) -> None:
        """Count n_tokens more in every sequence."""
        self.lengths = [length + n_tokens for length in self.lengths]

    def keep(self, rows: list[int]) -> None:
        """Keep only these sequences, in this order."""
        self.keys, self.values = ([held[rows] for held in layers] for layers in (self.keys, self.values))
        self.tokens = self.tokens[rows]
        self.lengths = [self.lengths[row] for row in rows]

    def replace(self, rows: list[int], other: KVCache) -> None:
        """Overwrite these sequences with the sequences of another cache, which has len(rows) of them."""
        end = max(other.lengths)
        for mine, theirs in zip(self.keys + self.values, other.keys + other.values, strict=True):
            mine[rows, :, :end] = theirs[:, :, :end]
        self.tokens[rows, :end] = other.tokens[:, :end]
        for row, length in zip(rows, other.lengths, strict=True):
            self.lengths[row] = length


def shifted(tokens: Int[Tensor, "B T"], n: int) -> Int[Tensor, "B T n"]:
    """Each token and the n - 1 before it, -1 where there is none: `history` without a cache."""
    padded = F.pad(tokens, (n - 1, 0), value=-1)  # (B, n - 1 + T)
    return padded.unfold(1, n, 1).flip(-1)
