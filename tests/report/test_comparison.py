"""The comparison of run folders: its numbers, and which runs are one configuration."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")

from gptexp.report import naming
from gptexp.report.comparison import Question, compare_folders
from gptexp.report.table import to_csv
from gptexp.util.errors import RunError
from support.comparisons import asked, reasons, text_of, two_by_three
from support.run_folders import age, make_run

# ---------------------------------------------------------------------------------- numbers


def test_mean_interval_and_paired_difference_follow_from_the_seeds(tmp_path: Path) -> None:
    """Mean 2.1, sd 0.1, t(0.975, 2) = 4.3026527; the gaps' mean -0.2, sd 0.1, t = -3.4641, p = 0.07418."""
    two_by_three(tmp_path)
    c = asked(tmp_path)
    a, b = c.rows
    assert [row.settings["model.n_layer"] for row in c.rows] == [2, 4]
    assert c.baseline is a
    assert a.interval.mean == pytest.approx(2.1)
    assert a.interval.half_width == pytest.approx(4.3026527 * 0.1 / math.sqrt(3))
    assert b.difference is not None
    assert (b.difference.test, b.difference.n) == ("paired t", 3)
    assert b.difference.mean == pytest.approx(-0.2)
    assert b.p == pytest.approx(0.07418, abs=1e-5)
    assert (c.keys, c.along) == (["model.n_layer"], [])


def test_p_values_are_corrected_over_all_comparisons(tmp_path: Path) -> None:
    two_by_three(tmp_path)
    for seed in (1, 2, 3):
        make_run(tmp_path / f"c{seed}", 2.0 - seed**2 / 10, seed=seed, model__n_layer=8)
    c = asked(tmp_path)
    assert c.comparisons == 2
    assert c.rows[1].difference is not None
    assert c.rows[1].p == pytest.approx(2 * (c.rows[1].difference.p or math.nan))


WHOLE: dict[str, Any] = {"model__n_layer": 4, "model__dropout": 0.1, "model__bias": False, "model__position": "rope"}


def test_an_ablation_names_rows_by_their_change_from_the_baseline(tmp_path: Path) -> None:
    others: dict[str, Any] = {
        "model__n_layer": 2,
        "model__dropout": 0.0,
        "model__bias": True,
        "model__position": "learned",
    }
    for name, value in others.items():
        make_run(tmp_path / name, 2.1, **{**WHOLE, name: value})
    make_run(tmp_path / "whole", 2.0, **WHOLE)
    c = asked(tmp_path)
    assert c.rows[0] is c.baseline
    assert c.baseline.settings["model.position"] == "rope"
    assert [c.baseline.label, *sorted(row.label for row in c.rows[1:])] == [
        "baseline", "bias true", "dropout 0.0", "n_layer 2", "position learned",
    ]  # fmt: skip
    reported = " ".join(text_of(c).split())
    assert re.search("baseline: [^;]*position rope[^;]*; the others are named by their changes", reported)
    other = asked(tmp_path, baseline="n_layer=2")
    assert "position rope" in other.baseline.label  # any other baseline is named by all settings that distinguish it


def test_a_grid_is_not_an_ablation(tmp_path: Path) -> None:
    for number in range(16):
        bits = [number >> place & 1 for place in range(4)]
        sizes: dict[str, Any] = {"model__n_layer": 2 + bits[0], "model__block_size": 64 << bits[3]}
        make_run(tmp_path / str(number), 2.0, model__dropout=bits[1] / 10, model__bias=bool(bits[2]), **sizes)
    c = asked(tmp_path)
    assert all("dropout" in row.label and "bias" in row.label for row in c.rows)


def test_the_csv_has_unrounded_numbers_with_best_and_last(tmp_path: Path) -> None:
    two_by_three(tmp_path, result={"best": {"val/bpb": 1.5, "step": 7}})
    rows = list(csv.DictReader(io.StringIO(to_csv(asked(tmp_path)))))
    assert [row["model.n_layer"] for row in rows] == ["2", "4"]
    assert float(rows[1]["mean"]) == pytest.approx(1.9)
    assert float(rows[1]["best"]) == 1.5
    assert float(rows[1]["difference"]) == pytest.approx(-0.2)
    assert float(rows[1]["p_holm"]) == pytest.approx(0.07418, abs=1e-5)
    assert rows[1]["test"] == "paired t"
    assert rows[1]["seed_list"] == "1 2 3"
    assert [row["baseline"] for row in rows] == ["True", "False"]
    assert float(rows[0]["tokens"]) == 100 * 8 * 64


def test_configurations_without_shared_seeds_are_compared_by_welch(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make_run(tmp_path / f"a{seed}", 2.0 + seed / 100, seed=seed)
        make_run(tmp_path / f"b{seed}", 1.9 + seed / 100, seed=seed + 10, model__n_layer=4)
    c = asked(tmp_path)
    assert c.tests == ["Welch's t"]
    assert "Welch's t-test" in text_of(c)


# ---------------------------------------------------------------------------------- identity of configurations


def test_the_machine_of_a_run_does_not_change_its_configuration(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0, seed=1)
    make_run(tmp_path / "b", 2.1, seed=2, trainer__devices=2, trainer__accelerator="gpu", name="other", logger={})
    assert len(asked(tmp_path).rows) == 1
    assert len(asked(tmp_path, by=["devices"]).rows) == 2


def test_another_precision_is_another_configuration(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    make_run(tmp_path / "b", 2.1, trainer__precision="bf16-mixed")
    assert asked(tmp_path).keys == ["trainer.precision"]


def test_runs_on_an_edited_text_are_another_configuration(tmp_path: Path) -> None:
    for name, fingerprint in (("a", "1" * 64), ("b", "2" * 64)):
        make_run(tmp_path / name, 2.0, seed=ord(name))
        (tmp_path / name / "provenance.json").write_text(json.dumps({"data": {"fingerprint": fingerprint}}))
    assert asked(tmp_path).keys == ["data.fingerprint"]


def test_the_same_text_at_two_paths_is_one_configuration(tmp_path: Path) -> None:
    for seed, (place, fingerprint) in enumerate((("a.txt", "1"), ("b.txt", "1"), ("c.txt", "2")), 1):
        run = make_run(tmp_path / str(seed), 2.0, seed=seed, data__kind="text", data__path=place)
        (run / "provenance.json").write_text(json.dumps({"data": {"fingerprint": fingerprint * 64}}))
    c = asked(tmp_path)
    assert c.keys == ["data.path"]
    assert [sorted(row.values) for row in c.rows] == [[1, 2], [3]]


def test_old_and_new_seeds_are_one_configuration(tmp_path: Path) -> None:
    """The newer run has settings that the older run lacks, with their default values."""
    make_run(tmp_path / "old", 2.0, seed=1)
    newer: dict[str, Any] = {"model__qk_norm": False, "trainer__gradient_clip": 1.0, "objective": {"kind": "lm"}}
    make_run(tmp_path / "new", 2.1, seed=2, **newer)
    (row,) = asked(tmp_path).rows
    assert sorted(row.values) == [1, 2]


def test_a_folder_without_a_run_is_excluded_by_name(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    (tmp_path / "leftover").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.yaml").write_text("model: [")
    damaged = make_run(tmp_path / "listed", 2.0, result={"metrics": [2.0]})
    c = compare_folders([tmp_path / name for name in ("leftover", "a", "broken", "listed")], Question())
    assert len(c.rows) == 1
    assert reasons(c)["leftover"] == "no run in it or below it (a run's folder has a config.yaml)"
    assert reasons(c)["broken"].startswith("config.yaml cannot be read: ")
    assert reasons(c)[damaged.name] == "result.json is damaged: metrics is not an object"
    with pytest.raises(RunError, match="leftover: no run in it or below it"):
        compare_folders([tmp_path / "leftover"], Question())
    with pytest.raises(RunError, match="nowhere: no such folder"):
        compare_folders([tmp_path / "a", tmp_path / "nowhere"], Question())


def test_the_newest_run_with_the_same_settings_and_seed_counts(tmp_path: Path) -> None:
    age(make_run(tmp_path / "new_by_name", 2.0), 60)
    make_run(tmp_path / "later", 3.0)
    c = asked(tmp_path)
    assert c.rows[0].values == {1: 3.0}
    assert reasons(c) == {"new_by_name": f"same settings and seed as {tmp_path / 'later'}, which is newer"}


def test_settings_that_vary_together_are_named(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0, model__block_size=32, data__global_batch_size=16)
    make_run(tmp_path / "b", 1.9, model__block_size=64, data__global_batch_size=8)
    c = asked(tmp_path)
    assert (c.keys, c.along) == (["model.block_size"], ["data.global_batch_size"])
    assert "confounded: data.global_batch_size vary together with block_size" in text_of(c)


def test_rows_show_the_fewest_settings_that_distinguish_them() -> None:
    kinds: list[dict[str, Any]] = [{"t.kind": "char"}, *({"t.kind": "bpe", "t.vocab": size} for size in (512, 1024))]
    configurations = [{**kind, "same": 1, "lr": index} for index, kind in enumerate(kinds)]
    assert naming.distinguishing(configurations, ["t.kind", "t.vocab"]) == (["t.kind", "t.vocab"], ["lr"])
    assert naming.distinguishing(configurations) == (["lr"], ["t.kind", "t.vocab"])
    assert [naming.label(one, ["t.kind", "t.vocab"]) for one in configurations] == [
        "char",
        "bpe, vocab 512",
        "bpe, vocab 1024",
    ]


def test_a_setting_that_other_kinds_lack_is_not_a_second_difference(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    make_run(tmp_path / "b", 1.9, tokenizer={"kind": "bpe", "vocab_size": 512}, val_tokens=900)
    c = asked(tmp_path)
    assert (c.keys, c.along) == (["tokenizer.kind"], [])
    assert "--at bytes compares at equal text" in " ".join(text_of(c).split())


def test_rows_are_sorted_numerically(tmp_path: Path) -> None:
    for name, n in (("a", 16), ("b", 2), ("c", 8)):
        make_run(tmp_path / name, 2.0, model__n_layer=n)
    assert [row.settings["model.n_layer"] for row in asked(tmp_path).rows] == [2, 8, 16]
