"""Cross-entropy in nats, the loss of every model that predicts tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

IGNORED = -100  # target of a position that is not scored: padding, and <|endoftext|> in validation (torch's default)


def cross_entropy(
    logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"], reduction: str = "mean"
) -> Float[Tensor, ""] | Float[Tensor, " B*T"]:
    """Nats of the targets, in float32 at least; IGNORED targets do not count.

    reduction: "mean" over the targets that count, "sum", or "none" for the nats of each target, (B * T,).
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    scores = logits.flatten(0, 1).to(wide)  # (B * T, V)
    return F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORED, reduction=reduction)
