"""A transformer that classifies texts: the supervised head of GPT-1 (Radford et al. 2018, section 3.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gptexp.models.gpt import GPT
from gptexp.models.init import STD

HEAD = "score."  # parameters that no language model has; they start afresh with every fine-tuning


class Classifier(nn.Module):
    """A GPT's transformer and a linear head, `score`, on the hidden state of the last token of each text.

    Parameters keep the names that they have in the GPT, so its weights need no rename table; Hugging Face uses the
    name `score` too.

    Args:
        gpt: the model whose transformer is used, not copied.
        n_labels: M, how many labels there are.
        auxiliary: keep the language model's head for an auxiliary loss.
    """

    def __init__(self, gpt: GPT, n_labels: int, *, auxiliary: bool) -> None:
        super().__init__()
        self.config = gpt.config
        self.transformer = gpt.transformer
        self.lm_head = gpt.lm_head if auxiliary else None  # if tied, its weight is the matrix of wte
        self.score = nn.Linear(gpt.config.n_embd, n_labels, bias=False)
        nn.init.normal_(self.score.weight, std=STD)

    def forward(
        self, tokens: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B T V"] | None]:
        """Logits of the labels; in training with `auxiliary`, also the logits of the next tokens.

        Tokens are padded on the right; `lengths` are those of the texts without padding.
        """
        hidden = self.transformer(tokens, lengths=lengths)  # (B, T, C)
        rows = torch.arange(len(tokens), device=tokens.device)
        logits = self.score(hidden[rows, lengths - 1])  # (B, C) -> (B, M)
        if self.lm_head is None or not self.training:  # validation has no auxiliary loss, and V is large
            return logits, None
        return logits, self.lm_head(hidden)  # (B, T, V)
