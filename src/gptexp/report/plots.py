"""The plots of a comparison: curves, ablation, Pareto frontier, and where a difference lies."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, Formatter, FuncFormatter, MaxNLocator, NullLocator
from rich.cells import cell_len

from gptexp.config.objective import HIGHER
from gptexp.report import naming, series
from gptexp.report.comparison import Comparison, Row
from gptexp.report.style import Look, figure, literal, looks, picture, styled
from gptexp.report.where_plot import where_figure
from gptexp.util.text import printable

LETTERS_PER_INCH = 11  # of a legend's font
LEGEND_LINE = 44  # letters
MOST_LINES = 4  # of a name in a legend
SHORT = 8  # validations; a shorter curve is drawn completely
MOST_CURVES = 12  # more cannot be distinguished
PANELS = (
    ("steps", "optimizer steps"),
    ("tokens", "training tokens"),
    ("seconds", "training time (s)"),
    ("flops", "training compute (FLOPs)"),
)
FORMATS: dict[str, Callable[[], Formatter]] = {
    "steps": lambda: EngFormatter(sep=""),
    "tokens": lambda: EngFormatter(sep=""),
    "seconds": lambda: FuncFormatter(lambda value, _: f"{value:,g}"),
    "flops": lambda: FuncFormatter(_power_of_ten),
}


def plots(c: Comparison, forms: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """Return the files by name. forms: of png, pdf and svg."""
    with styled():
        made = {"curves": curves(c), "ablation": ablation(c), "pareto": pareto(c)}
        made |= {"where": where_figure(c.where)} if c.where else {}
        return {f"{name}.{form}": picture(fig, form) for form in forms for name, fig in made.items()}


def axis_label(metric: str) -> str:
    """Return the label of an axis, such as `validation loss (nats)`; the notes state nats per token or per text."""
    names = {"val/bpb": "validation (bits per byte)", "val/loss": "validation loss (nats)"}
    return names.get(metric, "validation perplexity" if metric == "val/perplexity" else literal(metric))


def _looks(c: Comparison) -> dict[int, Look]:
    """A look for each row by its id(), the same in every plot."""
    ordered = len(c.keys) == 1 and all(naming.number(row.settings.get(c.keys[0])) is not None for row in c.rows)
    return {id(row): look for row, look in zip(c.rows, looks(len(c.rows), ordered), strict=True)}


# ---------------------------------------------------------------------------------- curves


def curves(c: Comparison) -> Figure:
    """Draw the metric against steps, tokens, seconds and FLOPs; a band spans the seeds."""
    rows, look = _best_rows(c), _looks(c)
    names = [_wrapped(row.label) for row in rows]
    fig, axes = figure(10, 7.4 + _legend_inches(names, _columns(names, 10)), 2, 2)
    for ax, (kind, name) in zip(axes, PANELS, strict=True):
        _draw_panel(ax, c, rows, look, kind)
        ax.set_xlabel(name + (", estimated" if kind == "flops" and c.flops_estimated else ""))
        ax.set_ylabel(axis_label(c.metric))
    drawable = sum(bool(row.readings) for row in c.rows)
    title = f"the best {MOST_CURVES} of {drawable}, and the baseline" if len(rows) < drawable else ""
    _legend(fig, [_handle(look[id(row)]) for row in rows], names, title)
    return fig


def _draw_panel(ax: Axes, c: Comparison, rows: Sequence[Row], look: dict[int, Look], kind: str) -> None:
    bands = [(row, series.band(row, c.metric, kind, c.flops_estimated)) for row in rows]
    drawn = [(row, band) for row, band in bands if band is not None]
    for row, band in drawn:
        _draw_band(ax, band, look[id(row)])
    _focus(ax, [band for _, band in drawn])
    ax.xaxis.set_major_formatter(FORMATS[kind]())
    ax.xaxis.set_major_locator(MaxNLocator(5))
    if not drawn:
        ax.text(0.5, 0.5, "no curve to draw", transform=ax.transAxes, ha="center")


def _best_rows(c: Comparison) -> list[Row]:
    """The best MOST_CURVES rows and the baseline, in the order of the table."""
    known = sorted((row for row in c.rows if row.readings), key=_mean, reverse=c.metric in HIGHER)
    kept = {id(row) for row in known[:MOST_CURVES]} | {id(c.baseline)}
    return [row for row in c.rows if id(row) in kept]


def _mean(row: Row) -> float:
    """The mean of the metric, or nan if all runs of the row diverged."""
    return math.nan if row.interval.mean is None else row.interval.mean


def _draw_band(ax: Axes, band: series.Band, look: Look) -> None:
    ax.plot(
        band.x, band.mean, look.line, color=look.colour, marker=look.marker, markevery=max(1, len(band.x) // 8), ms=5
    )
    ax.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.2, linewidth=0)


def _focus(ax: Axes, bands: Sequence[series.Band]) -> None:
    """Set the limits of y without the steep decrease at the start, so that the ends can be distinguished."""
    if not bands:
        return
    low = min(band.low.min() for band in bands)
    high = max(float(band.high[len(band.high) // 4 if len(band.high) >= SHORT else 0]) for band in bands)
    margin = 0.06 * (high - low) or 0.01 * abs(low) or 1.0
    ax.set_ylim(low - margin, high + margin)


def _power_of_ten(value: float, _: object = None) -> str:
    """Return a number as 1.5·10⁹."""
    if value == 0:
        return "0"
    exponent = int(np.floor(np.log10(abs(value))))
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = f"{value / 10.0**exponent:.2g}"
    return f"10{raised}" if factor == "1" else f"{factor}·10{raised}"


def _legend(fig: Figure, handles: Sequence[Any], names: Sequence[str], title: str = "") -> None:
    """Draw a legend below the axes, in as many columns as fit the width of the figure."""
    columns = _columns(names, fig.get_figwidth())
    fig.legend(
        handles, [literal(name) for name in names], loc="outside lower center", ncols=columns, title=title or None
    )


def _columns(names: Sequence[str], width: float) -> int:
    longest = max(cell_len(line) for name in names for line in name.split("\n"))
    return max(1, min(len(names), int(LETTERS_PER_INCH * width) // (longest + 8)))


def _legend_inches(names: Sequence[str], columns: int) -> float:
    """The additional height of a figure for its legend; the height includes two lines."""
    tallest = max(name.count("\n") + 1 for name in names)
    return 0.22 * max(0, tallest * -(-len(names) // columns) - 2)


def _wrapped(text: str) -> str:
    """A name broken into lines for a legend; a name above MOST_LINES lines is cut."""
    lines = textwrap.wrap(printable(text), LEGEND_LINE, max_lines=MOST_LINES, placeholder=" …", break_on_hyphens=False)
    return "\n".join(lines) or text


def _handle(look: Look, **style: Any) -> Line2D:
    return Line2D([], [], **{"color": look.colour, "marker": look.marker, "linestyle": look.line, **style})


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 + 1 :]}"


# ---------------------------------------------------------------------------------- ablation


REFERENCE: dict[str, Any] = {"color": "#888888", "linewidth": 1.6, "linestyle": "--"}
UNITS_OF = {
    "model.block_size": "tokens",
    "tokenizer.vocab_size": "tokens",
    "data.global_batch_size": "windows per step",
    "data.global_batch_tokens": "tokens per step",
    "trainer.max_steps": "steps",
    "trainer.max_tokens": "tokens",
    "trainer.max_flops": "FLOPs",
    "trainer.tokens_per_parameter": "tokens per parameter",
}


def ablation(c: Comparison) -> Figure:
    """Draw the metric against the swept setting: the mean, its 95% interval, and each seed as a circle."""
    axis = series.axis(c)
    place = {id(row): x for row, x in zip(c.rows, axis.x, strict=True)}
    width = 6.4 if axis.numeric else min(20.0, max(6.4, 0.5 * len(axis.ticks)))  # inches
    groups = [_wrapped(name) for name in axis.groups]
    named = 1 < len(groups) <= MOST_CURVES
    fig, (ax,) = figure(width, 4.4 + (_legend_inches(groups, _columns(groups, width)) if named else 0))
    for index, ((name, rows), look) in enumerate(zip(axis.groups.items(), looks(len(axis.groups), False), strict=True)):
        shift = 0.0 if axis.numeric else 0.12 * (index - (len(axis.groups) - 1) / 2)
        _draw_group(ax, [row for row in rows if row.readings], place, shift, look, name, joined=axis.numeric)
    if c.is_ablation:
        ax.axhline(_mean(c.baseline), **REFERENCE, zorder=1)
    _set_x(ax, axis, width)
    ax.set_xlabel(literal(axis.name) + (f" ({units})" if (units := UNITS_OF.get(axis.key)) else ""))
    ax.set_ylabel(_with_budget(c))
    if named:
        _legend(fig, ax.get_legend_handles_labels()[0], groups)
    return fig


def _draw_group(
    ax: Axes, rows: Sequence[Row], place: dict[int, float], shift: float, look: Look, name: str, *, joined: bool
) -> None:
    x = [place[id(row)] + shift for row in rows]
    means = [_mean(row) for row in rows]
    for at, row in zip(x, rows, strict=True):
        if len(row.readings) > 1:
            ax.plot(
                [at] * len(row.readings), list(row.values.values()), "o", mec=look.colour, mfc="white", ms=4, zorder=3
            )
    ax.errorbar(
        x,
        means,
        yerr=_bars(rows),
        fmt=look.marker,
        linestyle=look.line if joined else "none",
        color=look.colour,
        capsize=4,
        elinewidth=1.4,
        label=literal(_wrapped(name)) if name else None,
    )


def _bars(rows: Sequence[Row]) -> list[list[float]]:
    """The lengths of the error bars below and above the mean; 0 for a single seed."""
    spans = [(row.interval.low, row.interval.mean, row.interval.high) for row in rows]
    return [
        [0.0 if low is None or mean is None else mean - low for low, mean, _ in spans],
        [0.0 if high is None or mean is None else high - mean for _, mean, high in spans],
    ]


def _set_x(ax: Axes, axis: series.Axis, width: float) -> None:
    if axis.log:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_minor_locator(NullLocator())
    if not axis.numeric or len(axis.ticks) <= 10:
        ax.xaxis.set_major_locator(FixedLocator(sorted(axis.ticks)))
        names = [_lines(axis.ticks[at]) for at in sorted(axis.ticks)]
        crowded = len(names) * max(len(line) for name in names for line in name.split("\n")) > 9.7 * width
        ax.set_xticklabels(names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    if not axis.numeric:
        ax.set_xlim(min(axis.x) - 0.5, max(axis.x) + 0.5)


def _lines(tick: str) -> str:
    return "\n".join(literal(_shortened(part, 30)) for part in tick.split(series.JOIN))


def _with_budget(c: Comparison) -> str:
    return axis_label(c.metric) + (f", at equal {c.question.at}" if c.question.at else "")


# ---------------------------------------------------------------------------------- pareto


OTHERS = Look("#bbbbbb", ".", "-")  # of the configurations that the legend does not name


def pareto(c: Comparison) -> Figure:
    """Draw the metric against compute; the line joins the configurations on the Pareto frontier."""
    rows, look = [row for row in c.rows if row.readings], _looks(c)
    named = [row for row in _best_rows(c) if row.readings]
    names = ["frontier", *(_wrapped(row.label) for row in named)]
    fig, (ax,) = figure(6.4, 4.8 + _legend_inches(names, _columns(names, 6.4)))
    points = [(row.mean("flops") or 0.0, _mean(row)) for row in rows]
    edge = np.array(series.frontier(points, higher=c.metric in HIGHER))
    ax.step(edge[:, 0], edge[:, 1], where="post", **REFERENCE, zorder=1)
    for row, (x, y) in zip(rows, points, strict=True):
        style = look[id(row)] if row in named else OTHERS
        ax.errorbar([x], [y], yerr=_bars([row]), fmt=style.marker, color=style.colour, capsize=3, elinewidth=1.1, ms=8)
    _log_axis(ax, [x for x, _ in points])
    ax.set_xlabel("training compute (FLOPs" + (", estimated as 6 N D)" if c.flops_estimated else ")"))
    ax.set_ylabel(_with_budget(c))
    handles = [Line2D([], [], **REFERENCE), *(_handle(look[id(row)], linestyle="none", ms=8) for row in named)]
    _legend(fig, handles, names)
    return fig


def _log_axis(ax: Axes, values: Sequence[float]) -> None:
    """Set a logarithmic axis with readable ticks; 0, the cost of a bigram, gets a position at the left."""
    above = [value for value in values if value > 0]
    if not above:
        return
    low, high = min(above) * 0.8, max(above) * 1.25
    zero = len(above) < len(values)
    if zero:
        ax.set_xscale("symlog", linthresh=low, linscale=0.5)
    else:
        ax.set_xscale("log")
    ax.set_xlim(-low / 4 if zero else low, high)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
    ticks = ticks if len(ticks) > 1 else [min(above), max(above)]
    ax.xaxis.set_major_locator(FixedLocator([0.0, *ticks] if zero else ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    ax.xaxis.set_minor_locator(NullLocator())
