"""The loss of each validation token, summed over bins of tokens: by place, frequency and repetition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from gptexp.data.batches import ValBatches
from gptexp.data.shards import TokenStore
from gptexp.evaluation.scoring import nats_by_batch, windows_that_fit
from gptexp.report.where import ALL, BinnedLoss
from gptexp.tokenizers import Tokenizer

CHUNK = 2**16  # tokens that are scored and binned together
FREQUENCIES = ("over 1 in 10", "1 in 10–100", "1 in 100–1k", "1 in 1k–10k", "1 in 10k–100k", "1 in 100k–1M",
               "1 in 1M–10M", "under 1 in 10M", "never")  # fmt: skip
REPETITIONS = ("0 (new token)", "1 (token seen)", "2–3 (pair seen)", "4–7", "8 or more")


@dataclass(frozen=True)
class Bins:
    """A split of the validation tokens. of: (store, start, stop) -> the bins of tokens start … stop - 1; start >= 1."""

    name: str
    labels: Sequence[str]
    of: Callable[[TokenStore, int, int], np.ndarray]


EVERY_TOKEN = Bins(ALL, (ALL,), lambda store, start, stop: np.zeros(stop - start, np.int64))


def by_place(window: int) -> Bins:
    """Bin tokens by their place among the targets of their window, from 0, in powers of two: 0, 1, 2–3, 4–7, …"""
    spans = [(2**k // 2, min(2**k, window) - 1) for k in range((window - 1).bit_length() + 1)]
    labels = [f"{low}" if low == high else f"{low}–{high}" for low, high in spans]

    def of(_: TokenStore, start: int, stop: int) -> np.ndarray:
        bits: np.ndarray = np.frexp((np.arange(start, stop) - 1) % window)[1]  # of the place as a binary number
        return bits

    return Bins(f"place in {window}", labels, of)


def by_frequency(train: TokenStore, vocab_size: int) -> Bins:
    """Bin tokens by how often they occur in the training text, in decades."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(train), CHUNK):
        counts += np.bincount(train.read(start, start + CHUNK), minlength=vocab_size)
    decades = np.floor(np.log10(len(train) / np.maximum(counts, 1))).astype(np.int64)
    last = len(FREQUENCIES) - 1
    table = np.where(counts > 0, np.minimum(decades, last - 1), last)
    return Bins("frequency", FREQUENCIES, lambda store, start, stop: table[store.read(start, stop)])


def by_repetition(window: int) -> Bins:
    """Bin tokens by the length of the longest sequence that ends with them and occurred before in the same window.

    From 2 on, the token followed the same token before. An induction head can predict it (Olsson et al. 2022,
    arXiv 2209.11895); Arora et al. (2023, arXiv 2312.04927) attribute losses by it and call it an AR hit.
    """

    def of(store: TokenStore, start: int, stop: int) -> np.ndarray:
        width = min(window, len(store))
        first = (start - 1) // width * width  # the first token of the window that has `start` as a target
        tokens = store.read(first, stop).astype(np.int64)
        padding = -(len(tokens) - 1) % width  # comes last, so it repeats nothing before it
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(tokens, (0, padding)), width + 1)[::width]
        return repeated(windows)[:, 1:].ravel()[start - 1 - first :][: stop - start]

    return Bins(f"repetition in {window}", REPETITIONS, of)


def repeated(windows: np.ndarray) -> np.ndarray:
    """Return how many of the sequences of 1, 2, 4 and 8 tokens up to each token occurred before in its row, (R, L).

    Sequences are numbered by doubling: the numbers of two sequences of n tokens give that of one of 2n tokens.
    """
    found, length = np.zeros(windows.shape, dtype=np.int64), 1
    ids = windows + np.arange(len(windows))[:, None] * (int(windows.max()) + 1)  # no two rows share one
    while length <= 8 and ids.shape[1]:
        unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        seen = np.ones(ids.size, dtype=np.int64)
        seen[first] = 0
        found[:, length - 1 :] += seen.reshape(ids.shape)
        numbers = inverse.reshape(ids.shape)
        ids = numbers[:, :-length] * len(unique) + numbers[:, length:]
        length *= 2
    return found


def binned_losses(
    model: nn.Module, tokenizer: Tokenizer, store: TokenStore, splits: Sequence[Bins], *, block_size: int
) -> dict[str, BinnedLoss]:
    """Return the loss in the bins of each split by its name, of the tokens and in the windows of validation.

    Memory is needed for CHUNK tokens, or for one window.
    """
    batch = max(1, min(windows_that_fit(model, tokenizer, block_size), CHUNK // block_size))
    windows = ValBatches(store, block_size, eot=tokenizer.eot, batch=batch)
    sums = {s.name: BinnedLoss(s.labels, np.zeros(len(s.labels), np.int64), np.zeros(len(s.labels))) for s in splits}
    start = 1
    for found in nats_by_batch(model, windows, "none"):
        stop = min(start + len(found), len(store))  # only the last window is padded, at its end
        scored = store.read(start, stop) != (-1 if tokenizer.eot is None else tokenizer.eot)
        nats = found[: stop - start].cpu().double().numpy()[scored]
        for split in splits:
            bins = split.of(store, start, stop)[scored]
            np.add.at(sums[split.name].tokens, bins, 1)
            np.add.at(sums[split.name].nats, bins, nats)
        start = stop
    return sums
