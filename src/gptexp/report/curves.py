"""Reads the validation curve of a run from metrics.csv."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptexp.runs.layout import METRICS
from gptexp.util.files import read_rows

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """K validations.

    steps: (K,), increasing. metrics: by name, (K,) each, nan if not finite.
    seconds: (K,) of training up to this step, or None. seconds_derived: whether from tokens_per_second.
    """

    steps: Floats
    metrics: dict[str, Floats]
    seconds: Floats | None
    seconds_derived: bool

    def finite(self, metric: str) -> Curve:
        """Return the validations at which this metric was finite."""
        keep = np.isfinite(self.metrics[metric])
        seconds = None if self.seconds is None else self.seconds[keep]
        values = {name: series[keep] for name, series in self.metrics.items()}
        return Curve(self.steps[keep], values, seconds, self.seconds_derived)


def read_curve(folder: Path, tokens_per_step: float) -> tuple[Curve | None, str]:
    """Return the curve and "", or None and what is wrong with the file."""
    try:
        return _curve(read_rows(folder / METRICS, strict=True), tokens_per_step), ""
    except FileNotFoundError:
        return None, f"it has no {METRICS}"
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
        return None, f"its {METRICS} is damaged: {what}"


def _curve(rows: list[dict[str, str]], tokens_per_step: float) -> Curve:
    if not rows:
        raise ValueError("no rows in it")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a row has too many or too few columns")
    steps = np.array([int(row["step"]) for row in rows], dtype=np.float64)
    if (np.diff(steps) <= 0).any() or steps[0] < 0:
        raise ValueError("its steps do not increase")
    names = [name for name in rows[0] if name.startswith("val/")]
    if not names:
        raise KeyError("val/loss")
    values = {name: _column(rows, name) for name in names}
    seconds, derived = _seconds(rows, steps, tokens_per_step)
    at = np.array([any(row[name] for name in names) for row in rows])
    if not at.any():
        raise ValueError("no validation in it")
    return Curve(
        steps[at], {name: v[at] for name, v in values.items()}, None if seconds is None else seconds[at], derived
    )


def _column(rows: list[dict[str, str]], name: str) -> Floats:
    """A column; nan for an empty cell or a number that is not finite."""
    column = np.array([float(row[name]) if row.get(name) else math.nan for row in rows])
    return np.where(np.isfinite(column), column, math.nan)


def _seconds(rows: list[dict[str, str]], steps: Floats, tokens_per_step: float) -> tuple[Floats | None, bool]:
    """Training seconds at each row, and whether they are derived from the rates because the run did not log them."""
    known = _column(rows, "seconds")
    has = np.isfinite(known)
    if has.any():
        if (np.diff(known[has]) < 0).any():
            raise ValueError("its seconds decrease")
        return np.interp(steps, np.concatenate([[0.0], steps[has]]), np.concatenate([[0.0], known[has]])), False
    rate = _column(rows, "tokens_per_second")
    has = rate > 0
    if not has.any():
        return None, True
    stretches = np.diff(steps[has], prepend=0.0) * tokens_per_step / rate[has]
    spent = np.concatenate([[0.0], np.cumsum(stretches)])
    return np.interp(steps, np.concatenate([[0.0], steps[has]]), spent), True
