"""The numbers in the plots: curves over seeds, the axis of an ablation, the Pareto frontier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gptexp.report import naming
from gptexp.report.budget import cost, curve_of
from gptexp.report.comparison import Comparison, Row
from gptexp.report.curves import Floats
from gptexp.report.reading import Run

JOIN = "\n"  # between the parts of a tick label; values contain no line breaks
LOG_RATIO = 8  # values that span more than this are drawn on a logarithmic axis


@dataclass(frozen=True)
class Band:
    """A configuration's curve: the mean over seeds at K points, and the lowest and the highest seed."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


def band(row: Row, metric: str, kind: str, estimated: bool) -> Band | None:
    """Return the curves of a configuration's seeds as one band, or None if no run has values for this cost.

    kind: steps, tokens, seconds or flops. Seeds are averaged at equal steps in the range that all of them cover; x is
    also a mean.
    """
    runs = [reading.run for reading in row.readings if _drawable(reading.run, metric, kind)]
    if not runs:
        return None
    curves = [curve_of(run, metric) for run in runs]
    first, last = max(c.steps[0] for c in curves), min(c.steps[-1] for c in curves)
    steps = np.unique(np.concatenate([c.steps for c in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    if not steps.size:
        return None
    values = np.stack([np.interp(steps, c.steps, c.metrics[metric]) for c in curves])
    costs = [c.steps if kind == "steps" else cost(run, c, kind, estimated) for run, c in zip(runs, curves, strict=True)]
    x = np.stack([np.interp(steps, c.steps, spent) for c, spent in zip(curves, costs, strict=True)])
    return Band(x.mean(axis=0), values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def _drawable(run: Run, metric: str, kind: str) -> bool:
    if run.curve is None or metric not in run.curve.metrics or not run.curve.finite(metric).steps.size:
        return False
    return kind != "seconds" or run.curve.seconds is not None


@dataclass(frozen=True)
class Axis:
    """The x axis of an ablation.

    key: the setting, or "" if each configuration has a position. x: the position of each row. ticks: the label at
    each position. groups: the rows that a line joins, by label.
    """

    key: str
    name: str
    x: list[float]
    ticks: dict[float, str]
    numeric: bool
    log: bool
    groups: dict[str, list[Row]]


def axis(c: Comparison) -> Axis:
    """Return the axis of an ablation: the first setting of --by, else the numeric setting with the most values.

    The other settings distinguish lines. If no setting places all configurations, each one gets a position.
    """
    if c.is_ablation:
        return _categories("", "what is changed", [row.label for row in c.rows], {"": list(c.rows)})
    key = c.by[0] if c.by else _most_varied(c)
    if key is None:
        names = naming.short_names(c.keys)
        return _categories("", ", ".join(names.values()), [_joined(row, c.keys) for row in c.rows], {"": list(c.rows)})
    others = [other for other in c.keys if other != key]
    groups: dict[str, list[Row]] = {}
    for row in c.rows:
        groups.setdefault(naming.label(row.settings, others) if others else "", []).append(row)
    name = naming.short_names(c.keys)[key]
    numbers = [naming.number(row.settings.get(key)) for row in c.rows]
    x = [value for value in numbers if value is not None]
    if len(x) < len(numbers):
        return _categories(key, name, [naming.value_in(row.settings, key) for row in c.rows], groups)
    ticks = {value: naming.value_in(row.settings, key) for value, row in zip(x, c.rows, strict=True)}
    return Axis(key, name, x, ticks, True, min(x) > 0 and max(x) >= LOG_RATIO * min(x), groups)


def _joined(row: Row, keys: Sequence[str]) -> str:
    """The values of a configuration, one per line: `bpe`, `512`."""
    values = [naming.value_in(row.settings, key) for key in keys]
    return JOIN.join(value for value in values if value != naming.ABSENT) or row.label


def _most_varied(c: Comparison) -> str | None:
    """The numeric setting with the most values, or the only setting."""
    numeric = [key for key in c.keys if all(naming.number(row.settings.get(key)) is not None for row in c.rows)]
    if numeric:
        return max(numeric, key=lambda key: len({row.settings[key] for row in c.rows}))
    return c.keys[0] if len(c.keys) == 1 else None


def _categories(key: str, name: str, values: Sequence[str], groups: dict[str, list[Row]]) -> Axis:
    places = {value: float(index) for index, value in enumerate(dict.fromkeys(values))}
    ticks = {place: value for value, place in places.items()}
    return Axis(key, name, [places[value] for value in values], ticks, False, False, groups)


def frontier(points: Sequence[tuple[float, float]], *, higher: bool = False) -> list[tuple[float, float]]:
    """Return the undominated points of (cost, metric), by rising cost. higher: whether a higher metric is better."""
    sign = -1 if higher else 1
    best, kept = np.inf, []
    for spent, value in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if sign * value < best:
            kept.append((spent, value))
            best = sign * value
    return kept
