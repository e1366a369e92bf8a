"""A comparison says what all of its runs have in common: steps, tokens, FLOPs or time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptexp.report.latex_markdown import latex, markdown
from gptexp.report.notes import notes
from gptexp.report.page import page
from support.comparisons import asked, text_of
from support.run_folders import make_run

TIME: dict[str, Any] = {"asked": {"max_time": "60s"}}


def two(place: Path, first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The notes about two configurations."""
    make_run(place / "a", 2.0, **first)
    make_run(place / "b", 1.9, model__n_layer=4, **second)
    return [line for line in notes(asked(place)) if line.startswith("held equal")]


@pytest.mark.parametrize(
    ("first", "second", "note"),
    [
        ({}, {}, ["held equal: 100 steps, 51k tokens, 1.54e+10 FLOPs"]),
        ({}, {"parameters": 99_000}, ["held equal: 100 steps, 51k tokens"]),
        ({}, {"trainer__max_steps": 50, "data__global_batch_size": 16}, ["held equal: 51k tokens, 1.54e+10 FLOPs"]),
        ({}, {"trainer__max_steps": 50, "parameters": 100_000}, ["held equal: 1.54e+10 FLOPs"]),
        ({}, {"trainer__max_steps": 50}, []),
        (TIME, {**TIME, "trainer__max_steps": 90}, ["held equal: a time of 60s (90 to 100 steps)"]),
        (TIME, {"asked": {"max_time": "30s"}, "trainer__max_steps": 50}, []),
        (
            {"asked": {"max_flops": 2e10}, "trainer__max_steps": 5},
            {"asked": {"max_flops": 2e10}, "trainer__max_steps": 4},
            ["held equal: 7.68e+08 FLOPs"],
        ),
    ],
)
def test_a_comparison_says_what_was_held_equal(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], note: list[str]
) -> None:
    assert two(tmp_path, first, second) == note


def test_what_was_held_equal_is_in_every_format(tmp_path: Path) -> None:
    (note,) = two(tmp_path, TIME, {**TIME, "trainer__max_steps": 90})
    c = asked(tmp_path)
    assert note in " ".join(text_of(c).split())
    for text in (latex(c), markdown(c), page(c, {})):
        assert "a time of 60s" in text


def test_one_row_and_a_comparison_at_a_budget_do_not_repeat_it(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    assert not any("held equal" in line for line in notes(asked(tmp_path)))
    make_run(tmp_path / "b", 1.9, model__n_layer=4)
    assert not any("held equal" in line for line in notes(asked(tmp_path, at="tokens")))


def test_seeds_of_one_time_with_other_steps_are_one_row(tmp_path: Path) -> None:
    for seed, steps in ((1, 100), (2, 90)):
        make_run(tmp_path / f"a{seed}", 2.0, seed=seed, trainer__max_steps=steps, **TIME)
        make_run(tmp_path / f"b{seed}", 1.9, seed=seed, trainer__max_steps=steps, model__n_layer=4, **TIME)
    c = asked(tmp_path)
    assert [len(row.readings) for row in c.rows] == [2, 2]
    assert "held equal: a time of 60s (90 to 100 steps)" in notes(c)
    assert [run.max_steps for run in c.runs] == [100, 90, 100, 90]
