"""Scoring tokens with a model, outside of training (no Lightning): a token store, or a text with a sliding window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import nn

from gptexp.data.batches import Batch, ValBatches, scored
from gptexp.data.shards import TokenStore
from gptexp.models.kernels.fastest import fastest_kernels
from gptexp.models.losses import IGNORED
from gptexp.objectives.lm import Score, nats_of
from gptexp.tokenizers import Tokenizer

LOGITS = 2**26  # logits of one forward pass, at most: 256 MiB in float32

Window = tuple[np.ndarray, int]  # tokens (at most block_size + 1), and how many at their end are scored


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
    part = store if limit is None or limit >= len(store) else TokenStore(store.folder, store.shards, store.dtype, limit)
    windows = ValBatches(part, block_size, eot=tokenizer.eot, batch=batch or windows_that_fit(tokenizer, block_size))
    nats = 0.0
    model.eval()
    with fastest_kernels(model):
        for j in range(len(windows)):
            nats += float(nats_of(model, windows[j], "sum"))
    tokens_scored, bytes_scored = scored(part, tokenizer.token_bytes, tokenizer.eot)
    return Score(nats, tokens_scored, bytes_scored)


@torch.inference_mode()
def score_stream(
    model: nn.Module,
    tokenizer: Tokenizer,
    pieces: Iterable[np.ndarray],
    *,
    block_size: int,
    stride: int,
    batch: int | None = None,
) -> Score:
    """Score every token of a text but the first and <|endoftext|>, once, in windows `stride` tokens apart.

    With stride = block_size these are validation's windows, and so is the result. What is held in memory is a
    piece and a batch.

    Args:
        pieces: tokens (n,) that, joined, are the text.
        stride: from 1 to block_size; a smaller one gives more context, and costs block_size / stride as much.
        batch: windows a forward pass.
    """
    windows = sliding_windows(pieces, block_size, stride)
    batch = batch or windows_that_fit(tokenizer, block_size)
    nats, n_tokens, n_bytes = 0.0, 0, 0
    model.eval()
    with fastest_kernels(model):
        while rows := list(islice(windows, batch)):
            nats += float(nats_of(model, _as_batch(rows, tokenizer.eot), "sum"))
            fresh = np.concatenate([tokens[-count:] for tokens, count in rows])
            silent = 0 if tokenizer.eot is None else int((fresh == tokenizer.eot).sum())
            n_tokens, n_bytes = n_tokens + len(fresh) - silent, n_bytes + int(tokenizer.token_bytes[fresh].sum())
    return Score(nats, n_tokens, n_bytes)


def sliding_windows(pieces: Iterable[np.ndarray], block_size: int, stride: int) -> Iterator[Window]:
    """Windows 0, stride, 2·stride … of a stream of tokens, each with the number of its last tokens that are new.

    The first window's tokens are all new but the first one, which has no context; later ones bring `stride` new
    tokens, each with at least block_size - stride tokens before it. The last window may be short.
    """
    assert 1 <= stride <= block_size
    held, fresh = np.empty(0, dtype=np.int64), block_size
    for piece in pieces:
        held, start = np.concatenate((held, piece)), 0
        while len(held) - start > block_size:
            yield held[start : start + block_size + 1], fresh
            start, fresh = start + stride, stride
        held = held[start:]
    if (rest := len(held) - 1 - (block_size - fresh)) > 0:
        yield held, rest


def windows_that_fit(tokenizer: Tokenizer, block_size: int) -> int:
    """Windows whose logits take LOGITS numbers; at least one."""
    return max(1, LOGITS // (tokenizer.vocab_size * block_size))


def _as_batch(rows: list[Window], eot: int | None) -> Batch:
    """Inputs and targets (B, T), T of the longest row; what isn't scored has the target IGNORED."""
    longest = max(len(window) - 1 for window, _ in rows)
    tokens = np.zeros((len(rows), longest), dtype=np.int64)
    targets = np.full_like(tokens, IGNORED)
    for row, (window, fresh) in enumerate(rows):
        end = len(window) - 1
        tokens[row, :end] = window[:-1]
        targets[row, end - fresh : end] = window[-fresh:]
    if eot is not None:
        targets[targets == eot] = IGNORED
    return torch.from_numpy(tokens), torch.from_numpy(targets)
