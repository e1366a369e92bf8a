"""The metric and the costs of a run: at its end, or at a budget that all runs reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gptexp.config.objective import HIGHER
from gptexp.report.comparable import NotComparable
from gptexp.report.curves import Curve, Floats
from gptexp.report.reading import LeftOut, Run
from gptexp.util.text import clock, quantity

KINDS = ("tokens", "bytes", "flops", "seconds")
TOLERANCE = 0.01  # relative; tokens or FLOPs that differ by less count as equal


@dataclass(frozen=True)
class Reading:
    """A run's metric at a step, and the costs up to this step.

    flops: of training, see `flops_per_token`. nbytes: of training text, or None if unknown. seconds: of training.
    """

    run: Run
    value: float
    best: float
    steps: float
    tokens: float
    flops: float
    nbytes: float | None
    seconds: float


def flops_are_estimated(runs: Sequence[Run]) -> bool:
    """Return whether a run did not record its FLOPs; those of all runs are then estimated, by the same rule."""
    return any(run.flops_per_token is None for run in runs)


def flops_per_token(run: Run, estimated: bool) -> float:
    """Return the recorded FLOPs, or 6 per parameter, without the attention scores (arXiv 2001.08361, section 2.1)."""
    return 6.0 * run.parameters if estimated or run.flops_per_token is None else run.flops_per_token


def at_end(runs: Sequence[Run], metric: str, *, estimated: bool | None = None) -> list[Reading]:
    """Return each run's reading at its last step. estimated: of their FLOPs; None: as the runs say."""
    estimated = flops_are_estimated(runs) if estimated is None else estimated
    return [
        Reading(
            run=run,
            value=run.metrics[metric],
            best=run.best.get(metric, np.nan),
            steps=run.steps,
            tokens=run.tokens,
            flops=run.tokens * flops_per_token(run, estimated),
            nbytes=None if run.bytes_per_token is None else run.tokens * run.bytes_per_token,
            seconds=run.seconds,
        )
        for run in runs
    ]


def at_budget(runs: Sequence[Run], metric: str, kind: str) -> tuple[float, list[Reading], list[LeftOut]]:
    """Return the largest budget that all runs reached, each run's reading there, and the runs without a reading.

    Args:
        kind: tokens, bytes, flops or seconds.

    Raises:
        NotComparable: no run can be read at a budget of this kind.
    """
    estimated = flops_are_estimated(runs)
    refused = {run.folder: why for run in runs if (why := _why_not(run, metric, kind, estimated))}
    able = [run for run in runs if run.folder not in refused]
    if not able:
        why = next(iter(refused.values()), "no runs")
        raise NotComparable(f"--at={kind}: no run can be compared at this budget; the first: {why}")
    budget = min(cost(run, curve_of(run, metric), kind, estimated)[-1] for run in able)
    readings = []
    for run in able:
        spent = cost(run, curve_of(run, metric), kind, estimated)
        if spent[0] > budget:
            refused[run.folder] = f"its first validation comes after {amount(kind, budget)}, where the others are read"
        else:
            readings.append(read_at(run, metric, kind, budget, estimated))
    return (
        budget,
        readings,
        [LeftOut(run.folder, refused[run.folder], run.settings) for run in runs if run.folder in refused],
    )


def duration(seconds: float) -> str:
    """Return a duration as text: 4.2 s, 1:15, 2:03:10."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def amount(kind: str, budget: float) -> str:
    """Return a budget with its unit."""
    if kind == "flops":
        return f"{budget:.2e} FLOPs"
    if kind == "seconds":
        return f"{duration(budget)} of training"
    return f"{quantity(budget)} {'tokens' if kind == 'tokens' else 'bytes of training text'}"


def differ(costs: Sequence[float | None]) -> bool:
    """Return whether costs that are known differ by more than TOLERANCE."""
    known = [cost for cost in costs if cost is not None]
    return bool(known) and max(known) - min(known) > TOLERANCE * max(known)


def _why_not(run: Run, metric: str, kind: str, estimated: bool) -> str:
    if run.curve is None:
        return f"--at needs the curve, but {run.curve_problem}"
    if metric not in run.curve.metrics or not run.curve.finite(metric).steps.size:
        return f"--at needs the curve, but metrics.csv has no {metric}"
    if kind == "bytes" and run.bytes_per_token is None:
        return "--at=bytes: its result.json has no bytes_per_token"
    if kind == "flops" and flops_per_token(run, estimated) == 0:
        return "--at=flops: it trains with 0 FLOPs, so it never reaches the budget"
    if kind == "seconds" and run.curve.seconds is None:
        return "--at=seconds: its metrics.csv has neither seconds nor tokens_per_second"
    return ""


def curve_of(run: Run, metric: str) -> Curve:
    """Return the finite values of a run's curve; the run must have one."""
    assert run.curve is not None
    return run.curve.finite(metric)


def cost(run: Run, curve: Curve, kind: str, estimated: bool) -> Floats:
    """Return the cost at each validation (K,), in the unit of `kind`."""
    tokens = curve.steps * (run.tokens / run.steps)
    if kind == "seconds":
        assert curve.seconds is not None
        return curve.seconds
    rate = {"tokens": 1.0, "bytes": run.bytes_per_token, "flops": flops_per_token(run, estimated)}[kind]
    return tokens * (np.nan if rate is None else rate)


def read_at(run: Run, metric: str, kind: str, budget: float, estimated: bool) -> Reading:
    """Return a run's reading at a budget, linear between two validations."""
    curve = curve_of(run, metric)
    step = float(np.interp(budget, cost(run, curve, kind, estimated), curve.steps))
    tokens = step * run.tokens / run.steps
    values = curve.metrics[metric]
    value = float(np.interp(step, curve.steps, values))
    seconds = run.seconds * step / run.steps
    return Reading(
        run=run,
        value=value,
        best=(max if metric in HIGHER else min)(value, *values[curve.steps <= step]),
        steps=step,
        tokens=tokens,
        flops=tokens * flops_per_token(run, estimated),
        nbytes=None if run.bytes_per_token is None else tokens * run.bytes_per_token,
        seconds=seconds if curve.seconds is None else float(np.interp(step, curve.steps, curve.seconds)),
    )
