"""Intervals, tests and power of metrics over seeds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8
MOST_SEEDS = 1000  # the upper limit of seeds_needed
RESAMPLES = 9999
ROUNDING = 1e-12  # relative; a smaller spread counts as 0


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds with its 95% interval. low and high are None if n is 1, and all are None if n is 0."""

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """The mean of a configuration minus the mean of the baseline.

    test: "paired t" over the n shared seeds, "Welch's t" if fewer than two are shared, or "" without a test; then
    low, high and p are None. sd: of the difference of one seed; 0 means zero variance, None a single seed.
    p: two-sided, not corrected.
    """

    mean: float
    test: str
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def interval(values: Sequence[float], method: str = "t") -> Interval:
    """Return the mean and its 95% interval, by Student's t or by the BCa bootstrap."""
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        return Interval(x.size, *map(float, x))
    mean, sd = float(x.mean()), _sd(x)
    if sd == 0:
        return Interval(x.size, mean, 0.0, mean, mean)
    if method == "bootstrap":
        low, high = _bootstrap(x)
    else:
        low, high = stats.t.interval(CONFIDENCE, x.size - 1, loc=mean, scale=sd / math.sqrt(x.size))
    return Interval(x.size, mean, sd, float(low), float(high))


def _bootstrap(x: np.ndarray) -> tuple[float, float]:
    """The BCa interval (Efron 1987). The seed is fixed, so that the same runs give the same report."""
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0)
    )
    return found.confidence_interval.low, found.confidence_interval.high


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Return the difference of a configuration to the baseline; both by seed.

    Shared seeds are paired, because a seed gives both the same order of data, so its effect cancels. If fewer than
    two seeds are shared, Welch's test compares the groups.
    """
    shared = sorted(values.keys() & baseline.keys())
    if len(shared) > 1 or (shared and min(len(values), len(baseline)) == 1):
        level = max(abs(baseline[seed]) for seed in shared)
        return _paired(np.array([values[seed] - baseline[seed] for seed in shared]), level)
    return _welch(np.array(list(values.values())), np.array(list(baseline.values())))


def _sd(x: np.ndarray, level: float = 0.0) -> float:
    """The standard deviation, or 0 if it is only rounding of numbers of this magnitude."""
    sd = float(x.std(ddof=1))
    return sd if sd > ROUNDING * max(level, float(np.abs(x).max())) else 0.0


def _paired(gaps: np.ndarray, level: float) -> Difference:
    n, mean = gaps.size, float(gaps.mean())
    sd = _sd(gaps, level) if n > 1 else None
    if not sd:  # one pair, or zero variance
        return Difference(mean, "", n, sd)
    found = stats.ttest_1samp(gaps, 0.0)  # the paired t-test on the differences
    low, high = found.confidence_interval(CONFIDENCE)
    return Difference(mean, "paired t", n, sd, float(low), float(high), float(found.pvalue))


def _welch(a: np.ndarray, b: np.ndarray) -> Difference:
    mean, n = float(a.mean() - b.mean()), min(a.size, b.size)
    sd = math.hypot(_sd(a), _sd(b)) if n > 1 else None
    if not sd:
        return Difference(mean, "", n, sd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # if one group has zero variance
        found = stats.ttest_ind(a, b, equal_var=False)
    low, high = found.confidence_interval(CONFIDENCE)
    return Difference(mean, "Welch's t", n, sd, float(low), float(high), float(found.pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values after Holm's step-down correction (1979); None, a comparison without a test, stays None.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on. scipy only corrects false discovery
    rates.
    """
    tested = [index for index, p in enumerate(p_values) if p is not None]
    p = np.array([p_values[index] for index in tested], dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    corrected: list[float | None] = [None] * len(p_values)
    for rank, index in enumerate(order):
        corrected[tested[index]] = float(raised[rank])
    return corrected


def power(difference: Difference, n: int, alpha: float = ALPHA) -> float:
    """Return the probability that n seeds per configuration detect a true difference of this size.

    By the noncentral t, with n - 1 degrees of freedom for the paired test, and 2n - 2 for Welch's, where equal
    variances are assumed (Cohen 1988, chapter 2).
    """
    if not difference.sd or n < 2:
        return math.nan
    df = n - 1 if difference.test == "paired t" else 2 * n - 2
    noncentrality = abs(difference.mean) / difference.sd * math.sqrt(n)
    critical = stats.t.isf(alpha / 2, df)
    found = float(stats.nct.sf(critical, df, noncentrality) + stats.nct.cdf(-critical, df, noncentrality))
    return found if math.isfinite(found) else _power_by_quantiles(critical, df, noncentrality)


def _power_by_quantiles(critical: float, df: int, noncentrality: float) -> float:
    """P(|T| > critical) for T = (Z + noncentrality) / (chi / sqrt(df)); scipy's nct returns nan for some
    noncentralities from 37."""
    scale = stats.chi.ppf((np.arange(2000) + 0.5) / 2000, df) / math.sqrt(df)
    tails = stats.norm.sf(critical * scale - noncentrality) + stats.norm.cdf(-critical * scale - noncentrality)
    return float(tails.mean())


def seeds_needed(difference: Difference, alpha: float = ALPHA) -> int | None:
    """Return the fewest seeds that detect a true difference of this size with 80% power; None if above 1,000."""
    if not difference.sd or power(difference, MOST_SEEDS, alpha) < POWER:
        return None
    low, high = 1, MOST_SEEDS  # power rises with n: bisection
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, middle, alpha) >= POWER else (middle, high)
    return high
