"""MLP: the neural n-gram model of Bengio et al. 2003, "A Neural Probabilistic Language Model" (JMLR 3, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gptexp.config.model import MLPConfig
from gptexp.models.init import STD
from gptexp.models.layers import require_length


class MLP(nn.Module):
    """Concatenated embeddings of the last N = n_context tokens, one tanh layer, logits.

    Without the paper's optional direct connections from embeddings to logits. Positions before the first token count
    as zero vectors.
    """

    def __init__(self, config: MLPConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        self.c_fc = nn.Linear(config.n_context * config.n_embd, config.n_hidden)
        self.lm_head = nn.Linear(config.n_hidden, vocab_size, bias=False)
        # torch's default for c_fc keeps tanh in its linear range. With small logits the first loss is near ln V.
        nn.init.normal_(self.lm_head.weight, std=STD)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits of the token after each of the tokens. Raises ValueError if T exceeds block_size."""
        require_length(tokens.shape[1], self.config.block_size)
        embedded = self.wte(tokens)  # (B, T, E), E = n_embd
        padded = F.pad(embedded, (0, 0, self.config.n_context - 1, 0))  # (B, N - 1 + T, E)
        windows = padded.unfold(1, self.config.n_context, 1)  # (B, T, E, N), the oldest token first
        context = windows.transpose(2, 3).flatten(2)  # (B, T, N, E) -> (B, T, N * E)
        logits: Tensor = self.lm_head(torch.tanh(self.c_fc(context)))  # (B, T, n_hidden) -> (B, T, V)
        return logits
