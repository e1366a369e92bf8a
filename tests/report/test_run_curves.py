"""curves.png of a run: drawn at its end; errors do not affect the run."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from gptexp.report import run_curves
from gptexp.report.run_curves import _picture, draw_run
from support.run_folders import make_run
from support.runs import TINY_GPT


def test_a_run_gets_its_curves_at_its_end(
    train_here: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_curves, "_picture", _picture)  # other tests draw nothing
    train_here(*TINY_GPT, "trainer.max_steps=4")
    drawn = Path("run/curves.png").read_bytes()
    assert struct.unpack(">II", drawn[16:24]) == (1280, 800)
    assert len(drawn) > 1000


def test_both_losses_are_drawn_and_one_validation_is_not_a_curve(tmp_path: Path) -> None:
    series = run_curves._series(make_run(tmp_path / "a", 2.0))
    assert sorted(series) == ["train/loss", "val/loss"]
    assert [step for step, _ in series["val/loss"]] == list(range(10, 101, 10))
    draw_run(make_run(tmp_path / "b", 2.0, trainer__max_steps=10))
    assert not (tmp_path / "b/curves.png").exists()


def test_an_error_while_plotting_does_not_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "a", 2.0)
    monkeypatch.setattr(run_curves, "_picture", lambda _: 1 / 0)
    draw_run(run)
    (run / "metrics.csv").write_text("step,val/loss\nx,y\n")
    draw_run(run)
    (run / "metrics.csv").unlink()
    draw_run(run)
    assert not (run / "curves.png").exists()


def test_plotting_is_imported_only_at_the_end_of_a_run() -> None:
    code = (
        "import sys, gptexp.report.run_curves; print([m for m in sys.modules if m.startswith(('matplotlib', 'scipy'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "[]\n", done.stderr
