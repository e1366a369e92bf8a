"""What a run reached, and at what cost: at its end, or where its curve crosses a budget that all reached."""

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


@dataclass(frozen=True)
class Reading:
    """A run's metric at some step, and what it had cost until then.

    flops: floating-point operations of training, see `flops_per_token`. nbytes: of training text, None if unknown.
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
    """Whether a run hasn't recorded its FLOPs; then all are estimated, so that one rule holds for all."""
    return any(run.flops_per_token is None for run in runs)


def flops_per_token(run: Run, estimated: bool) -> float:
    """As recorded; or 6 for each parameter (arXiv 2001.08361, section 2.1), which leaves out attention's scores."""
    return 6.0 * run.parameters if estimated or run.flops_per_token is None else run.flops_per_token


def at_end(runs: Sequence[Run], metric: str) -> list[Reading]:
    """Each run at its last step."""
    estimated = flops_are_estimated(runs)
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
    """The largest budget that every run reached, each run's curve read there, and runs where it can't be read.

    Args:
        kind: tokens, bytes, flops or seconds.

    Raises:
        NotComparable: no run can be read so.
    """
    estimated = flops_are_estimated(runs)
    refused = {run.folder: why for run in runs if (why := _why_not(run, metric, kind, estimated))}
    able = [run for run in runs if run.folder not in refused]
    if not able:
        why = next(iter(refused.values()), "no runs")
        raise NotComparable(f"--at={kind}: no run can be read so; the first: {why}")
    budget = min(cost(run, curve_of(run, metric), kind, estimated)[-1] for run in able)
    readings = []
    for run in able:
        spent = cost(run, curve_of(run, metric), kind, estimated)
        if spent[0] > budget:
            refused[run.folder] = f"its first validation comes after {amount(kind, budget)}, where the others are read"
        else:
            readings.append(_read(run, metric, float(np.interp(budget, spent, curve_of(run, metric).steps)), estimated))
    return (
        budget,
        readings,
        [LeftOut(run.folder, refused[run.folder], run.settings) for run in runs if run.folder in refused],
    )


def time(seconds: float) -> str:
    """4.2 s, 1:15, 2:03:10."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def amount(kind: str, budget: float) -> str:
    """A budget in words."""
    if kind == "flops":
        return f"{budget:.2e} FLOPs"
    if kind == "seconds":
        return f"{time(budget)} of training"
    return f"{quantity(budget)} {'tokens' if kind == 'tokens' else 'bytes of training text'}"


def _why_not(run: Run, metric: str, kind: str, estimated: bool) -> str:
    if run.curve is None:
        return f"--at needs the curve, but {run.curve_problem}"
    if metric not in run.curve.metrics or not run.curve.finite(metric).steps.size:
        return f"--at needs the curve, but metrics.csv has no {metric}"
    if kind == "bytes" and run.bytes_per_token is None:
        return "--at=bytes: its result.json has no bytes_per_token"
    if kind == "flops" and flops_per_token(run, estimated) == 0:
        return "--at=flops: it trains with 0 FLOPs, so it spends no budget of them"
    if kind == "seconds" and run.curve.seconds is None:
        return "--at=seconds: its metrics.csv has neither seconds nor tokens_per_second"
    return ""


def curve_of(run: Run, metric: str) -> Curve:
    """The curve of a run that has one."""
    assert run.curve is not None
    return run.curve.finite(metric)


def cost(run: Run, curve: Curve, kind: str, estimated: bool) -> Floats:
    """What had been spent at each validation, in the unit of `kind`."""
    tokens = curve.steps * (run.tokens / run.steps)
    if kind == "seconds":
        assert curve.seconds is not None
        return curve.seconds
    rates = {"tokens": 1.0, "bytes": run.bytes_per_token, "flops": flops_per_token(run, estimated)}
    rate = rates[kind]
    return tokens * (np.nan if rate is None else rate)


def _read(run: Run, metric: str, step: float, estimated: bool) -> Reading:
    """Linear between two validations; the costs are those of this step."""
    curve = curve_of(run, metric)
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
