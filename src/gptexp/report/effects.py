"""Main effects of a grid: the metric at each value of a factor, averaged over the other factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gptexp.report import naming, statistics
from gptexp.report.comparison import Comparison, Row
from gptexp.report.statistics import Difference, Interval

LEAST_FACTORS = 2
Cell = tuple[str, ...]


@dataclass(frozen=True)
class Level:
    """A value of a factor. difference: to the first value of the factor, or None for that value."""

    value: str
    interval: Interval
    difference: Difference | None


@dataclass(frozen=True)
class Effect:
    """A factor. cells: the number of combinations of the others that all of its values have. over: "seeds" or
    "combinations", the sample of the intervals."""

    name: str
    levels: list[Level]
    cells: int
    over: str


def main_effects(c: Comparison) -> list[Effect]:
    """Return the effects of the factors of a grid, or [] if the configurations are not a grid."""
    if len(c.keys) < LEAST_FACTORS or c.is_ablation:
        return []
    effects = [effect for key in c.keys if (effect := _effect(c, key))]
    return effects if len(effects) >= LEAST_FACTORS else []


def _effect(c: Comparison, key: str) -> Effect | None:
    """The effect of a factor, averaged over the combinations that all its values have."""
    others = [other for other in c.keys if other != key]
    values: dict[str, dict[Cell, Row]] = {}
    for row in c.rows:
        cell = tuple(naming.value_in(row.settings, other) for other in others)
        if row.readings:
            values.setdefault(naming.value_in(row.settings, key), {})[cell] = row
    shared = set.intersection(*map(set, values.values())) if values else set()
    if len(values) < 2 or len(shared) < 2:
        return None
    cells = sorted(shared)
    seeds = set.intersection(*(set(rows[cell].values) for rows in values.values() for cell in cells))
    by_seed = len(seeds) > 1
    samples = {value: _samples(rows, cells, sorted(seeds), by_seed) for value, rows in values.items()}
    first = next(iter(samples.values()))
    levels = [
        Level(
            value,
            statistics.interval(list(sample.values())),
            None if sample is first else statistics.difference(sample, first),
        )
        for value, sample in samples.items()
    ]
    return Effect(naming.short_names(c.keys)[key], levels, len(cells), "seeds" if by_seed else "combinations")


def _samples(rows: Mapping[Cell, Row], cells: Sequence[Cell], seeds: Sequence[int], by_seed: bool) -> dict[int, float]:
    """The mean over the cells by seed; or each cell, if fewer than two seeds are shared."""
    if by_seed:
        return {seed: sum(rows[cell].values[seed] for cell in cells) / len(cells) for seed in seeds}
    means = (rows[cell].interval.mean for cell in cells)
    return {index: mean for index, mean in enumerate(means) if mean is not None}
