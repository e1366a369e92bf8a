"""Score tokens with a model outside of training: a token store, or a text with a sliding window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import nn

from gptexp.data.batches import Batch, ValBatches, scored
from gptexp.data.mixture import Texts
from gptexp.data.shards import TokenStore
from gptexp.machine.hardware import free_memory
from gptexp.models.kernels.fastest import fastest_kernels
from gptexp.models.losses import IGNORED
from gptexp.models.placement import device_of, width_of
from gptexp.objectives.lm import Score, nats_of
from gptexp.tokenizers import Tokenizer

LOGITS = 2**26  # most logits of one forward pass: 256 MiB in float32
SHARE, MOST_TOKENS = 0.4, 2**18  # of a GPU's free memory, and of one forward pass there

Window = tuple[np.ndarray, int]  # tokens (at most block_size + 1), and how many at the end are scored


def score_tokens(
    model: nn.Module,
    tokenizer: Tokenizer,
    store: TokenStore,
    *,
    block_size: int,
    limit: int | None = None,
    batch: int | None = None,
) -> Score:
    """Score every token except the first and <|endoftext|>, in windows that do not overlap, as validation does.

    limit: tokens to score from the start of the store. batch: windows per forward pass.
    """
    part = store if limit is None else store.head(limit)
    windows = ValBatches(
        part, block_size, eot=tokenizer.eot, batch=batch or windows_that_fit(model, tokenizer, block_size)
    )
    nats = sum(float(batch) for batch in nats_by_batch(model, windows, "sum"))
    tokens_scored, bytes_scored = scored(part, tokenizer.token_bytes, tokenizer.eot)
    return Score(nats, tokens_scored, bytes_scored)


def score_texts(
    model: nn.Module,
    tokenizer: Tokenizer,
    data: Texts,
    split: str,
    *,
    block_size: int,
    limit: int | None = None,
    batch: int | None = None,
) -> dict[str, Score]:
    """Score a split, train or val, of each part of a mixture by name; of a text under the empty name."""
    return {
        name: score_tokens(model, tokenizer, store, block_size=block_size, limit=limit, batch=batch)
        for name, store in data.stores(split).items()
    }


def total(scores: Iterable[Score]) -> Score:
    """Return the score of several texts as one, in which every byte counts equally."""
    first, *others = scores
    return sum(others, start=first)


@torch.inference_mode()
def nats_by_batch(model: nn.Module, windows: ValBatches | Sequence[Batch], reduction: str) -> Iterator[torch.Tensor]:
    """Yield the nats of each batch: their sum, (); or, with the reduction "none", those of each target, (B * T,)."""
    device = device_of(model)
    model.eval()
    with fastest_kernels(model, device.type):
        for j in range(len(windows)):
            yield nats_of(model, _on(device, windows[j]), reduction)


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
    """Score every token of a text once, except the first and <|endoftext|>, in windows `stride` tokens apart.

    With stride = block_size, windows and result are those of validation. Memory is needed for one piece and one batch.

    Args:
        pieces: tokens (n,) that are the text when joined.
        stride: from 1 to block_size; smaller values give more context, and take block_size / stride times as long.
        batch: windows per forward pass.
    """
    windows = sliding_windows(pieces, block_size, stride)
    batch = batch or windows_that_fit(model, tokenizer, block_size)
    nats, n_tokens, n_bytes, device = 0.0, 0, 0, device_of(model)
    model.eval()
    with fastest_kernels(model, device.type):
        while rows := list(islice(windows, batch)):
            nats += float(nats_of(model, _on(device, _as_batch(rows, tokenizer.eot)), "sum"))
            fresh = np.concatenate([tokens[-count:] for tokens, count in rows])
            skipped = 0 if tokenizer.eot is None else int((fresh == tokenizer.eot).sum())
            n_tokens, n_bytes = n_tokens + len(fresh) - skipped, n_bytes + int(tokenizer.token_bytes[fresh].sum())
    return Score(nats, n_tokens, n_bytes)


def sliding_windows(pieces: Iterable[np.ndarray], block_size: int, stride: int) -> Iterator[Window]:
    """Yield windows 0, stride, 2·stride … of a stream of tokens, each with the number of new tokens at its end.

    In the first window, all tokens except the first are new. Later windows have `stride` new tokens, each with at least
    block_size - stride tokens before it. The last window may be short.
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


def windows_that_fit(model: nn.Module, tokenizer: Tokenizer, length: int) -> int:
    """Return the number of windows of so many tokens in one forward pass; at least one.

    Their logits are at most LOGITS numbers. A CUDA GPU takes as many windows as fit into SHARE of its free memory: a
    token needs its logits three times in float32, for the loss, and the activations of the widest layer.
    """
    if device_of(model).type != "cuda":
        return max(1, LOGITS // (tokenizer.vocab_size * length))
    token = 12 * tokenizer.vocab_size + 64 * width_of(model)  # bytes
    return max(1, min(int(SHARE * free_memory("cuda")) // token, MOST_TOKENS) // length)


def _on(device: torch.device, batch: Batch) -> Batch:
    return tuple(part.to(device) for part in batch)


def _as_batch(rows: list[Window], eot: int | None) -> Batch:
    """Return inputs and targets (B, T), T of the longest row; a target that is not scored is IGNORED."""
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
