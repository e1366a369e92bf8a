"""The sequential test: a useless idea is rarely kept, a clear one is, and a larger gain never hurts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gptexp.studies.sequential import (
    CONTINUE,
    DISCARD,
    KEEP,
    UNDECIDED,
    decide,
    growth,
    interval,
    log_evidence,
    pairs_needed,
)

LEVEL = 1 / 5000
NIGHTS = 20_000


def draws(seed: int, shape: tuple[int, ...], df: float = math.inf) -> np.ndarray:
    generator = np.random.default_rng(seed)
    normal = generator.standard_normal(shape)
    return normal if df == math.inf else generator.standard_t(df, shape) / math.sqrt(df / (df - 2))


def test_evidence_of_one_pair_is_the_average_bet() -> None:
    expected = 1 + 0.2 * math.tanh(0.5) + 0.4 * math.tanh(1) + 0.2 * (math.tanh(2) + math.tanh(4))
    assert math.exp(log_evidence(np.array([0.3]), 0.3)[0]) == pytest.approx(expected, rel=1e-12)
    assert np.exp(log_evidence(np.zeros(5), 1.0)) == pytest.approx(np.ones(5))


@pytest.mark.parametrize("df", [math.inf, 2.5])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_evidence_against_a_useless_idea_averages_one(df: float, scale: float) -> None:
    evidence = np.exp(log_evidence(draws(1, (200_000, 3), df), scale))
    errors = evidence.std(0) / math.sqrt(len(evidence))
    assert (np.abs(evidence.mean(0) - 1) < 4 * errors).all()


@pytest.mark.parametrize("df", [math.inf, 2.5])
def test_a_useless_idea_is_kept_at_most_at_the_level(df: float) -> None:
    level = 0.02
    verdicts, _ = decide(draws(2, (NIGHTS, 32), df), 1.0, level, 32)
    assert (verdicts == KEEP).mean() <= level + 4 * math.sqrt(level / NIGHTS)
    assert (verdicts != CONTINUE).all()


def test_most_useless_ideas_end_within_three_pairs() -> None:
    _, pairs = decide(draws(2, (NIGHTS, 32)), 1.0, LEVEL, 32)
    assert (pairs <= 3).mean() > 0.6
    assert pairs.mean() < 4


def test_power_is_as_documented() -> None:
    kept, mean = {}, {}
    for effect in (1.0, 2.0):
        verdicts, pairs = decide(draws(3, (4000, 32)) + effect, 1.0, LEVEL, 32)
        kept[effect], mean[effect] = (verdicts == KEEP).mean(), pairs.mean()
    assert kept[1.0] > 0.62
    assert kept[2.0] > 0.98
    assert mean[2.0] < 15


def test_a_larger_gain_never_turns_a_keep_into_another_verdict() -> None:
    gains = draws(4, (5000, 32)) + 0.7
    more = gains + np.abs(draws(5, gains.shape)) * (draws(6, gains.shape) > 1)
    before, after = (decide(x, 1.0, 1 / 100, 32)[0] for x in (gains, more))
    assert (before == KEEP).sum() > 1000
    assert (after[before == KEEP] == KEEP).all()


def test_deciding_pair_by_pair_equals_deciding_at_once() -> None:
    gains = draws(7, (300, 12)) + 0.8
    at_once, pairs = decide(gains, 1.0, 1 / 50, 12)
    for row, verdict, n in zip(gains, at_once, pairs, strict=True):
        steps = [int(decide(row[None, : k + 1], 1.0, 1 / 50, 12)[0][0]) for k in range(n)]
        assert steps == [CONTINUE] * (n - 1) + [verdict]


def test_verdicts_of_clear_cases() -> None:
    def verdict(gains: list[float], most: int = 32) -> tuple[int, int]:
        found, pairs = decide(np.array([gains]), 1.0, LEVEL, most)
        return int(found[0]), int(pairs[0])

    assert verdict([5.0] * 12) == (CONTINUE, 12)
    assert verdict([5.0] * 13) == (KEEP, 13)
    assert verdict([-3.0]) == (DISCARD, 1)
    assert verdict([0.0] * 32)[0] == DISCARD  # the idea changes nothing
    assert verdict([1.0] * 5, most=5) == (DISCARD, 1)  # five pairs can't reach 5,000
    assert decide(np.array([[5.0] * 6 + [-0.1]]), 1.0, 1 / 100, 7)[0][0] == UNDECIDED


@pytest.mark.parametrize("df", [math.inf, 2.5])
def test_interval_covers_the_effect_whenever_it_is_computed(df: float) -> None:
    missed = 0
    for row in draws(8, (400, 24), df):
        ends = [interval(row[:n] - 0.3, 1.0) for n in (6, 12, 24)]
        missed += any(not low <= -0.3 <= high for low, high in ends)
    assert missed / 400 <= 0.05 + 3 * math.sqrt(0.05 / 400)


def test_interval_is_infinite_before_six_pairs_then_shrinks() -> None:
    x = draws(9, (64,)) * 0.01 + 0.2
    assert interval(x[:5], 0.01) == (-math.inf, math.inf)
    low, high = interval(x, 0.01)
    assert 0.19 < low < 0.2 < high < 0.21
    assert interval(-x, 0.01) == pytest.approx((-high, -low), abs=1e-5)


def test_pairs_needed_agree_with_the_growth_of_the_evidence() -> None:
    x = draws(10, (100_000,))
    assert np.diff(log_evidence(x[:1000] + 1, 1.0)).mean() == pytest.approx(growth(1.0), abs=0.05)
    spread = math.sqrt((4 * 0.25 + 4) / 7)
    assert pairs_needed(np.array([0.0, 2.0, 0.0, 2.0]), 0.5, LEVEL) == math.ceil(math.log(5000) / growth(1 / spread))
    assert pairs_needed(np.array([-1.0, 0.5]), 0.5, LEVEL) is None
    assert pairs_needed(np.array([1.0]), 1.0, LEVEL) == math.ceil(math.log(5000) / growth(1.0))


def test_far_outliers_give_finite_evidence() -> None:
    assert np.isfinite(log_evidence(np.array([1e300, -1e300]), 1e-9)[0])
    assert log_evidence(np.array([1.0] * 900), 1e-9)[-1] == pytest.approx(900 * math.log(2))
