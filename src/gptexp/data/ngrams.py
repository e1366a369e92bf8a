"""Which n-grams of a sequence occur in a long stream: exact, in memory that does not depend on the stream's length."""

from __future__ import annotations

import numpy as np


class Ngrams:
    """The n-grams of a sequence, for n from 1 to `longest`.

    An n-gram is the pair of its first n - 1 symbols and its last symbol, so each level numbers pairs of the level
    before. Equal numbers mean equal n-grams: nothing is hashed.

    Args:
        symbols: (L,) int64, from 1 on; 0 separates texts and is part of no n-gram.
    """

    def __init__(self, symbols: np.ndarray, longest: int) -> None:
        self.base = int(symbols.max(initial=0)) + 1
        self.numbers, self.pairs = [symbols], list[np.ndarray]()  # (L,) for each n, 0: no n-gram begins here; codes
        for n in range(1, longest):
            codes = self._codes(self.numbers[-1], np.append(symbols[n:], np.zeros(min(n, len(symbols)), np.int64)))
            self.pairs.append(np.unique(np.append(codes, 0)))
            self.numbers.append(np.searchsorted(self.pairs[-1], codes))

    def occurring(self, stream: np.ndarray) -> np.ndarray:
        """Return which n-grams occur in a stream of symbols (S,), as (longest, L); others are part of no n-gram."""
        places = np.flatnonzero(stream * (stream < self.base))
        found = stream[places].astype(np.int64)
        rows = [self._among(0, found)]
        for n, pairs in enumerate(self.pairs, 1):
            places = places[: np.searchsorted(places, len(stream) - n)]
            following = stream[places + n]
            codes = self._codes(found[: len(places)], following * (following < self.base))
            numbers = np.minimum(np.searchsorted(pairs, codes), len(pairs) - 1)
            kept = np.flatnonzero((pairs[numbers] == codes) & (codes > 0))
            places, found = places[kept], numbers[kept]
            rows.append(self._among(n, found))
        return np.stack(rows)

    def _codes(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.where((first > 0) & (last > 0), first * self.base + last, 0)

    def _among(self, level: int, found: np.ndarray) -> np.ndarray:
        numbers = self.numbers[level]
        seen = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.bool_)
        seen[found] = True
        return np.asarray(seen[numbers] & (numbers > 0))
