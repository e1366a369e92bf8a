"""A small version of benchmarks/judge_calibration.py: errors over whole nights, with the decisions of the command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptexp.studies.online import FDR, FWER, Rules

FOLDER = Path(__file__).parents[2] / "benchmarks"
NIGHTS, IDEAS = 400, 40


@pytest.fixture
def calibration(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the program as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("judge_calibration")
    for name in ("judge_calibration", "record"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("noise", ["normal", "t2.5"])
def test_share_of_useless_ideas_among_kept_is_at_most_alpha(calibration: Any, noise: str) -> None:
    control = Rules(control=FDR, alpha=0.2, ideas=IDEAS)
    for useful in (0.0, 0.2):
        counts = calibration.simulate(noise, control, useful, nights=NIGHTS, ideas=IDEAS, most=20)
        share, error = counts.fdr
        assert share <= 0.2 + 3 * error
    assert counts.kept.mean() > 3
    found = calibration.figures(counts)
    assert found["power"]["2"] > 0.9
    assert found["shallow"] > 0.5


@pytest.mark.parametrize("noise", ["normal", "t2.5"])
def test_chance_of_any_useless_idea_is_at_most_alpha(calibration: Any, noise: str) -> None:
    control = Rules(control=FWER, alpha=0.2, ideas=IDEAS)
    counts = calibration.simulate(noise, control, 0.1, nights=NIGHTS, ideas=IDEAS, most=20)
    chance, error = counts.fwer
    assert 0 < chance <= 0.2 + 3 * error
    assert counts.kept.mean() > 1


def test_sharing_base_runs_costs_less_than_running_the_base_each_time(calibration: Any) -> None:
    counts = calibration.simulate("normal", Rules(ideas=IDEAS), 0.0, nights=50, ideas=IDEAS, most=20)
    pairs = sum(rows.sum() for rows in counts.pairs[0.0]) / 50
    assert counts.runs.mean() < 4 + 1.6 * pairs
