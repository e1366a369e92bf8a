"""The groups of parameters whose norms trainer.log_norms records, and the names of the columns (no torch).

    norm/gradient/GROUP         before clipping, of the whole step
    norm/weight/GROUP           after the step
    norm/update/GROUP           weights after the step minus weights before it
    norm/relative_update/GROUP  norm/update divided by norm/weight

A norm is the root of the sum of squares over all trained parameters of the group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

GRADIENT, WEIGHT, UPDATE, RELATIVE = QUANTITIES = ("gradient", "weight", "update", "relative_update")
EMBEDDING, NORMS, HEAD, OTHER = "embedding", "norms", "head", "other"  # groups besides h.0.attn, h.0.mlp, h.1.attn …

_IN_BLOCK = re.compile(r"(?:^|\.)(h\.[0-9]+\.(?:attn|mlp))\.")
_BLOCK = re.compile(r"h\.([0-9]{1,9})\.(?:attn|mlp)")
_IN_NORM = re.compile(r"(?:^|\.)(?:ln_[12f]|[qk]_norm)\.")


def column(quantity: str, group: str) -> str:
    """Return the column of metrics.csv and the tag in TensorBoard, such as norm/gradient/h.0.attn."""
    return f"norm/{quantity}/{group}"


def group_of(name: str, *, embedding: bool) -> str:
    """Return the group of a parameter; embedding: whether it is the table of an embedding.

    Gains and biases of norms have a group of their own: they start at 1, so they would dominate the norm of a block's
    matrices. A tied output matrix is an embedding.
    """
    if embedding:
        return EMBEDDING
    if _IN_NORM.search(name):
        return NORMS
    if found := _IN_BLOCK.search(name):
        return found[1]
    return HEAD if name.startswith(("lm_head.", "score.")) else OTHER


def in_order(groups: Iterable[str]) -> list[str]:
    """Return groups from the input of the model to its output, without repetition; other names are last."""
    return sorted(dict.fromkeys(groups), key=_place)


def _place(group: str) -> tuple[int, int, str]:
    if found := _BLOCK.fullmatch(group):
        return 1, int(found[1]), group  # attn before mlp
    places = {EMBEDDING: 0, NORMS: 2, HEAD: 3, OTHER: 4}
    return places.get(group, 5), 0, ""
