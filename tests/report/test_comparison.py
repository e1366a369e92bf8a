"""The comparison of run folders: which runs are included, how they are compared, and what the table shows."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("scipy")

from rich.console import Console

from gptexp.report import naming, series
from gptexp.report.columns import columns
from gptexp.report.comparison import Comparison, Question, compare_folders
from gptexp.report.effects import main_effects
from gptexp.report.table import print_comparison, to_csv
from gptexp.util.errors import RunError
from support.run_folders import age, make_run

FLAT = lambda t: 1.0 - t  # noqa: E731 (a straight curve, so that interpolation is exact)


def asked(place: Path, **question: Any) -> Comparison:
    return compare_folders([place], Question(**question))


def reasons(c: Comparison) -> dict[str, str]:
    return {lost.folder.name: lost.reason for lost in c.left_out}


def text_of(c: Comparison, width: int = 80) -> str:
    file = io.StringIO()
    print_comparison(Console(width=width, file=file, highlight=False, no_color=True), c)
    return file.getvalue()


def two_by_three(place: Path, **second: Any) -> None:
    """n_layer 2 and 4 with seeds 1, 2, 3; gaps -0.1, -0.2, -0.3."""
    for seed, value in ((1, 2.0), (2, 2.1), (3, 2.2)):
        make_run(place / f"a{seed}", value, seed=seed)
        make_run(place / f"b{seed}", value - seed / 10, seed=seed, **{"model__n_layer": 4, **second})


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
        sizes = {"model__n_layer": 2 + bits[0], "model__block_size": 64 << bits[3]}
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


# ---------------------------------------------------------------------------------- comparable numbers


def test_another_validation_text_is_excluded_with_the_reason(tmp_path: Path) -> None:
    two_by_three(tmp_path)
    make_run(tmp_path / "other", 0.1, seed=4, sha="b" * 64)
    c = asked(tmp_path)
    assert reasons(c) == {"other": "scored on another validation text"}
    assert c.rows[0].interval.n == 3


def test_two_configurations_on_different_texts_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    make_run(tmp_path / "b", 2.0, model__n_layer=4, sha="b" * 64)
    with pytest.raises(
        RunError, match=r"nothing to compare: scored on 2 validation texts; give one of: .*b \(1 run on"
    ):
        asked(tmp_path)


@pytest.mark.parametrize("metric", ["val/loss", "val/perplexity"])
def test_losses_per_token_are_not_compared_across_tokenizers(tmp_path: Path, metric: str) -> None:
    make_run(tmp_path / "a", 2.0)
    make_run(tmp_path / "b", 1.9, tokenizer={"kind": "bpe", "vocab_size": 512}, val_tokens=900)
    with pytest.raises(RunError, match=f"{metric} is an average per token; compare by --metric val/bpb"):
        asked(tmp_path, metric=metric)
    assert len(asked(tmp_path).rows) == 2


def test_the_baseline_decides_whose_tokenizer_is_compared(tmp_path: Path) -> None:
    for n in (2, 4):
        make_run(tmp_path / f"char{n}", 2.0, model__n_layer=n)
        make_run(tmp_path / f"byte{n}", 2.1, model__n_layer=n, tokenizer__kind="byte", val_tokens=2050)
    assert set(reasons(asked(tmp_path, metric="val/loss", baseline="tokenizer=char n_layer=2"))) == {"byte2", "byte4"}
    assert set(reasons(asked(tmp_path, metric="val/loss", baseline="tokenizer=byte n_layer=2"))) == {"char2", "char4"}


def test_a_tokenizer_is_also_identified_by_its_tokens_of_the_text(tmp_path: Path) -> None:
    """The settings are equal but the merges differ, because the tokenizers were trained on different texts."""
    for n, tokens in ((2, 900), (4, 900), (8, 905)):
        make_run(tmp_path / f"bpe{n}", 2.0, model__n_layer=n, tokenizer__kind="bpe", val_tokens=tokens)
    assert set(reasons(asked(tmp_path, metric="val/loss"))) == {"bpe8"}


def test_unequal_tokens_and_compute_are_marked(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    make_run(tmp_path / "b", 1.9, trainer__max_steps=200)
    c = asked(tmp_path)
    text = text_of(c)
    assert c.unequal == {"tokens", "flops"}
    assert "102k*" in text
    assert "51k*" not in text
    assert "* tokens differ from max_steps 100; --at tokens makes them equal" in text
    assert "† compute differs from max_steps 100; --at flops makes it equal" in text


def test_recorded_flops_are_used_only_if_all_runs_have_them(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0, result={"flops_per_token": 1000}, parameters=100)
    make_run(tmp_path / "b", 1.9, model__n_layer=4, result={"flops_per_token": 2000}, parameters=100)
    exact = asked(tmp_path)
    assert [row.mean("flops") for row in exact.rows] == [51200 * 1000, 51200 * 2000]
    assert not exact.flops_estimated
    make_run(tmp_path / "c", 1.9, model__n_layer=8, parameters=100)
    estimated = asked(tmp_path)
    assert [row.mean("flops") for row in estimated.rows] == [51200 * 600] * 3
    assert "~ FLOPs estimated as 6 per parameter and token" in text_of(estimated)


# ---------------------------------------------------------------------------------- excluded runs

DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no result": (lambda run: (run / "result.json").unlink(), "unfinished: no result.json"),
    "interrupted": (lambda run: rewrite(run, status="interrupted"), "unfinished: its status is 'interrupted'"),
    "failed": (
        lambda run: rewrite(run, status="failed", error="the loss is nan\nat step 7"),
        "failed: the loss is nan at",
    ),
    "cut": (lambda run: cut(run / "result.json"), "result.json is damaged"),
    "a list": (lambda run: (run / "result.json").write_text("[1]"), "result.json is damaged: must contain"),
    "no tokens": (lambda run: rewrite(run, tokens=None), "result.json is damaged: tokens is None"),
    "words": (lambda run: rewrite(run, metrics={"val/bpb": "two"}), "result.json is damaged: val/bpb is 'two'"),
    "no metric": (lambda run: rewrite(run, metrics={"val/loss": 1.0}), "its result.json has no val/bpb"),
    "no hash": (lambda run: rewrite(run, val={}), "result.json is damaged: no text_sha256"),
    "bytes": (lambda run: (run / "result.json").write_bytes(b"\xff\xfe\x00"), "result.json is damaged"),
    "no yaml": (lambda run: (run / "config.yaml").write_text("a: [1"), "config.yaml cannot be read"),
    "others' yaml": (lambda run: (run / "config.yaml").write_text("a: 1"), "config.yaml has no settings of a gptexp"),
    "no seed": (lambda run: edit(run / "config.yaml", "seed: 1", "seed: one"), "config.yaml has no seed"),
}


def rewrite(run: Path, **parts: Any) -> None:
    path = run / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("what", DAMAGE)
def test_an_unfinished_or_damaged_run_is_named_and_excluded(tmp_path: Path, what: str) -> None:
    damage, reason = DAMAGE[what]
    make_run(tmp_path / "good", 2.0)
    damage(make_run(tmp_path / "bad", 9.0, model__n_layer=4))
    c = asked(tmp_path)
    assert len(c.rows) == 1
    assert reasons(c)["bad"].startswith(reason)
    assert f"bad: {reason[:30]}" in text_of(c, width=300)


def test_a_run_missing_from_a_mean_is_marked_in_its_row(tmp_path: Path) -> None:
    two_by_three(tmp_path)
    (tmp_path / "b3" / "result.json").unlink()
    c = asked(tmp_path)
    text = text_of(c, width=200)
    assert "2‡" in text
    assert "‡ n_layer 4: not in the mean: seed 3 (unfinished: no result.json)" in text


def test_a_diverged_run_is_reported_and_not_averaged(tmp_path: Path) -> None:
    two_by_three(tmp_path)
    make_run(tmp_path / "b3", None, seed=3, model__n_layer=4)
    make_run(tmp_path / "c1", None, model__n_layer=8)
    c = asked(tmp_path)
    assert c.rows[1].values == {1: pytest.approx(1.9), 2: pytest.approx(1.9)}
    assert reasons(c)["b3"] == "diverged: its last val/bpb is not finite"
    assert [row.interval.n for row in c.rows] == [3, 2, 0]
    lines = [line.split() for line in text_of(c).splitlines()]
    assert ["8", "0‡", "diverged", "–", "–", "–"] in lines


DAMAGED_CURVES = {
    "": "its metrics.csv is damaged: no rows in it",
    "step,lr\n1,2\n": "its metrics.csv is damaged: no column 'val/loss'",
    "step,val/loss,val/bpb\n1,2\n": "its metrics.csv is damaged: a row has too many or too few columns",
    "step,val/loss,val/bpb\n1,2,x\n": "its metrics.csv is damaged: could not convert",
    "step,val/loss,val/bpb\n2,2,2\n1,2,2\n": "its metrics.csv is damaged: its steps do not increase",
    "step,val/loss,val/bpb\n2,,\n": "its metrics.csv is damaged: no validation in it",
}


@pytest.mark.parametrize("content", DAMAGED_CURVES, ids=list(DAMAGED_CURVES.values()))
def test_a_damaged_curve_affects_only_values_read_from_it(tmp_path: Path, content: str) -> None:
    make_run(tmp_path / "good", 2.0)
    (make_run(tmp_path / "bad", 1.9, model__n_layer=4) / "metrics.csv").write_text(content)
    assert [row.interval.mean for row in asked(tmp_path).rows] == [2.0, 1.9]
    assert reasons(asked(tmp_path, at="tokens"))["bad"].startswith(
        f"--at needs the curve, but {DAMAGED_CURVES[content]}"
    )


# ---------------------------------------------------------------------------------- at equal budget


def test_at_tokens_reads_the_curve_between_validations(tmp_path: Path) -> None:
    """150 steps of the long run lie between the validations at 140 and 160; its curve is 2 + (1 - t) there."""
    make_run(tmp_path / "short", 2.0, curve=FLAT, trainer__max_steps=150, trainer__val_every_steps=50)
    make_run(tmp_path / "long", 1.0, curve=FLAT, trainer__max_steps=400, trainer__val_every_steps=20)
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
        make_run(tmp_path / name, 2.0, curve=FLAT, trainer__max_steps=steps, schedule__kind="constant")
    text = text_of(asked(tmp_path, at="tokens"))
    assert "read at 77k tokens" in text
    assert "their schedules" not in text


@pytest.mark.parametrize("logged", [True, False], ids=["seconds column", "derived"])
def test_at_seconds_reads_curves_at_the_end_of_the_slower_run(tmp_path: Path, logged: bool) -> None:
    """51,200 tokens take 5.12 s at 10k tokens/s and 10.24 s at 5k; after 5.12 s the slow run is at half its steps."""
    make_run(tmp_path / "fast", 2.0, curve=FLAT, rate=10_000, seconds_column=logged)
    make_run(tmp_path / "slow", 1.0, curve=FLAT, rate=5_000, model__n_layer=4, seconds_column=logged)
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
    make_run(tmp_path / "a", 2.0, curve=FLAT, result=costs)
    make_run(tmp_path / "b", 1.0, curve=FLAT, result={k: 2 * v for k, v in costs.items()}, model__n_layer=4)
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


# ---------------------------------------------------------------------------------- contents of the plots


def test_band_is_the_mean_and_the_range_of_the_seeds(tmp_path: Path) -> None:
    for seed, value in ((1, 2.0), (2, 2.4)):
        make_run(tmp_path / f"{seed}", value, seed=seed, curve=FLAT, trainer__val_every_steps=50, seconds_column=True)
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


# ---------------------------------------------------------------------------------- names as typed by the user


def swept(place: Path, *jobs: str, values: dict[str, Any] | None = None) -> Path:
    """sweep.yaml of these jobs, named as a sweep names them: `model=bigram,seed=1`."""
    place.mkdir(parents=True, exist_ok=True)
    stored = [{"name": job, "overrides": job.split(","), "identity": "0", "config": {}} for job in jobs]
    (place / "sweep.yaml").write_text(yaml.safe_dump({"format": 1, "jobs": stored, **(values or {})}))
    return place


MODELS: dict[str, dict[str, Any]] = {
    "bigram": {"kind": "bigram"},
    "self_attention": {"kind": "gpt", "n_layer": 1},
    "mini_gpt": {"kind": "gpt"},
}


def models(place: Path) -> Path:
    """A sweep over three presets of models."""
    swept(place, *(f"model={name},seed={seed}" for name in MODELS for seed in (1, 2)))
    for name, settings in MODELS.items():
        for seed in (1, 2):
            changes = {f"model__{key}": value for key, value in settings.items()}
            make_run(place / f"model={name},seed={seed}", 2.0 + seed / 10, seed=seed, **changes)
    return place


def test_rows_are_named_by_the_typed_presets(tmp_path: Path) -> None:
    c = asked(models(tmp_path / "sweep"))
    assert [row.label for row in c.rows] == list(MODELS)  # in the order typed
    assert (c.keys, c.along) == (["model"], [])
    assert text_of(c).splitlines()[0].split()[:2] == ["model", "seeds"]
    for baseline in ("model=mini_gpt", "mini_gpt"):
        assert asked(tmp_path, baseline=baseline).baseline.label == "mini_gpt"
    assert asked(tmp_path, baseline="model.kind=bigram").baseline.label == "bigram"
    assert asked(tmp_path, baseline="model=bigram").baseline.label == "bigram"


def test_presets_of_single_runs_are_read_from_their_command_lines(tmp_path: Path) -> None:
    for name, settings in MODELS.items():
        run = make_run(tmp_path / name, 2.0, **{f"model__{key}": value for key, value in settings.items()})
        (run / "provenance.json").write_text(json.dumps({"command": f"python -m gptexp.train model={name} seed=1"}))
    assert sorted(row.label for row in asked(tmp_path).rows) == sorted(MODELS)
    (tmp_path / "bigram/provenance.json").write_text("[")  # unreadable, so the settings distinguish the rows
    assert "bigram, n_layer 2" in [row.label for row in asked(tmp_path).rows]


@pytest.mark.parametrize(
    "baseline",
    ["n_layer=4,position=rope", "n_layer=4 position=rope", "n_layer=4, position=rope", ["n_layer=4", "position=rope"],
     "n_layer 4, position rope"],
)  # fmt: skip
def test_a_baseline_of_several_settings_is_accepted_in_any_spelling(tmp_path: Path, baseline: str | list[str]) -> None:
    for n in (2, 4):
        for position in ("rope", "learned"):
            make_run(tmp_path / f"{n}{position}", 2.0, model__n_layer=n, model__position=position)
    assert asked(tmp_path, baseline=baseline).baseline.label == "n_layer 4, position rope"
    with pytest.raises(RunError, match=r"2 configurations have this; give one of: n_layer=4,position=learned; n_l"):
        asked(tmp_path, baseline="n_layer=4")


def test_several_texts_are_listed_with_their_folders(tmp_path: Path) -> None:
    for name, sha in (("novels", "a"), ("poems", "b"), ("laws", "c")):
        for seed in (1, 2) if name == "novels" else (1,):
            make_run(tmp_path / name / str(seed), 2.0, seed=seed, sha=sha * 64, data__path=f"{name}.txt")
    make_run(tmp_path / "novels/deep", 1.9, model__n_layer=8, sha="b" * 64, data__path="poems.txt")
    with pytest.raises(RunError) as error:
        asked(tmp_path)
    assert str(error.value) == (
        "nothing to compare: scored on 3 validation texts; give one of: "
        f"{tmp_path}/novels/1 {tmp_path}/novels/2 (2 runs on novels.txt); "
        f"{tmp_path}/novels/deep {tmp_path}/poems (2 runs on poems.txt); {tmp_path}/laws (1 run on laws.txt)"
    )
    make_run(tmp_path / "novels/other", 1.9, model__n_layer=4, data__path="novels.txt")
    assert "3 validation texts, of which a table compares one; their folders: " in " ".join(
        text_of(asked(tmp_path)).split()
    )


def test_a_sweep_in_progress_shows_the_number_of_complete_jobs(tmp_path: Path) -> None:
    place = swept(tmp_path / "sweep", "n_layer=2", "n_layer=4", "n_layer=8")
    stored = yaml.safe_load((place / "sweep.yaml").read_text())
    for job in stored["jobs"]:
        job["overrides"] = [f"model.{job['name']}"]
    (place / "sweep.yaml").write_text(yaml.safe_dump(stored))
    make_run(place / "n_layer=2", 2.0)
    (make_run(place / "n_layer=4", 2.0, model__n_layer=4) / "result.json").unlink()
    c = asked(place)
    assert [row.label for row in c.rows] == ["n_layer 2"]
    assert f"{place}: 1 of 3 jobs complete; the others are not in this table" in text_of(c, width=300)
    for n in (4, 8):
        make_run(place / f"n_layer={n}", 2.0, model__n_layer=n)
    assert "jobs complete" not in text_of(asked(place), width=300)


def grid(place: Path, seeds: tuple[int, ...] = (1, 2, 3)) -> Path:
    """Effects: n_layer 0.1, rope 0.03, dropout 0.2 with rope; standard deviation over seeds 0.01."""
    for n in (2, 4):
        for position in ("learned", "rope"):
            for dropout in (0.0, 0.1):
                for seed in seeds:
                    value = 2.0 - 0.1 * (n == 4) - 0.03 * (position == "rope") + 0.2 * dropout * (position == "rope")
                    which: dict[str, Any] = {
                        "model__n_layer": n,
                        "model__position": position,
                        "model__dropout": dropout,
                    }
                    make_run(place / f"{n}{position}{dropout}-{seed}", value + seed / 100, seed=seed, **which)
    return place


def test_main_effects_average_each_factor_over_the_others(tmp_path: Path) -> None:
    layers, position, dropout = main_effects(asked(grid(tmp_path)))
    assert [(effect.name, effect.cells, effect.over) for effect in (layers, position, dropout)] == [
        (name, 4, "seeds") for name in ("n_layer", "position", "dropout")
    ]
    assert layers.levels[0].interval.mean == pytest.approx(2.0 + 0.02 - 0.015 + 0.005)
    assert layers.levels[0].interval.half_width == pytest.approx(4.3026527 * 0.01 / math.sqrt(3))
    gaps = [effect.levels[1].difference for effect in (layers, position, dropout)]
    assert [gap.mean for gap in gaps if gap] == [pytest.approx(-0.1), pytest.approx(-0.02), pytest.approx(0.01)]
    assert "mean over the others" in text_of(asked(tmp_path))


def test_main_effects_of_one_seed_are_over_the_combinations(tmp_path: Path) -> None:
    effects = main_effects(asked(grid(tmp_path, seeds=(1,))))
    assert {(effect.over, effect.levels[1].interval.n) for effect in effects} == {("combinations", 4)}
    assert main_effects(asked(two_kinds(tmp_path / "other"))) == []


def two_kinds(place: Path) -> Path:
    """The settings of tokenizers share no value, so they form no grid."""
    make_run(place / "a", 2.0)
    for size in (512, 1024):
        make_run(place / f"{size}", 2.0, tokenizer={"kind": "bpe", "vocab_size": size})
    return place


def test_headings_and_words_of_a_grid_are_whole_at_80_columns(tmp_path: Path) -> None:
    lines = text_of(asked(grid(tmp_path))).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:6] == ["n_layer", "position", "dropout", "seeds", "val/bpb", "difference"]
    assert lines[2].split()[:3] == ["2", "learned", "0.0"]
