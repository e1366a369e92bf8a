"""The order of training windows: which windows are in which step is a pure function of (seed, step).

An epoch divides the token sequence, continued at its beginning, into windows of block_size inputs without overlap, from
a random phase, and visits them in a pseudo-random order. No permutation is kept in memory: the order is a Feistel
network over {0, …, n-1} (Black & Rogaway, "Ciphers with Arbitrary Finite Domains", 2002, methods 2 and 3: mixed radix
a·b >= n, cycle walking for the few values beyond n), so window 10**12 is computed as fast as window 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

_ROUNDS = 16  # with 8, the orders of 5 to 7 windows were measurably not equally likely; with 16 they are
_ROUNDS_LARGE, _LARGE = 8, 4096  # above this number of windows 8 rounds are enough
CHUNK = 1024  # positions of the order that are computed together
_DOMAIN = 0x6F726465  # distinguishes these draws from others of (seed, epoch)


class WindowOrder:
    """Start positions of the training windows, by sample of the run.

    A window reads block_size + 1 tokens from its start, modulo n_tokens; its targets are its tokens shifted by one. An
    epoch of (n_tokens - 1) // block_size windows reads all tokens except fewer than block_size, and none of them twice
    as input or as target. At most one window of an epoch passes the last token and continues at the beginning.
    One of its targets, the first token after the last one, does not follow its input in the text, as between two
    documents. A ring of n_tokens - 1 inputs would not avoid this, and would never use the last token as input.

    Raises:
        ValueError: fewer than block_size + 1 tokens.
    """

    def __init__(self, n_tokens: int, block_size: int, seed: int) -> None:
        if n_tokens < block_size + 1:
            raise ValueError(f"{n_tokens} tokens are too few for a window of block_size={block_size} and its target")
        self.n_tokens, self.block_size, self.seed = n_tokens, block_size, seed
        self.windows_per_epoch = (n_tokens - 1) // block_size

    def starts(self, first: int, count: int) -> np.ndarray:
        """Return the starts of samples first … first + count - 1, (count,) int64; they may cross epochs."""
        return _by_epochs(first, count, self.windows_per_epoch, self._starts_in)

    def _starts_in(self, epoch: int, index: int, count: int) -> np.ndarray:
        _, phase = _draws(self.seed, epoch, self.n_tokens)
        windows = _stretch(index, count, self.windows_per_epoch, self.seed, epoch, self.n_tokens)
        return (windows * self.block_size + phase) % self.n_tokens


class ExampleOrder:
    """Indices of labelled texts, by sample of the run: an epoch has each text once, in random order."""

    def __init__(self, n_examples: int, seed: int) -> None:
        self.n_examples, self.seed = n_examples, seed

    def indices(self, first: int, count: int) -> np.ndarray:
        """Return the texts of samples first … first + count - 1, (count,) int64; they may cross epochs."""
        return _by_epochs(first, count, self.n_examples, self._indices_in)

    def _indices_in(self, epoch: int, index: int, count: int) -> np.ndarray:
        return _stretch(index, count, self.n_examples, self.seed, epoch, self.n_examples)


def _by_epochs(first: int, count: int, per_epoch: int, within: Callable[[int, int, int], np.ndarray]) -> np.ndarray:
    """Return samples first … first + count - 1, (count,) int64.

    within: (epoch, index in the epoch, count) -> samples of one epoch and of one chunk.
    """
    result = np.empty(count, dtype=np.int64)
    done = 0
    while done < count:
        epoch, index = divmod(first + done, per_epoch)
        take = min(count - done, per_epoch - index, CHUNK - index % CHUNK)
        result[done : done + take] = within(epoch, index, take)
        done += take
    return result


def _stretch(index: int, count: int, size: int, seed: int, epoch: int, n_tokens: int) -> np.ndarray:
    """Return positions index … index + count - 1 of an epoch's order, (count,) int64, within one chunk."""
    start = index % CHUNK
    return _chunk(index // CHUNK, size, seed, epoch, n_tokens)[start : start + count]


@lru_cache(maxsize=64)  # the parts of a mixture take turns
def _chunk(nth: int, size: int, seed: int, epoch: int, n_tokens: int) -> np.ndarray:
    """Return the nth CHUNK positions, all at once and cached, because a few of them cost as much."""
    keys, _ = _draws(seed, epoch, n_tokens)
    places = np.arange(nth * CHUNK, min((nth + 1) * CHUNK, size), dtype=np.uint64)
    return permute(places, size, keys).astype(np.int64)


def val_windows(n_tokens: int, block_size: int) -> np.ndarray:
    """Return the starts of the validation windows, (n,) int64: without overlap, the last may be short.

    The window at s has inputs s … e-1 and targets s+1 … e with e = min(s + block_size, n_tokens - 1), so
    every token except the first is a target exactly once.
    """
    return np.arange(0, n_tokens - 1, block_size, dtype=np.int64)


def permute(indices: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Apply the permutation of {0, …, size-1} that the keys select to indices (n,) uint64 below `size`."""
    root = math.isqrt(size - 1) + 1
    left = root + root % 2  # even: rotations of odd length alone would reach only the even permutations
    right = -(-size // left)
    keys = keys[:_ROUNDS_LARGE] if size > _LARGE else keys
    result = _feistel(indices, left, right, keys)
    while (outside := np.flatnonzero(result >= size)).size:
        result[outside] = _feistel(result[outside], left, right, keys)  # cycle walking
    return result


def _feistel(values: np.ndarray, left: int, right: int, keys: np.ndarray) -> np.ndarray:
    """Permute {0, …, left·right - 1}: each half round rotates one half by a hash of the other."""
    a, b = np.uint64(left), np.uint64(right)
    low: np.ndarray = values % a
    high: np.ndarray = values // a
    for even, odd in keys.reshape(-1, 2):
        low = (low + _mix(high + even) % a) % a
        high = (high + _mix(low + odd) % b) % b
    result: np.ndarray = high * a + low
    return result


def _mix(values: np.ndarray) -> np.ndarray:
    """Return 64-bit hashes: the finalizer of SplitMix64 (Steele, Lea & Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


@lru_cache(maxsize=64)
def _draws(seed: int, epoch: int, n_tokens: int) -> tuple[np.ndarray, int]:
    """Return the round keys, (_ROUNDS,) uint64, and the phase of an epoch."""
    words = np.random.SeedSequence((seed, epoch, _DOMAIN)).generate_state(_ROUNDS + 1, np.uint64)
    return words[:_ROUNDS], int(words[_ROUNDS]) % n_tokens
