"""What the heads of a layer attend to, as a few numbers for each head.

With attention weights w[t, s] of token t on token s <= t:
    entropy    - sum over s of w log2 w, in bits: 0 on one token, log2 n on n tokens equally
    distance   sum over s of w (t - s): the mean number of tokens that the head looks back
    previous   w[t, t-1]
    induction  sum of w[t, s+1] over all s with the same token as t and s+1 < t: attention to the tokens that followed
               this token before. Olsson et al. 2022 (arXiv 2209.11895) call it prefix matching, and measure it on
               random tokens that are repeated.
    first      w[t, 0]. Heads often attend there if they find nothing else (arXiv 2309.17453, section 3.1)
Each is the mean over the tokens t for which there is such a token. Uniform attention has scores above 0 too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def scores(weights: Tensor, tokens: Tensor) -> dict[str, Tensor | None]:
    """Return the scores of the heads, (H,), by name; None if no token has such a token before it.

    weights: (H, T, T). tokens: (T,).
    """
    places = torch.arange(len(tokens), device=tokens.device)
    back = places[:, None] - places  # (T, T): how many tokens before t the token s is
    same = tokens[:, None] == tokens.roll(1)  # (T, T): whether s - 1 is the same token as t; not for s = 0
    return {
        "entropy": torch.special.entr(weights).sum(-1).mean(-1) / math.log(2),
        "distance": (weights * back).sum(-1).mean(-1),
        "previous": _attention_to(weights, back == 1),
        "induction": _attention_to(weights, same & (places > 0) & (back > 0)),
        "first": _attention_to(weights, (places == 0) & (back > 0)),
    }


def _attention_to(weights: Tensor, wanted: Tensor) -> Tensor | None:
    """Mean attention to the wanted tokens, bool (T, T), over the tokens that have any; None if none has."""
    rows = wanted.any(-1)
    return (weights * wanted).sum(-1)[:, rows].mean(-1) if rows.any() else None
