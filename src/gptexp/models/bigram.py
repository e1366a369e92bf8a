"""Bigram: the next token from this one, by a table."""

from __future__ import annotations

from torch import Tensor, nn

from gptexp.config.model import BigramConfig
from gptexp.models.init import init_gpt2
from gptexp.models.layers import require_length


class Bigram(nn.Module):
    """A row of next-token logits for each token: V x V numbers, trained to the log of counted frequencies."""

    def __init__(self, config: BigramConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(vocab_size, vocab_size)
        init_gpt2(self, n_layer=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) int64, at most block_size of them -> logits (B, T, V)."""
        require_length(tokens.shape[1], self.config.block_size)
        return self.wte(tokens)


Model = Bigram
