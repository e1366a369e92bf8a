"""Scoring a token store with a model, outside of training (no Lightning)."""

from __future__ import annotations

import torch
from torch import nn

from gptexp.data.batches import ValBatches, scored
from gptexp.data.shards import TokenStore
from gptexp.objectives.lm import Score, cross_entropy
from gptexp.tokenizers import Tokenizer

LOGITS = 2**26  # logits of one forward pass, at most: 256 MiB in float32


@torch.inference_mode()
def score_tokens(
    model: nn.Module,
    tokenizer: Tokenizer,
    store: TokenStore,
    *,
    block_size: int,
    limit: int | None = None,
    batch: int | None = None,
) -> Score:
    """Score every token but the first, in windows that don't overlap: what validation does.

    limit: tokens to take from the start of the store. batch: windows a forward pass.
    """
    batch = batch or max(1, LOGITS // (tokenizer.vocab_size * block_size))
    part = store if limit is None or limit >= len(store) else TokenStore(store.folder, store.shards, store.dtype, limit)
    windows = ValBatches(part, block_size, eot=tokenizer.eot, batch=batch)
    nats = 0.0
    model.eval()
    for j in range(len(windows)):
        tokens, targets = windows[j]
        nats += float(cross_entropy(model(tokens), targets, reduction="sum"))
    tokens_scored, bytes_scored = scored(part, tokenizer.token_bytes, tokenizer.eot)
    return Score(nats, tokens_scored, bytes_scored)
