"""Sampling of a token from logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sample_token(
    logits: Tensor,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Draw one token from logits (V,), on the CPU and in float64, so that a seed gives the same token everywhere.

    Args:
        logits: finite or -inf, on any device.
        temperature: divides the logits; 0 takes the likeliest token without drawing.
        top_k: only the k likeliest tokens (arXiv 1805.04833); None: all.
        top_p: of these, only the likeliest tokens whose probabilities together first reach p (nucleus sampling,
            arXiv 1904.09751); None: all.
        generator: a CPU generator; None: torch's global one.

    Raises:
        ValueError: an argument out of range, or logits that are not finite.
    """
    require_valid(temperature, top_k, top_p)
    scores = logits.detach().to("cpu", torch.float64)  # (V,)
    if not math.isfinite(scores.max().item()):
        raise ValueError("the model's logits are not finite; was it trained to the end without a NaN?")
    if temperature == 0:
        return int(scores.argmax())
    tokens = torch.arange(len(scores))
    if top_k is not None and top_k < len(scores):  # sorting the vocabulary takes longer than a small model
        tokens = (scores >= scores.topk(top_k).values[-1]).nonzero()[:, 0]  # more than k if some are equal
    scores, order = scores[tokens].sort(descending=True, stable=True)
    scores = scores[:top_k]
    probabilities = torch.softmax((scores - scores[0]) / temperature, dim=0)
    if top_p is not None:
        before = probabilities.cumsum(0) - probabilities  # of all likelier tokens; 0 for the first
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    return int(tokens[order[torch.multinomial(probabilities, 1, generator=generator)]])


def require_valid(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ValueError for arguments that `sample_token` does not accept."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature}: must be at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: must be above 0, at most 1")
