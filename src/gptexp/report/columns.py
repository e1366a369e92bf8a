"""The columns of the table: the numbers of a comparison as text, the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gptexp.config.objective import HIGHER
from gptexp.report import naming, statistics
from gptexp.report.budget import TOLERANCE, duration
from gptexp.report.comparable import base_of, schema_of
from gptexp.report.comparison import Comparison, Row
from gptexp.report.effects import Effect, Level
from gptexp.report.statistics import Difference, Interval
from gptexp.report.where import Bin
from gptexp.util.text import quantity

NOTHING = "–"
Format = Callable[[float], str]
TOKENS_MARK, FLOPS_MARK, SEEDS_MARK = "*", "†", "‡"


def better_side(metric: str) -> str:
    """Return "lower" or "higher"."""
    return "higher" if metric in HIGHER else "lower"


def unit_of(c: Comparison) -> str:
    """Return the unit of the metric, or "" for a metric without one."""
    return schema_of(c.runs[0]).units.get(base_of(c.metric), "")


@dataclass(frozen=True)
class Column:
    """A column of the table. kind: setting, result or cost."""

    name: str
    kind: str
    cells: list[str]


def columns(c: Comparison) -> list[Column]:
    """Return all columns, those of the settings first; more than MOST_COLUMNS settings share one column."""
    places = decimals(c)
    names = naming.short_names(c.keys)
    if 0 < len(c.keys) <= naming.MOST_COLUMNS:
        heads = [Column(names[key], "setting", [naming.value_in(r.settings, key) for r in c.rows]) for key in c.keys]
    else:
        heads = [Column("configuration", "setting", [row.label for row in c.rows])]
    needed = [Column("needed", "result", [_needed(row, c.comparisons) for row in c.rows])] if unsure(c) else []
    return [
        *heads,
        Column("seeds", "result", [_seeds(row) for row in c.rows]),
        Column(c.metric, "result", [_interval(row.interval, places, c.question.method) for row in c.rows]),
        Column("difference", "result", [_difference(row, c.baseline, places) for row in c.rows]),
        Column("p", "result", [p_value(row.p) for row in c.rows]),
        *needed,
        Column("parameters", "cost", [_or_nothing(row.parameters, quantity) for row in c.rows]),
        Column("tokens", "cost", [_marked(c, row, "tokens", quantity, TOKENS_MARK) for row in c.rows]),
        Column("FLOPs", "cost", [_marked(c, row, "flops", _flops(c), FLOPS_MARK) for row in c.rows]),
        Column("tokens/s", "cost", [_or_nothing(row.tokens_per_second, quantity) for row in c.rows]),
        Column("time", "cost", [_or_nothing(row.mean("seconds"), duration) for row in c.rows]),
    ]


def effect_columns(effect: Effect, places: int) -> list[Column]:
    """Return the columns of a main effect: one factor of a grid, averaged over the others."""
    return [
        Column(effect.name, "setting", [level.value for level in effect.levels]),
        Column("mean over the others", "result", [_interval(level.interval, places, "t") for level in effect.levels]),
        Column("difference", "result", [_effect_difference(level, places) for level in effect.levels]),
    ]


def where_tables(c: Comparison) -> list[tuple[str, list[Column]]]:
    """Return a caption and the columns of each table of --where: one for each split of each configuration."""
    return [
        (f"{one.label} against {one.baseline}, by {name}", _where_columns(name, [*bins, one.total]))
        for one in (c.where.located if c.where else ())
        for name, bins in one.splits.items()
    ]


def _where_columns(name: str, bins: Sequence[Bin]) -> list[Column]:
    return [
        Column(name, "setting", [part.label for part in bins]),
        Column("tokens", "result", [f"{part.share:.1%}" for part in bins]),
        Column("baseline", "result", [f"{part.baseline:.3f}" for part in bins]),
        Column("loss", "result", [f"{part.loss:.3f}" for part in bins]),
        Column("difference", "result", [_signed(part.difference, 3) for part in bins]),
        Column("contribution", "result", [f"{part.contribution:+.4f}" for part in bins]),
    ]


def _effect_difference(level: Level, places: int) -> str:
    return "first" if level.difference is None else _signed(level.difference, places)


def decimals(c: Comparison) -> int:
    """Return the decimals for two significant digits of the narrowest interval: 2 to 5, or 4 without intervals."""
    widths = [row.interval.half_width for row in c.rows if row.interval.half_width]
    return max(2, min(5, 1 - math.floor(math.log10(min(widths))))) if widths else 4


def _seeds(row: Row) -> str:
    return f"{len(row.readings)}{SEEDS_MARK if row.missing else ''}"


def _interval(interval: Interval, places: int, method: str) -> str:
    mean, half = interval.mean, interval.half_width
    if mean is None:
        return "diverged"
    if half is None:
        return f"{mean:.{places}f}"
    if method == "t":
        return f"{mean:.{places}f} ± {half:.{places}f}"
    return f"{mean:.{places}f} [{interval.low:.{places}f}, {interval.high:.{places}f}]"  # not symmetric


def _difference(row: Row, baseline: Row, places: int) -> str:
    if row is baseline:
        return "baseline"
    return NOTHING if row.difference is None else _signed(row.difference, places)


def _signed(d: Difference, places: int) -> str:
    half = "" if d.low is None or d.high is None else f" ± {(d.high - d.low) / 2:.{places}f}"
    return f"{d.mean:+.{places}f}{half}"


def p_value(p: float | None) -> str:
    """Return a p-value with three decimals, as papers print it."""
    if p is None:
        return NOTHING
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if abs(p - statistics.ALPHA) > 0.0005 else f"{p:.4f}"  # 0.0498 is below 0.05


def unsure(c: Comparison) -> list[Row]:
    """Return the rows whose tested difference to the baseline is not significant."""
    return [row for row in c.rows if row.p is not None and row.p >= statistics.ALPHA]


def _needed(row: Row, comparisons: int) -> str:
    """The seeds needed to detect the observed difference, at the strictest level of Holm's correction."""
    if row.p is None or row.p < statistics.ALPHA or row.difference is None:
        return NOTHING
    n = statistics.seeds_needed(row.difference, statistics.ALPHA / comparisons)
    tested = row.difference.n  # seeds of this row that the test uses
    has = f" (has {tested})" if tested != len(row.readings) else ""
    return (f">{statistics.MOST_SEEDS}" if n is None else str(n)) + has


def _or_nothing(value: float | None, form: Format) -> str:
    return NOTHING if value is None else form(value)


def _marked(c: Comparison, row: Row, cost: str, form: Format, mark: str) -> str:
    """A cost, marked if it differs from that of the baseline."""
    value, reference = row.mean(cost), c.baseline.mean(cost)
    text = _or_nothing(value, form)
    if value is None or reference is None or abs(value - reference) <= TOLERANCE * max(value, reference):
        return text
    return text + mark


def _flops(c: Comparison) -> Format:
    return lambda value: "0" if value == 0 else f"{'~' if c.flops_estimated else ''}{value:.1e}"
