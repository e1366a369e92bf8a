"""The norms of weights, gradients and updates that a run logged with trainer.log_norms=true."""

from __future__ import annotations

from pathlib import Path

from gptexp.inspection.view import NormGroup, NormsView
from gptexp.runs.layout import METRICS
from gptexp.runs.norms import GRADIENT, UPDATE, WEIGHT, column, in_order
from gptexp.util.files import read_rows

START = column(WEIGHT, "")


def logged_norms(folder: Path) -> NormsView | None:
    """Return the norms in metrics.csv of a run folder; None if there are none."""
    rows = read_rows(folder / METRICS) if (folder / METRICS).is_file() else []
    groups = in_order(name.removeprefix(START) for name in (rows[0] if rows else {}) if name.startswith(START))
    rows = [row for row in rows if any(row[column(WEIGHT, group)] for group in groups)]
    if not rows:
        return None

    def values(quantity: str, group: str) -> list[float | None]:
        found = [row.get(column(quantity, group)) for row in rows]
        return [float(value) if value else None for value in found]

    return NormsView(
        steps=[int(row["step"]) for row in rows],
        groups=[NormGroup(g, values(WEIGHT, g), values(GRADIENT, g), values(UPDATE, g)) for g in groups],
    )
