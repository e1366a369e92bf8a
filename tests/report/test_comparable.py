"""Which runs are compared: texts, tokenizers, damaged runs and equal budgets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")

from gptexp.util.errors import RunError
from support.comparisons import asked, reasons, text_of, two_by_three
from support.run_folders import make_run

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
