"""N-grams of a sequence are found in a stream exactly as a direct search finds them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gptexp.data.ngrams import Ngrams

LONGEST = 5
SYMBOLS = st.lists(st.integers(0, 4), max_size=40)


def directly(sequence: list[int], stream: list[int]) -> list[list[bool]]:
    """Which n-grams without 0 of the sequence are in the stream, by comparing all of them."""
    found = []
    for n in range(1, LONGEST + 1):
        every = [stream[i : i + n] for i in range(len(stream) - n + 1)]
        here = [sequence[i : i + n] for i in range(len(sequence))]
        found.append([len(gram) == n and 0 not in gram and gram in every for gram in here])
    return found


@given(sequence=SYMBOLS, stream=SYMBOLS)
@settings(max_examples=100, deadline=None)
def test_found_ngrams_equal_a_direct_search(sequence: list[int], stream: list[int]) -> None:
    found = Ngrams(np.array(sequence, dtype=np.int64), LONGEST).occurring(np.array(stream, dtype=np.int32))
    assert found.tolist() == directly(sequence, stream)


def test_symbols_of_a_large_alphabet_do_not_collide() -> None:
    """Pairs of numbers near 100,000 exceed 32 bits."""
    sequence = np.arange(1, 100_001)
    found = Ngrams(sequence, 3).occurring(sequence[::-1].astype(np.int32))
    assert found.sum(axis=1).tolist() == [100_000, 0, 0]
    assert Ngrams(sequence, 3).occurring(sequence.astype(np.int32)).sum(axis=1).tolist() == [100_000, 99_999, 99_998]
