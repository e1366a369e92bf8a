"""Bigram: logits of the next token from the current token alone, by a table."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from gptexp.config.model import BigramConfig
from gptexp.models.init import init_gpt2
from gptexp.models.layers import require_length


class Bigram(nn.Module):
    """A table (V, V) with a row of next-token logits for each token; it learns the log of the counted frequencies."""

    def __init__(self, config: BigramConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(vocab_size, vocab_size)
        init_gpt2(self, n_layer=1)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits of the token after each of the tokens. Raises ValueError if T exceeds block_size."""
        require_length(tokens.shape[1], self.config.block_size)
        logits: Tensor = self.wte(tokens)  # (B, T, V)
        return logits
