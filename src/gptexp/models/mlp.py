"""MLP: the neural n-gram of Bengio et al. 2003, "A Neural Probabilistic Language Model" (JMLR 3, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptexp.config.model import MLPConfig
from gptexp.models.init import STD
from gptexp.models.layers import require_length


class MLP(nn.Module):
    """Embeddings of the last N = n_context tokens, concatenated; one tanh layer; logits.

    Without the paper's optional direct connections from embeddings to logits. What lies before the
    first token given counts as zero vectors.
    """

    def __init__(self, config: MLPConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        self.c_fc = nn.Linear(config.n_context * config.n_embd, config.n_hidden)
        self.lm_head = nn.Linear(config.n_hidden, vocab_size, bias=False)
        # torch's own start keeps tanh in its range; small logits make the first loss that of a uniform guess.
        nn.init.normal_(self.lm_head.weight, std=STD)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) int64, at most block_size of them -> logits (B, T, V)."""
        require_length(tokens.shape[1], self.config.block_size)
        embedded = self.wte(tokens)  # (B, T, E), E = n_embd
        padded = F.pad(embedded, (0, 0, self.config.n_context - 1, 0))  # (B, N - 1 + T, E)
        windows = padded.unfold(1, self.config.n_context, 1)  # (B, T, E, N), the oldest token first
        context = windows.transpose(2, 3).flatten(2)  # (B, T, N * E)
        return self.lm_head(torch.tanh(self.c_fc(context)))


Model = MLP
