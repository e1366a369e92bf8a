"""Comparisons at equal tokens, bytes, FLOPs or seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("scipy")

from gptexp.util.errors import RunError
from support.comparisons import asked, flat, reasons, text_of
from support.run_folders import make_run


def test_at_tokens_reads_the_curve_between_validations(tmp_path: Path) -> None:
    """150 steps of the long run lie between the validations at 140 and 160; its curve is 2 + (1 - t) there."""
    make_run(tmp_path / "short", 2.0, curve=flat, trainer__max_steps=150, trainer__val_every_steps=50)
    make_run(tmp_path / "long", 1.0, curve=flat, trainer__max_steps=400, trainer__val_every_steps=20)
    c = asked(tmp_path, at="tokens")
    assert c.budget == 150 * 8 * 64
    assert c.rows[0].values == {1: pytest.approx(2.0)}
    assert c.rows[1].values == {1: pytest.approx(1.0 + 1 - 150 / 400)}
    assert c.rows[1].mean("tokens") == c.budget
    assert "tokens" not in c.unequal
    text = text_of(c)
    assert "read at 77k tokens, the most that all runs reached" in text
    assert "read before the end of their schedules, which is a disadvantage: max_steps 400" in text


def test_with_a_constant_rate_any_point_of_a_curve_is_comparable(tmp_path: Path) -> None:
    for name, steps in (("short", 150), ("long", 400)):
        make_run(tmp_path / name, 2.0, curve=flat, trainer__max_steps=steps, schedule__kind="constant")
    text = text_of(asked(tmp_path, at="tokens"))
    assert "read at 77k tokens" in text
    assert "their schedules" not in text


@pytest.mark.parametrize("logged", [True, False], ids=["seconds column", "derived"])
def test_at_seconds_reads_curves_at_the_end_of_the_slower_run(tmp_path: Path, logged: bool) -> None:
    """51,200 tokens take 5.12 s at 10k tokens/s and 10.24 s at 5k; after 5.12 s the slow run is at half its steps."""
    make_run(tmp_path / "fast", 2.0, curve=flat, rate=10_000, seconds_column=logged)
    make_run(tmp_path / "slow", 1.0, curve=flat, rate=5_000, model__n_layer=4, seconds_column=logged)
    c = asked(tmp_path, at="seconds")
    assert c.budget == pytest.approx(5.12)
    assert c.rows[1].values == {1: pytest.approx(1.5)}
    assert c.rows[1].mean("tokens") == pytest.approx(25_600)
    assert ("derived from tokens_per_second" in text_of(c, 200)) is not logged


def test_at_seconds_refuses_a_run_without_any_clock(tmp_path: Path) -> None:
    make_run(tmp_path / "good", 2.0)
    bad = make_run(tmp_path / "bad", 2.0, model__n_layer=4)
    (bad / "metrics.csv").write_text("step,val/loss,val/bpb\n50,2,3\n100,1,2\n")
    assert reasons(asked(tmp_path, at="seconds")) == {
        "bad": "--at=seconds: its metrics.csv has neither seconds nor tokens_per_second"
    }


def test_at_flops_and_bytes_use_the_cost_of_a_token(tmp_path: Path) -> None:
    costs = {"bytes_per_token": 2.0, "flops_per_token": 1000.0}
    make_run(tmp_path / "a", 2.0, curve=flat, result=costs)
    make_run(tmp_path / "b", 1.0, curve=flat, result={k: 2 * v for k, v in costs.items()}, model__n_layer=4)
    for kind, budget in (("bytes", 51200 * 2.0), ("flops", 51200 * 1000.0)):
        c = asked(tmp_path, at=kind)
        assert c.budget == budget
        assert c.rows[1].values == {1: pytest.approx(1.5)}


def test_at_bytes_refuses_runs_that_did_not_record_them(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    with pytest.raises(
        RunError, match=r"--at=bytes: no run can be compared at this budget; the first: .* no bytes_per_token"
    ):
        asked(tmp_path, at="bytes")


def test_a_run_first_validated_after_the_budget_is_excluded(tmp_path: Path) -> None:
    make_run(tmp_path / "short", 2.0, trainer__max_steps=50, trainer__val_every_steps=10)
    make_run(tmp_path / "late", 1.0, trainer__max_steps=400, trainer__val_every_steps=200)
    assert reasons(asked(tmp_path, at="tokens"))["late"].startswith(
        "its first validation comes after 26k tokens, where"
    )


def test_a_resumed_run_counts_the_time_of_all_its_parts(tmp_path: Path) -> None:
    """training_seconds in result.json count from the resume."""
    make_run(tmp_path / "a", 2.0, result={"resumed_from": 50, "training_seconds": 2.56}, rate=10_000)
    make_run(tmp_path / "b", 2.0, model__n_layer=4, seconds_column=True, rate=5_000)
    assert [row.mean("seconds") for row in asked(tmp_path).rows] == [pytest.approx(5.12), pytest.approx(10.24)]
