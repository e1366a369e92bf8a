"""The sequential test of one idea: evidence from paired gains, when to stop, and an interval. Only NumPy.

A gain is the base's score minus the idea's score on the same seed, minus the margin: above 0, the idea is better. An
idea is useless if its gains are symmetric about a centre of at most 0, given the pairs before. That is so for noise of
any distribution if the idea's runs have the same noise as the base's runs.

Evidence. 1 + tanh(k·gain/scale) is at least 0, and its mean is at most 1 for a useless idea, because tanh is odd and
increasing. The product over pairs is therefore a nonnegative supermartingale, also averaged over the bets k. By Ville's
inequality (1939) it reaches 1/level with a probability of at most `level`, however often it is looked at: Ramdas,
Grünwald, Vovk and Shafer 2023, arXiv 2210.01948. For normal gains with standard deviation `scale`, a factor is the
likelihood ratio of an effect of k against none, given the gain's magnitude: a test of symmetry by betting, as in
Ramdas, Ruf, Larsson and Koolen 2020, arXiv 2009.03167. The scale must be known before the pairs; a wrong one costs only
power. A pair at most doubles the evidence, so a level of 1/5000 takes at least 13 pairs, however large the effect is.

All functions take gains of shape (..., pairs), so a simulation decides many ideas at once with the command's code.
"""

from __future__ import annotations

from functools import cache

import numpy as np

BETS = np.array([0.5, 1.0, 2.0, 4.0])  # effects in units of the scale
WEIGHTS = np.array([0.2, 0.4, 0.2, 0.2])
OPTIMISM = 1.4  # standard errors that are added to the estimated effect before an idea is given up
SPREAD = 0.5  # of the scale; paired runs may be correlated, so a small effect may be large compared with its spread
CLIP = 3.0  # units of the scale; one outlier does not decide about futility
PRIOR = 4  # pairs
FAR = 1e3  # units of the scale; beyond it, numbers could overflow
COVERAGE = 0.95
CONTINUE, KEEP, DISCARD, UNDECIDED = range(4)
VERDICTS = ("continue", "keep", "discard", "undecided")

Array = np.ndarray


def log_evidence(gains: Array, scale: Array | float) -> Array:
    """Return the logarithm of the evidence against a useless idea after each pair, (..., pairs)."""
    x = np.clip(gains, -FAR * scale, FAR * scale) / scale
    factors = np.log(2) - np.logaddexp(0, -2 * BETS[:, None] * x[..., None, :])  # log(1 + tanh(k·x))
    products = factors.cumsum(-1) + np.log(WEIGHTS)[:, None]
    largest = products.max(-2)
    found: Array = largest + np.log(np.exp(products - largest[..., None, :]).sum(-2))
    return found


def decide(gains: Array, scale: Array | float, level: Array | float, most: int) -> tuple[Array, Array]:
    """Return the verdict as an index into VERDICTS, and the number of pairs at which it is reached, each (...).

    The verdict is CONTINUE if the gains so far reach none. A larger gain never changes KEEP into another verdict; the
    proof in `gptexp.studies.online` needs this.

    Args:
        gains: (..., pairs), at most `most` pairs.
        scale: expected standard deviation of a gain, (..., 1) or a number.
        level: the chance at which a useless idea may be kept, (..., 1) or a number.
        most: pairs after which the test ends.
    """
    evidence, target = log_evidence(gains, scale), -np.log(level)
    n = np.arange(1, evidence.shape[-1] + 1)
    reached, given_up = evidence >= target, _is_futile(gains, scale, evidence, target, most)
    ended = reached | given_up | (n == most)
    first = ended.argmax(-1)
    at = first[..., None]
    verdict = np.where(np.take_along_axis(given_up, at, -1), DISCARD, UNDECIDED)
    verdict = np.where(np.take_along_axis(reached, at, -1), KEEP, verdict)[..., 0]
    return np.where(ended.any(-1), verdict, CONTINUE), np.where(ended.any(-1), first + 1, n.size)


def _is_futile(gains: Array, scale: Array | float, evidence: Array, target: Array | float, most: int) -> Array:
    """Return after which pairs even an optimistic effect would not reach the target by the last pair.

    Giving up can only reduce the number of kept ideas, so the rule affects power and cost but not validity.
    """
    n = np.arange(1, evidence.shape[-1] + 1)
    effect = np.clip(np.asarray(gains) / scale, -CLIP, CLIP).cumsum(-1) / n
    hoped = np.where(effect > 0, effect / SPREAD, effect) + OPTIMISM / np.sqrt(n)
    futile: Array = (n < most) & ((target - evidence) / np.maximum(most - n, 1) > growth(hoped))
    return futile


def growth(effect: Array | float) -> Array:
    """Return the expected growth of the log evidence per pair, for normal gains of this mean in units of the scale."""
    effects, rates = _growth_table()
    return np.asarray(np.interp(effect, effects, rates))


@cache
def _growth_table() -> tuple[Array, Array]:
    effects, z = np.linspace(-1, 6, 141), np.linspace(-6, 6, 601)
    density = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    x = BETS[:, None, None] * (effects[:, None] + z)
    rates = ((np.log(2) - np.logaddexp(0, -2 * x)) @ density).max(0)  # the best bet dominates the average
    return effects, np.maximum.accumulate(rates)


def pairs_needed(gains: Array, scale: float, level: float) -> int | None:
    """Return about how many pairs reach the level at the observed mean and spread; None if the mean is not above 0.

    The expected spread counts as much as PRIOR pairs, because few pairs show little of it.
    """
    mean, n = float(np.mean(gains)), np.size(gains)
    spread = np.sqrt((PRIOR * scale**2 + n * np.var(gains)) / (PRIOR + n - 1))
    rate = float(growth(mean / spread))
    return max(1, int(np.ceil(-np.log(level) / rate))) if mean > 0 and rate > 1e-3 else None


def interval(differences: Array, scale: float, coverage: float = COVERAGE) -> tuple[float, float]:
    """Return an interval that contains the centre of the differences with this probability, whenever it is computed.

    It contains the centres that the evidence has not refuted after any number of pairs (a confidence sequence: Howard,
    Ramdas, McAuliffe and Sekhon 2021, arXiv 1810.08240). Both ends are infinite for fewer than six pairs.

    Args:
        differences: scores of the idea minus scores of the base, (pairs,).
        scale: as in `decide`.
        coverage: probability.
    """
    x = np.asarray(differences, dtype=np.float64)
    return -_upper(-x, scale, coverage), _upper(x, scale, coverage)


def _upper(x: Array, scale: float, coverage: float) -> float:
    """Return the smallest centre that is refuted because the differences are too far below it, by bisection."""
    refuted = np.log(2 / (1 - coverage))

    def is_refuted(centre: float) -> bool:
        return bool((log_evidence(centre - x, scale) >= refuted).any())

    low, high = float(x.min()), float(x.max()) + 60 * scale
    if not is_refuted(high):
        return np.inf
    while high - low > 1e-4 * scale and low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if is_refuted(middle) else (middle, high)
    return high
