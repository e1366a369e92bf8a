"""Draws curves.png of one run: its training and validation loss."""

from __future__ import annotations

import math
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from gptexp.runs.layout import CURVES, METRICS
from gptexp.util.files import atomic_write, read_rows

LEAST_VALIDATIONS = 2  # fewer make no curve


def draw_run(folder: Path) -> None:
    """Write curves.png next to metrics.csv if matplotlib is installed. An error here does not affect the run."""
    if find_spec("matplotlib") is None:
        return
    with suppress(Exception):
        series = _series(folder)
        if sum(name.startswith("val/") and len(points) >= LEAST_VALIDATIONS for name, points in series.items()):
            atomic_write(folder / CURVES, _picture(series))


def _series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each loss in metrics.csv."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in read_rows(folder / METRICS):
        for name, text in row.items():
            if name.endswith("loss") and text and math.isfinite(value := float(text)):
                found.setdefault(name, []).append((int(row["step"]), value))
    return found


def _picture(series: dict[str, list[tuple[int, float]]]) -> bytes:
    # matplotlib is imported only at the end of a run.
    from gptexp.report.style import COLOURS, figure, picture, styled

    with styled():
        fig, (ax,) = figure(6.4, 4.0)
        for name, colour in zip(sorted(series), COLOURS, strict=False):
            marker = "o" if name.startswith("val/") else ""
            ax.plot(*zip(*series[name], strict=True), color=colour, marker=marker, ms=4, label=name)
        ax.set(xlabel="optimizer steps", ylabel="loss (nats)")
        ax.legend()
        return picture(fig)
