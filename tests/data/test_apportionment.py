"""Every part of a mixture has its share of the samples, to within one sample, after every sample."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gptexp.data.apportionment import Apportionment

WEIGHTS = st.lists(st.floats(1e-2, 30), min_size=2, max_size=9) | st.lists(st.integers(1, 12), min_size=2, max_size=9)


def largest_deviation(weights: list[float], first: int, count: int) -> Fraction:
    """How far a count is from its share after any of the samples first … first + count - 1, in samples."""
    shares = Apportionment.of(weights)
    parts, numbers = shares.parts(first, count)
    counts, worst = shares.counts(first), 0
    for k, (part, number) in enumerate(zip(parts.tolist(), numbers.tolist(), strict=True), first + 1):
        assert number == counts[part]
        counts[part] += 1
        worst = max(worst, *(abs(had * shares.total - w * k) for had, w in zip(counts, shares.weights, strict=True)))
    return Fraction(worst, shares.total)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, st.integers(0, 3000) | st.integers(10**9, 10**15))
def test_every_part_stays_within_one_sample_of_its_share(weights: list[float], first: int) -> None:
    assert largest_deviation(weights, first, 150) < 1


def test_a_block_begins_where_the_last_one_ended() -> None:
    assert largest_deviation([0.7, 0.123456789, 2.5, 0.1, 0.1], 0, 4 * 1024) < 1
    assert largest_deviation([5, 3, 2, 1, 1, 1 / 3, 1 / 7], 10**12 // 1024 * 1024 - 40, 80) < 1
    assert largest_deviation([1, 0.0001, 0.00013], 15_000 - 200, 400) < 1  # a block is longer for a small share
    assert Apportionment.of([0.2, 0.4]) == Apportionment.of([1, 2]) == Apportionment((1, 2))


def test_parts_are_a_pure_function_of_the_sample() -> None:
    shares = Apportionment.of([3, 2, 0.5])
    parts, numbers = shares.parts(0, 3000)
    for first, count in [(0, 1), (2999, 1), (1020, 9), (500, 2100), (2048, 0)]:
        again, of_part = shares.parts(first, count)
        assert np.array_equal(again, parts[first : first + count])
        assert np.array_equal(of_part, numbers[first : first + count])
    assert shares.counts(2048) == np.bincount(parts[:2048]).tolist()
    assert Apportionment.of([2, 1]).parts(0, 9)[0].tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 1]


def test_a_late_sample_costs_no_more_than_the_first() -> None:
    # A walk through all samples would exceed the time limit of a test.
    assert sum(Apportionment.of([1.1, 2.7, 0.01]).counts(10**15)) == 10**15
