"""The report of a scaling law: a table on the terminal, scaling.json and scaling.png."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gptexp.report.plots import axis_label
from gptexp.report.scaling import PAIRS_FROM, SAME, Floats, Law
from gptexp.report.style import figure, looks, picture, styled
from gptexp.report.table import print_left_out
from gptexp.util.text import quantity

MOST_LINES = 7  # curves in a panel
WIDE = 10.0  # an interval whose ends differ by more than this factor does not determine the constant
RESAMPLED = {
    "pairs": f"intervals: whole runs resampled, because there are {PAIRS_FROM} runs or more; valid if the noise "
    "differs between sizes",
    "residuals": f"intervals: residuals resampled, because there are fewer than {PAIRS_FROM} runs; too narrow if the "
    "noise differs between sizes",
}
NOTES = (
    "C = 6 N D; N counts all parameters, D counts repeated tokens again",
    "the law is valid for the text, tokenizer, schedule and learning-rate rule of these runs",
)


def to_json(law: Law, budget: float | None) -> str:
    """Return the constants, their intervals and the optimum for a budget in FLOPs (None: the largest run's) as JSON."""
    flops = budget or law.largest
    n, d = law.constants.optimum(flops)
    spans = law.optimum_spans(flops)
    value = {
        "metric": law.metric,
        "form": "L(N, D) = E + A / N^alpha + B / D^beta",
        "points": law.n.size,
        "group": law.group or None,
        "resampled": law.resampled,
        "constants": asdict(law.constants),
        "intervals": law.intervals,
        "optimum": {
            "flops": flops,
            "parameters": n,
            "tokens": d,
            "intervals": {"parameters": _finite(spans[0]), "tokens": _finite(spans[1])},
        },
    }
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _finite(span: tuple[float, float]) -> list[float | None]:
    return [bound if math.isfinite(bound) else None for bound in span]


def print_law(console: Console, law: Law, budget: float | None) -> None:
    """Print the constants with their intervals, and the best size for a budget in FLOPs (None: the largest run's)."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("constant")
    table.add_column("fit", justify="right")
    table.add_column("95% interval", justify="right")
    for name, value in asdict(law.constants).items():
        low, high = law.intervals[name]
        table.add_row(name, f"{value:.4g}", f"{low:.4g} … {high:.4g}")
    summary = (
        f"{law.metric} = E + A / N^alpha + B / D^beta · {law.n.size} runs · {quantity(law.n.min())} to "
        f"{quantity(law.n.max())} parameters · {quantity(law.d.min())} to {quantity(law.d.max())} tokens"
    )
    console.print(Text(f"{summary}\n"))
    console.print(table)
    console.print()
    group = [law.group] if law.group else []
    optimum = _optimum_lines(law, budget or law.largest)
    for line in [*optimum, *_undetermined(law), *group, RESAMPLED[law.resampled], *NOTES]:
        console.print(Text(line))
    print_left_out(console, law.left_out)


def _undetermined(law: Law) -> list[str]:
    names = [name for name, (low, high) in law.intervals.items() if high > WIDE * low]
    if not names:
        return []
    return [f"not determined by these runs: {', '.join(names)}; train more sizes, or a wider range of them"]


def _optimum_lines(law: Law, flops: float) -> list[str]:
    n, d = law.constants.optimum(flops)
    (n_low, n_high), (d_low, d_high) = law.optimum_spans(flops)
    lines = [
        f"best for {flops:.2g} FLOPs: {quantity(n)} parameters ({quantity(n_low)} to {quantity(n_high)}), "
        f"{quantity(d)} tokens ({quantity(d_low)} to {quantity(d_high)}), {law.metric} {law.constants.loss(n, d):.3f}"
    ]
    beyond = flops / law.largest
    if beyond > 2:
        lines.append(f"that is {beyond:.3g} times the compute of the largest run: an extrapolation")
    return lines


def scaling_plots(law: Law, forms: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """Return the files by name. Two panels show the metric against N at several D, and against D at several N."""
    with styled():
        fig, (left, right) = figure(10.5, 4.6, 1, 2)
        _panel(left, law, law.n, law.d, "tokens", by_size=True)
        _panel(right, law, law.d, law.n, "parameters", by_size=False)
        left.set_xlabel("parameters N")
        right.set_xlabel("training tokens D")
        for ax in (left, right):
            ax.set_ylabel(axis_label(law.metric))
        return {f"scaling.{form}": picture(fig, form) for form in forms}


def _panel(ax: Axes, law: Law, x: Floats, fixed: Floats, unit: str, *, by_size: bool) -> None:
    values = _some_values(fixed)
    grid = np.geomspace(x.min(), x.max(), 100)
    for value, look in zip(values, looks(len(values), True), strict=True):
        at = np.abs(np.log(fixed / value)) < np.log(SAME)
        held = np.full_like(grid, value)
        ax.plot(grid, law.constants.loss(grid, held) if by_size else law.constants.loss(held, grid), color=look.colour)
        ax.plot(x[at], law.losses[at], look.marker, color=look.colour, label=f"{quantity(value)} {unit}")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if x.max() > 30 * x.min() else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend()


def _some_values(values: Floats) -> list[float]:
    """The distinct values, or MOST_LINES of them, evenly spaced."""
    ordered = [float(value) for value in np.sort(values)]
    distinct = ordered[:1]
    for value in ordered:
        if value > SAME * distinct[-1]:
            distinct.append(value)
    if len(distinct) <= MOST_LINES:
        return distinct
    return [distinct[index] for index in np.linspace(0, len(distinct) - 1, MOST_LINES).round().astype(int)]
