"""The numbers in the plots."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("scipy")

from gptexp.report import series
from gptexp.report.columns import columns
from support.comparisons import asked, flat, reasons, text_of
from support.run_folders import make_run


def test_band_is_the_mean_and_the_range_of_the_seeds(tmp_path: Path) -> None:
    for seed, value in ((1, 2.0), (2, 2.4)):
        make_run(tmp_path / f"{seed}", value, seed=seed, curve=flat, trainer__val_every_steps=50, seconds_column=True)
    c = asked(tmp_path)
    for kind, x in (("steps", [50, 100]), ("tokens", [25600, 51200]), ("seconds", [2.56, 5.12])):
        band = series.band(c.rows[0], "val/bpb", kind, c.flops_estimated)
        assert band is not None
        assert list(band.x) == pytest.approx(x)
        assert list(band.mean) == pytest.approx([2.7, 2.2])
        assert list(band.low) == pytest.approx([2.5, 2.0])
        assert list(band.high) == pytest.approx([2.9, 2.4])


def test_the_frontier_keeps_undominated_points() -> None:
    assert series.frontier([(3, 1.0), (1, 2.0), (2, 2.5), (2, 1.5), (4, 1.0)]) == [(1, 2.0), (2, 1.5), (3, 1.0)]
    assert series.frontier([(3, 0.9), (1, 0.2), (2, 0.1), (2, 0.5)], higher=True) == [(1, 0.2), (2, 0.5), (3, 0.9)]


def test_the_axis_is_numeric_and_logarithmic_over_a_wide_range(tmp_path: Path) -> None:
    for n in (1, 2, 4, 8):
        for position in ("rope", "alibi"):
            make_run(tmp_path / f"{n}{position}", 2.0, model__n_layer=n, model__position=position)
    axis = series.axis(asked(tmp_path))
    assert (axis.key, axis.name, axis.numeric, axis.log) == ("model.n_layer", "n_layer", True, True)
    assert sorted(axis.groups) == ["position alibi", "position rope"]
    by = series.axis(asked(tmp_path, by=["position"]))
    assert (by.name, by.numeric) == ("position", False)
    assert list(by.ticks.values()) == ["alibi", "rope"]


def test_each_tokenizer_has_a_position_on_the_axis(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    for size in (512, 1024):
        make_run(tmp_path / f"bpe{size}", 1.9, tokenizer={"kind": "bpe", "vocab_size": size})
    assert list(series.axis(asked(tmp_path)).ticks.values()) == ["char", "bpe\n512", "bpe\n1024"]


def test_zero_flops_are_a_recorded_number(tmp_path: Path) -> None:
    """A bigram is a lookup with 0 FLOPs. When 0 counted as missing, every row became an estimate."""
    make_run(tmp_path / "bigram", 2.5, model__kind="bigram", result={"flops_per_token": 0})
    for n in (1, 2):
        make_run(tmp_path / f"gpt{n}", 2.0, model__n_layer=n, result={"flops_per_token": 1000 * n})
    c = asked(tmp_path)
    assert [row.mean("flops") for row in c.rows if row.settings["model.kind"] == "bigram"] == [0]
    assert not c.flops_estimated
    assert "estimated" not in text_of(c, width=200)
    at = asked(tmp_path, at="flops")
    assert at.budget == 51200 * 1000
    assert reasons(at) == {"bigram": "--at=flops: it trains with 0 FLOPs, so it never reaches the budget"}


def test_seeds_needed_counts_seeds_that_the_test_can_use(tmp_path: Path) -> None:
    """Four seeds each, two of them shared: the paired test has two pairs and needs more."""
    for seed, gap in ((1, 0.04), (2, 0.1), (5, 0.1), (6, 0.1)):
        make_run(tmp_path / f"b{seed}", 2.0 - gap, seed=seed, model__n_layer=4)
    for seed in (1, 2, 3, 4):
        make_run(tmp_path / f"a{seed}", 2.0, seed=seed)
    c = asked(tmp_path)
    needed = next(column.cells for column in columns(c) if column.name == "needed")
    assert needed == ["–", "6 (has 2)"]
    reported = " ".join(text_of(c, width=200).split())
    assert "needed: seeds in both rows that detect a true difference of the observed size" in reported
    assert "(has n): the test uses n seeds of the row, because n_layer 2 lacks the others" in reported
