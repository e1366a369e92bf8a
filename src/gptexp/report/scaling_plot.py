"""scaling.png: the runs and the fitted law, against parameters and against tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from gptexp.report.plots import axis_label
from gptexp.report.scaling import SAME, Floats, Law
from gptexp.report.style import figure, looks, picture, styled
from gptexp.util.text import quantity

MOST_LINES = 7


def scaling_plots(law: Law, forms: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """The files, by name. Two panels: the metric against N at several D, and against D at several N."""
    with styled():
        fig, (left, right) = figure(10.5, 4.6, 1, 2)
        _panel(left, law, law.n, law.d, "tokens", by_size=True)
        _panel(right, law, law.d, law.n, "parameters", by_size=False)
        left.set_xlabel("parameters N")
        right.set_xlabel("training tokens D")
        for ax in (left, right):
            ax.set_ylabel(axis_label(law.metric))
        return {f"scaling.{form}": picture(fig, form) for form in forms}


def _panel(ax: Axes, law: Law, x: Floats, fixed: Floats, word: str, *, by_size: bool) -> None:
    values = _rungs(fixed)
    grid = np.geomspace(x.min(), x.max(), 100)
    for value, look in zip(values, looks(len(values), True), strict=True):
        at = np.abs(np.log(fixed / value)) < np.log(SAME)
        held = np.full_like(grid, value)
        ax.plot(grid, law.constants.loss(grid, held) if by_size else law.constants.loss(held, grid), color=look.colour)
        ax.plot(x[at], law.losses[at], look.marker, color=look.colour, label=f"{quantity(value)} {word}")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if x.max() > 30 * x.min() else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend()


def _rungs(values: Floats) -> list[float]:
    """The distinct values, or some of them spread evenly."""
    ordered = [float(value) for value in np.sort(values)]
    distinct = ordered[:1]
    for value in ordered:
        if value > SAME * distinct[-1]:
            distinct.append(value)
    if len(distinct) <= MOST_LINES:
        return distinct
    return [distinct[index] for index in np.linspace(0, len(distinct) - 1, MOST_LINES).round().astype(int)]
