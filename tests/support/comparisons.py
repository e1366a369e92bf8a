"""Comparisons of made run folders: helpers of the tests of the report."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from gptexp.report.comparison import Comparison, Question, compare_folders
from gptexp.report.table import print_comparison
from support.run_folders import make_run


def flat(t: float) -> float:
    """A straight curve, so that interpolation is exact."""
    return 1.0 - t


def asked(place: Path, **question: Any) -> Comparison:
    return compare_folders([place], Question(**question))


def reasons(c: Comparison) -> dict[str, str]:
    return {excluded.folder.name: excluded.reason for excluded in c.left_out}


def text_of(c: Comparison, width: int = 80) -> str:
    file = io.StringIO()
    print_comparison(Console(width=width, file=file, highlight=False, no_color=True), c)
    return file.getvalue()


def two_by_three(place: Path, **second: Any) -> None:
    """n_layer 2 and 4 with seeds 1, 2, 3; gaps -0.1, -0.2, -0.3."""
    for seed, value in ((1, 2.0), (2, 2.1), (3, 2.2)):
        make_run(place / f"a{seed}", value, seed=seed)
        make_run(place / f"b{seed}", value - seed / 10, seed=seed, **{"model__n_layer": 4, **second})
