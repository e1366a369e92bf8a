"""The table on a terminal, and the arguments of a comparison."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")

from gptexp.report.comparison import Question, compare_folders
from gptexp.util.errors import RunError
from support.comparisons import asked, text_of, two_by_three
from support.run_folders import make_run

# ---------------------------------------------------------------------------------- the table


def test_the_table_is_readable_at_80_columns_without_colour(tmp_path: Path) -> None:
    two_by_three(tmp_path)
    text = text_of(asked(tmp_path))
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text
    assert lines[:4] == [
        "n_layer  seeds      val/bpb    difference      p  needed",
        "─" * 56,
        "2            3  2.10 ± 0.25      baseline      –       –",
        "4            3  1.90 ± 0.00  -0.20 ± 0.25  0.074       5",
    ]
    assert lines[5].split() == ["n_layer", "parameters", "tokens", "FLOPs", "tokens/s", "time"]
    assert lines[8].split() == ["4", "50k", "51k", "~1.5e+10", "10k", "5.1", "s"]
    assert "no significant difference from n_layer 2 with these seeds: n_layer 4" in text


def test_the_table_is_not_split_if_it_fits(tmp_path: Path) -> None:
    two_by_three(tmp_path)
    wide = next(line for line in text_of(asked(tmp_path), width=130).splitlines() if "n_layer" in line)
    heads = "n_layer seeds val/bpb difference p needed parameters tokens FLOPs tokens/s time"
    assert wide.split() == heads.split()


def test_one_seed_gives_a_note_that_nothing_can_be_tested(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    make_run(tmp_path / "b", 1.9, model__n_layer=4)
    assert "one seed; no interval and no test against n_layer 2: n_layer 4" in " ".join(
        text_of(asked(tmp_path)).split()
    )


def test_markup_and_control_characters_in_settings_are_shown_as_text(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0, data__path="[red]x[/red]")
    make_run(tmp_path / "b", 1.9, data__path="\x1b[2Jy\u202e")
    text = text_of(asked(tmp_path))
    assert any(line.split()[:2] == ["[red]x[/red]", "1"] for line in text.splitlines())  # the row of the table
    assert "\x1b" not in text
    assert "\\x1b[2Jy\\u202e" in text


# ---------------------------------------------------------------------------------- arguments

WRONG = [
    ({"metric": "val/bbp"}, "--metric=val/bbp: no run has it; choose one of val/bpb, val/loss, val/perplexity"),
    ({"by": ["n_lyer"]}, "n_lyer: no such setting in these runs; did you mean"),
    ({"by": ["seed"]}, "--by: the intervals are over the seeds"),
    ({"baseline": "n_layer"}, "--baseline=n_layer: no configurations have this; give one of: n_layer=2; n_layer=4"),
    (
        {"baseline": "n_layer=3"},
        "--baseline=model.n_layer=3: no configurations have this; give one of: n_layer=2; n_layer=4",
    ),
    (
        {"baseline": "n_head=2"},
        "--baseline=model.n_head=2: 2 configurations have this; give one of: n_layer=2; n_layer=4",
    ),
    ({"baseline": ""}, "--baseline: empty"),
    ({"by": ["kind"]}, "kind: no such setting in these runs; choose one of model.kind"),
]


@pytest.mark.parametrize(("question", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_a_wrong_argument_names_the_valid_ones(tmp_path: Path, question: dict[str, Any], message: str) -> None:
    two_by_three(tmp_path)
    with pytest.raises(RunError) as error:
        asked(tmp_path, **question)
    assert str(error.value).startswith(message)


def test_baseline_is_found_by_number_short_name_and_group(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0, optimizer__lr=0.001)
    make_run(tmp_path / "b", 1.9, optimizer__lr=0.003, tokenizer__kind="byte")
    for baseline in ("optimizer.lr=3e-3", "lr=0.003", "tokenizer=byte", "block_size=64 lr=0.003"):
        assert asked(tmp_path, baseline=baseline).baseline.interval.mean == 1.9


def test_missing_folders_and_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere: no such folder"):
        compare_folders([tmp_path / "nowhere"], Question())
    with pytest.raises(RunError, match=r"no run in it or below it \(a run's folder has a config.yaml\)"):
        compare_folders([tmp_path], Question())


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    c = compare_folders([tmp_path, tmp_path / "a", tmp_path / "." / "a"], Question())
    assert c.left_out == []
    assert c.rows[0].interval.n == 1


def test_a_copied_folder_is_not_a_second_seed(tmp_path: Path) -> None:
    shutil.copytree(make_run(tmp_path / "a", 2.0), tmp_path / "copy")
    assert asked(tmp_path).rows[0].interval.n == 1
