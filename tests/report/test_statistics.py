"""Intervals, tests, corrections and power: worked examples, and error rates on simulated experiments."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from gptexp.report import statistics
from gptexp.report.comparison import Comparison, Question, compare
from gptexp.report.reading import Run
from gptexp.report.statistics import Difference, difference, holm, interval, power, seeds_needed

SIMULATIONS = 200


def run(label: int, seed: int, value: float) -> Run:
    """A finished run in memory: configurations differ in model.n_layer."""
    return Run(
        folder=Path(f"{label}-{seed}"),
        settings={"seed": seed, "model.n_layer": label},
        seed=seed,
        metrics={"val/bpb": value},
        best={"val/bpb": value},
        text_sha256="a",
        val_tokens=1,
        steps=10,
        tokens=100,
        parameters=10,
        seconds=1.0,
        tokens_per_second=100.0,
    )


def experiment(rng: np.random.Generator, shift: float, *, configurations: int = 2, seeds: int = 5) -> Comparison:
    """Configuration 0 and others that are better by `shift` standard deviations; a seed shifts all of them equally."""
    runs = []
    common = 0.05 * rng.standard_normal(seeds)
    for label in range(configurations):
        noise = 0.01 / math.sqrt(2) * rng.standard_normal(seeds) - (0.01 * shift if label else 0.0)
        runs += [run(label, seed, 2.0 + noise[seed] + common[seed]) for seed in range(seeds)]
    return compare(runs, [], Question())


def share(test: Callable[[Comparison], bool], **options: float) -> float:
    rng = np.random.default_rng(1)
    return sum(test(experiment(rng, **options)) for _ in range(SIMULATIONS)) / SIMULATIONS  # type: ignore[arg-type]


def mean_difference(c: Comparison) -> float:
    difference = c.rows[1].difference
    assert difference is not None
    return difference.mean


def any_significant(c: Comparison) -> bool:
    return any(row.p is not None and row.p < 0.05 for row in c.rows)


# ---------------------------------------------------------------------------------- error rates


def test_a_null_experiment_is_significant_in_five_percent() -> None:
    """200 experiments with one comparison each, so Holm's correction changes nothing."""
    assert abs(share(any_significant, shift=0.0) - 0.05) <= 0.03


@pytest.mark.parametrize("shared", [True, False], ids=["paired", "Welch"])
def test_three_thousand_null_tests_err_in_five_percent(shared: bool) -> None:
    """The test alone, with enough repetitions for a standard error of 0.4%."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 3000, 5))
    first = 0 if shared else 100
    p = [difference(dict(enumerate(x)), dict(enumerate(y, start=first))).p for x, y in zip(a, b, strict=True)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.012)


def test_four_null_comparisons_have_at_most_five_percent_false_positives() -> None:
    """With Holm's correction; without it, the rate would be 14% to 19%."""
    assert share(any_significant, shift=0.0, configurations=5) <= 0.05 + 0.03


@pytest.mark.parametrize(("shift", "seeds"), [(1.0, 5), (1.5, 5), (1.0, 10)])
def test_a_true_difference_is_found_with_the_predicted_power(shift: float, seeds: int) -> None:
    """Within three standard errors of the noncentral t's power."""
    expected = power(Difference(-0.01 * shift, "paired t", seeds, 0.01), seeds)
    error = math.sqrt(expected * (1 - expected) / SIMULATIONS)
    found = share(lambda c: any_significant(c) and mean_difference(c) < 0, shift=shift, seeds=seeds)
    assert found == pytest.approx(expected, abs=3 * error)


def test_the_interval_covers_the_true_mean_in_95_percent() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(1000):
        i = interval(list(2.0 + rng.standard_normal(3)))
        assert i.low is not None
        assert i.high is not None
        held += i.low < 2.0 < i.high
    assert held / 1000 == pytest.approx(0.95, abs=0.02)


# ---------------------------------------------------------------------------------- worked examples


def test_the_interval_of_one_to_five_equals_the_textbook() -> None:
    """t(0.975, 4) = 2.7764451; sd = sqrt(2.5)."""
    i = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (i.n, i.mean) == (5, 3.0)
    assert i.sd == pytest.approx(math.sqrt(2.5))
    assert i.half_width == pytest.approx(2.7764451 * math.sqrt(2.5 / 5))


def test_the_interval_of_one_seed_or_none_is_undefined() -> None:
    assert interval([2.0]) == statistics.Interval(1, 2.0)
    assert interval([]) == statistics.Interval(0)
    assert interval([2.0, 2.0]).half_width == 0.0


def test_the_bootstrap_interval_is_repeatable_and_near_the_t_interval() -> None:
    x = list(np.random.default_rng(0).normal(size=60))
    i, t = interval(x, "bootstrap"), interval(x)
    assert i == interval(x, "bootstrap")
    assert i.low == pytest.approx(t.low, abs=0.05)
    assert i.high == pytest.approx(t.high, abs=0.05)


def test_the_paired_difference_cancels_the_effect_of_the_seed() -> None:
    """Gaps -1, -2, -3: mean -2, sd 1, t = -3.4641 with 2 degrees of freedom, p = 0.0742."""
    d = difference({1: 9.0, 2: 18.0, 3: 27.0, 4: 0.0}, {1: 10.0, 2: 20.0, 3: 30.0, 9: 5.0})
    assert (d.test, d.n, d.mean, d.sd) == ("paired t", 3, -2.0, 1.0)
    assert d.p == pytest.approx(0.07418, abs=1e-5)
    assert d.high == pytest.approx(-2 + 4.3026527 / math.sqrt(3))


def test_welch_is_used_without_two_shared_seeds() -> None:
    """Student's sleep data taken as two groups: t = -1.8608, df = 17.776, p = 0.07939 (R, ?t.test)."""
    a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    d = difference(dict(enumerate(a)), dict(enumerate(b, start=100)))
    assert d.test == "Welch's t"
    assert d.mean == pytest.approx(-1.58)
    assert d.p == pytest.approx(0.07939, abs=1e-5)
    paired = difference(dict(enumerate(a)), dict(enumerate(b)))
    assert paired.p == pytest.approx(0.002833, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "baseline"),
    [({1: 2.0}, {1: 2.1}), ({1: 2.0}, {2: 2.1}), ({1: 2.0, 2: 2.1}, {1: 3.0, 2: 3.1}), ({1: 2.0, 2: 2.2}, {3: 2.0})],
    ids=["one pair", "one each", "no spread", "two against one"],
)
def test_too_few_seeds_give_a_difference_without_a_p_value(
    values: dict[int, float], baseline: dict[int, float]
) -> None:
    d = difference(values, baseline)
    assert (d.test, d.p, d.low) == ("", None, None)
    assert d.mean == pytest.approx(np.mean(list(values.values())) - np.mean(list(baseline.values())))


def test_holm_correction_equals_a_worked_example() -> None:
    """0.005·4, 0.01·3, 0.03·2 and, as no p-value may fall below an earlier one, again 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]


def test_power_equals_the_textbook() -> None:
    """Cohen's medium effect: 34 pairs, or 64 in each of two groups, give 80% (G*Power's manual)."""
    assert seeds_needed(Difference(0.5, "paired t", 5, 1.0)) == 34
    assert seeds_needed(Difference(0.5, "Welch's t", 5, math.sqrt(2))) == 64
    assert power(Difference(0.5, "paired t", 5, 1.0), 34) == pytest.approx(0.8078, abs=1e-4)


def test_seeds_needed_is_bounded_at_both_ends() -> None:
    assert seeds_needed(Difference(100.0, "paired t", 2, 1.0)) == 2
    assert seeds_needed(Difference(1e-3, "paired t", 5, 1.0)) is None
    assert seeds_needed(Difference(0.5, "", 1)) is None


def test_power_is_computed_if_scipys_noncentral_t_fails() -> None:
    """nct.cdf is nan for 2 degrees of freedom at a noncentrality of 37; simulation and theory say 1."""
    assert power(Difference(37.0, "paired t", 3, math.sqrt(3)), 3) == pytest.approx(1.0, abs=1e-3)
    by_quantiles = statistics._power_by_quantiles(4.302652729911275, 2, 3.0)
    assert by_quantiles == pytest.approx(power(Difference(3.0, "paired t", 3, math.sqrt(3)), 3), abs=1e-4)
