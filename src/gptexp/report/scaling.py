"""Fits a scaling law L(N, D) = E + A / N^alpha + B / D^beta to complete runs (arXiv 2203.15556, approach 3).

N: parameters. D: training tokens, with repetitions. L: the metric at the end of a run. The schedule must have ended:
the loss in the middle of a schedule is higher than at the end of a schedule of that length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import huber, softmax

from gptexp.config.objective import HIGHER
from gptexp.report.comparable import NotComparable, comparable, diverged, require_metric, separate_by_text
from gptexp.report.reading import LeftOut, Run, find_runs, read_runs
from gptexp.report.scaling_runs import agreeing

DELTA = 1e-3  # of the Huber loss, in units of log L, as in the paper
STARTS = tuple(product((0.0, 8.0, 16.0), (0.0, 8.0, 16.0), (-1.0, 0.5), (0.25, 0.75), (0.25, 0.75)))  # as BOUNDS
FALL = (1e-3, 4.0)  # bounds of alpha and beta
BOUNDS = ((-10.0, 60.0), (-10.0, 60.0), (-7.0, 7.0), FALL, FALL)  # log A, log B, log E, alpha, beta
RESAMPLES = 200
PAIRS_FROM = 50  # points; with fewer, residuals are resampled
CONFIDENCE = 0.95
LEAST_VALUES = 3  # of N, and of D
LEAST_POINTS = 6  # one more than the five constants
LEAST_FALL = 1e-3  # relative decrease of the loss over the runs
SAME = 1.05  # sizes within this factor count as equal

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Constants:
    """The constants of the law. E has the unit of the metric; N and D are plain counts."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n: Floats | float, d: Floats | float) -> Floats | float:
        """Return the predicted loss for N parameters and D tokens."""
        return self.E + self.A * np.power(n, -self.alpha) + self.B * np.power(d, -self.beta)

    def optimum(self, flops: float) -> tuple[float, float]:
        """Return N and D with the lowest loss under 6 N D = flops (equation 4 of the paper)."""
        total = self.alpha + self.beta
        log_g = math.log(self.alpha * self.A / (self.beta * self.B)) / total
        log_c = math.log(flops / 6)
        return _exp(log_g + self.beta / total * log_c), _exp(self.alpha / total * log_c - log_g)


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fit to P points. n, d, losses: (P,) each. draws: the constants of each resample.

    group: a note on the runs that were fitted, if some were excluded.
    """

    metric: str
    n: Floats
    d: Floats
    losses: Floats
    constants: Constants
    draws: list[Constants]
    left_out: list[LeftOut]
    group: str = ""

    @property
    def resampled(self) -> str:
        """What the bootstrap resampled: pairs or residuals."""
        return "pairs" if self.n.size >= PAIRS_FROM else "residuals"

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95% interval of each constant, by name."""
        return {name: _span([getattr(draw, name) for draw in self.draws]) for name in asdict(self.constants)}

    @property
    def largest(self) -> float:
        """The compute of the largest run, 6 N D."""
        return float((6 * self.n * self.d).max())

    def optimum_spans(self, flops: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the 95% intervals of the best N and D."""
        pairs = [draw.optimum(flops) for draw in self.draws]
        return _span([n for n, _ in pairs]), _span([d for _, d in pairs])


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf  # overflows in a resample with a tiny exponent


def _span(values: Sequence[float]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.asarray(values), (tail, 1 - tail))
    return float(low), float(high)


def fit_folders(folders: Iterable[Path], metric: str) -> Law:
    """Fit the law to the complete runs of these folders.

    Raises:
        RunError: no runs, no comparable runs, or too few sizes to determine the constants.
    """
    runs, left_out = read_runs(find_runs(folders))
    if not runs:
        raise NotComparable(f"nothing to fit: {left_out[0].folder}: {left_out[0].reason}")
    require_metric(runs, metric)
    if metric in HIGHER:
        raise NotComparable(f"--metric={metric}: the law describes losses; choose a metric where lower is better")
    kept, incomparable = comparable(separate_by_text(runs), metric)
    refused = {run.folder: why for run in kept if (why := _why_not(run, metric))}
    left_out += incomparable + [LeftOut(folder, why) for folder, why in refused.items()]
    fitted, others, group = agreeing([run for run in kept if run.folder not in refused])
    left_out += others
    n, d = (np.array([getattr(run, name) for run in fitted], dtype=np.float64) for name in ("parameters", "tokens"))
    losses = np.array([run.metrics[metric] for run in fitted])
    try:
        law = fit(n, d, losses, metric, left_out)
    except NotComparable as error:
        raise NotComparable(f"{error}; {group}" if group else str(error)) from None
    return replace(law, group=group)


def _why_not(run: Run, metric: str) -> str:
    if diverged(run, metric) or run.metrics[metric] <= 0:
        return f"its last {metric} is not a number above 0"
    if run.max_steps is not None and run.steps < run.max_steps:
        return f"stopped at step {run.steps:,} of {run.max_steps:,}: its schedule had not ended"
    if extended := run.settings.get("schedule.extended"):
        return f"extended {extended}: its learning rates differ from those of an uninterrupted schedule"
    return ""


def fit(
    n: Floats,
    d: Floats,
    losses: Floats,
    metric: str = "val/loss",
    left_out: Iterable[LeftOut] = (),
    resamples: int = RESAMPLES,
) -> Law:
    """Fit the law to points: n, d, losses are (P,) each.

    The intervals are bootstrapped. From 50 points on, whole points are resampled (pairs, Freedman 1981), which is
    valid if the noise differs between points. With fewer points, residuals are resampled: a resample that lacks one
    of a few sizes may not determine five constants.

    Raises:
        NotComparable: too few distinct sizes or amounts of data, N and D that grow together, or a loss that does not
            decrease.
    """
    _require_enough(n, d)
    best = min((_minimise(n, d, np.log(losses), start) for start in STARTS), key=lambda found: found[0])[1]
    _require_fall(_constants(best), n, d)
    resample = _by_pairs if n.size >= PAIRS_FROM else _by_residuals
    draws = [_constants(_minimise(*points, best)[1]) for points in islice(resample(n, d, losses, best), resamples)]
    return Law(metric=metric, n=n, d=d, losses=losses, constants=_constants(best), draws=draws, left_out=list(left_out))


def _by_pairs(n: Floats, d: Floats, losses: Floats, best: Floats) -> Iterator[tuple[Floats, Floats, Floats]]:
    """N, D and log L of resampled points. The seed is fixed, so that the same runs give the same report."""
    rng, targets = np.random.default_rng(0), np.log(losses)
    while True:
        drawn = rng.integers(n.size, size=n.size)
        yield n[drawn], d[drawn], targets[drawn]


def _by_residuals(n: Floats, d: Floats, losses: Floats, best: Floats) -> Iterator[tuple[Floats, Floats, Floats]]:
    """N, D and log L of the same points, each with the residual of a random one."""
    rng, fitted = np.random.default_rng(0), _log_loss(best, np.log(n), np.log(d))[0]
    residuals = _pool(np.log(losses) - fitted, best.size)
    while True:
        yield n, d, fitted + rng.choice(residuals, n.size)


def _require_fall(c: Constants, n: Floats, d: Floats) -> None:
    """Refuse a law with a constant term, whose exponent or contribution is arbitrary."""
    lowest = c.loss(n.max(), d.max())
    for exponent, saved, name in (
        (c.alpha, c.loss(n.min(), d.max()) - lowest, "parameters"),
        (c.beta, c.loss(n.max(), d.min()) - lowest, "tokens"),
    ):
        if exponent <= 1.01 * FALL[0] or saved < LEAST_FALL * lowest:
            raise NotComparable(f"--scaling: the loss does not decrease with the number of {name} in these runs")


def _pool(residuals: Floats, fitted: int) -> Floats:
    """Residuals to draw from. A fit of p constants, close to least absolute deviations, passes through p points,
    whose residuals do not measure the noise; they are dropped. (200 simulated intervals of 16 runs covered the truth
    in 96%; with all residuals, scaled for the degrees of freedom, in 89%.)"""
    kept: Floats = residuals[np.argsort(np.abs(residuals))[fitted:]]
    centered: Floats = kept - kept.mean()
    return centered


def _require_enough(n: Floats, d: Floats) -> None:
    for values, name, remedy in ((n, "sizes (N)", "model.n_layer"), (d, "amounts of data (D)", "trainer.max_steps")):
        found = _distinct(values)
        if found < LEAST_VALUES:
            raise NotComparable(
                f"--scaling: {found} distinct {name} among {n.size} complete runs, but {LEAST_VALUES} are needed; "
                f"train more, for example with several values of {remedy}"
            )
    pairs = len(set(zip(_rounded(n), _rounded(d), strict=True)))
    if pairs < LEAST_POINTS:
        raise NotComparable(f"--scaling: {pairs} distinct pairs of N and D, but five constants need {LEAST_POINTS}")
    if abs(np.corrcoef(np.log(n), np.log(d))[0, 1]) > 0.999:
        raise NotComparable("--scaling: N and D grow together in all runs; vary one while the other stays")


def _rounded(values: Floats) -> list[float]:
    """The exponents of the values as rounded powers of SAME."""
    return [float(x) for x in np.round(np.log(values) / math.log(SAME))]


def _distinct(values: Floats) -> int:
    ordered = np.sort(values)
    return 0 if not ordered.size else 1 + int((ordered[1:] > SAME * ordered[:-1]).sum())


def _log_loss(x: Floats, log_n: Floats, log_d: Floats) -> tuple[Floats, Floats]:
    """log L (P,), the log-sum-exp of a - alpha log N, b - beta log D and e, and its gradient (5, P)."""
    a, b, e, alpha, beta = x
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    share = softmax(terms, axis=0)
    value: Floats = np.logaddexp.reduce(terms, axis=0)
    return value, np.stack([share[0], share[1], share[2], -share[0] * log_n, -share[1] * log_d])


def _minimise(n: Floats, d: Floats, targets: Floats, start: Sequence[float] | Floats) -> tuple[float, Floats]:
    """The smallest sum of Huber losses from one start, and its constants.

    The sum is scaled by delta, and the tolerances are tight, because L-BFGS stops too early on an average of such
    small losses (arXiv 2404.10102, section 3).
    """
    log_n, log_d = np.log(n), np.log(d)

    def objective(x: Floats) -> tuple[float, Floats]:
        value, gradient = _log_loss(x, log_n, log_d)
        error = value - targets
        return float(huber(DELTA, error).sum()) / DELTA, gradient @ np.clip(error, -DELTA, DELTA) / DELTA

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(objective, np.asarray(start), jac=True, method="L-BFGS-B", bounds=BOUNDS, options=options)
    return float(found.fun), found.x


def _constants(x: Floats) -> Constants:
    a, b, e, alpha, beta = map(float, x)
    return Constants(E=math.exp(e), A=math.exp(a), B=math.exp(b), alpha=alpha, beta=beta)
