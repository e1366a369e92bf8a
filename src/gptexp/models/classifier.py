"""A transformer that tells the label of a text: GPT-1's supervised head (Radford et al. 2018, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptexp.models.gpt import GPT
from gptexp.models.init import STD

HEAD = "score."  # parameters that no language model brings, so that they begin anew with every fine-tuning


class Classifier(nn.Module):
    """A GPT's transformer and a linear head, `score`, on the hidden state of each text's last token.

    Parameters bear the names that they have in the GPT, so its weights need no rename table; `score` is
    what Hugging Face calls it. auxiliary: keep the language model's head too, for its loss.
    """

    def __init__(self, gpt: GPT, n_labels: int, *, auxiliary: bool) -> None:
        super().__init__()
        self.config = gpt.config
        self.transformer = gpt.transformer
        self.lm_head = gpt.lm_head if auxiliary else None  # a tied one is the very matrix of wte
        self.score = nn.Linear(gpt.config.n_embd, n_labels, bias=False)
        nn.init.normal_(self.score.weight, std=STD)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T), padded to the right of lengths (B,) -> logits (B, n_labels); in training (B, T, V), too."""
        hidden = self.transformer(tokens, lengths=lengths)  # (B, T, C)
        rows = torch.arange(len(tokens), device=tokens.device)
        logits = self.score(hidden[rows, lengths - 1])  # (B, n_labels)
        if self.lm_head is None or not self.training:  # the auxiliary loss is one of training, and V is large
            return logits, None
        return logits, self.lm_head(hidden)
