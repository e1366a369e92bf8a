"""The loss by place in the window: whether a model uses the whole of its context."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from gptexp.data.batches import ValBatches
from gptexp.data.shards import TokenStore
from gptexp.evaluation.scoring import nats_by_batch
from gptexp.inspection.view import PlacesView
from gptexp.models.flops import train_flops_per_token
from gptexp.models.losses import IGNORED
from gptexp.tokenizers import Tokenizer

MOST_WINDOWS, LEAST_WINDOWS = 64, 4
FLOPS = 5e11  # about 10 seconds on two cores


def loss_by_place(model: nn.Module, tokenizer: Tokenizer, store: TokenStore, block_size: int) -> PlacesView:
    """Score windows that are spread evenly over the validation tokens; fewer of them for a large model."""
    windows = ValBatches(store, block_size, eot=tokenizer.eot, batch=1)
    affordable = int(FLOPS / (1 + train_flops_per_token(model, block_size) / 3 * block_size))
    count = min(len(windows), max(LEAST_WINDOWS, min(MOST_WINDOWS, affordable)))
    chosen = [windows[int(i)] for i in np.linspace(0, len(windows) - 1, count)]
    scored = torch.cat([targets for _, targets in chosen]) != IGNORED  # (windows, T)
    bits = torch.stack([*nats_by_batch(model, chosen, "none")]).cpu().double() / math.log(2)  # 0 where not scored
    n = scored.sum(0)
    mean = bits.sum(0) / n
    error = ((bits - mean).square().where(scored, 0).sum(0) / (n - 1) / n).sqrt()
    return PlacesView(loss=mean.tolist(), error=error.tolist(), count=n.tolist())
