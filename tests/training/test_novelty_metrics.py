"""callbacks.novelty records what the trained model copies, and leaves training unchanged."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.commands.novelty import main
from gptexp.config.training import NOVELTY
from support.comparisons import asked, text_of
from support.run_folders import make_run
from support.runs import TINY_GPT

ON = ["callbacks.novelty.samples=3", "callbacks.novelty.tokens=30"]
Train = Callable[..., dict[str, Any]]


def rows(folder: str) -> list[dict[str, str]]:
    with (Path(folder) / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_are_those_of_the_command_and_nothing_else_changes(
    train_here: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = train_here(*TINY_GPT, folder="plain")
    seen = train_here(*TINY_GPT, *ON, folder="seen")
    assert {name: seen["metrics"][name] for name in plain["metrics"]} == plain["metrics"]
    assert not {*NOVELTY} & {*plain["metrics"], *rows("plain")[0]}
    capsys.readouterr()
    main(["seen", "--samples", "3", "--tokens", "30", "--json", "--logs", "."])
    means = json.loads(capsys.readouterr().out)["means"]
    for name in NOVELTY:
        assert seen["metrics"][name] == pytest.approx(means[name.partition("/")[2]]["model"]["mean"])
    first, last = rows("seen")
    assert not any(first[name] for name in NOVELTY)
    assert {name: float(last[name]) for name in NOVELTY} == {name: seen["metrics"][name] for name in NOVELTY}
    assert {name: last[name] for name in plain["metrics"]} == {
        name: rows("plain")[1][name] for name in plain["metrics"]
    }


def test_a_run_that_only_lacks_its_result_gets_the_same_metrics(train_here: Train) -> None:
    whole = train_here(*TINY_GPT, *ON)
    before = rows("run")
    Path("run/result.json").unlink()
    again = train_here(*TINY_GPT, *ON, "resume=run")
    assert again["metrics"] == whole["metrics"]
    assert [{**row, "seconds": ""} for row in rows("run")] == [{**row, "seconds": ""} for row in before]


def test_early_stopping_completes_the_last_row(train_here: Train) -> None:
    steps = ["trainer.max_steps=9", "trainer.val_every_steps=1", "callbacks=early_stopping"]
    stop = ["callbacks.plugins.early_stopping.patience=1", "+callbacks.plugins.early_stopping.min_delta=9"]
    found = train_here(*TINY_GPT, *ON, *steps, *stop)
    assert found["steps"] == 2
    assert [bool(row["novelty/longest_span"]) for row in rows("run")] == [False, True]


def test_runs_can_be_compared_by_it(tmp_path: Path) -> None:
    """A larger share of new n-grams is better."""
    for width, share in ((8, 0.5), (16, 0.8)):
        for seed in (1, 2, 3):
            metrics = {"val/loss": 1.0, "val/bpb": 2.0, "novelty/new_ngrams_5": share + seed * width % 7 / 1000}
            make_run(tmp_path / f"{width}-{seed}", seed=seed, model__n_embd=width, result={"metrics": metrics})
    shown = text_of(asked(tmp_path, metric="novelty/new_ngrams_5", baseline="n_embd=8"))
    assert "better than n_embd 8: n_embd 16" in shown


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["callbacks.novelty.samples=-1"], r"callbacks\.novelty\.samples=-1: must be at least 0"),
        ([*ON, "callbacks.novelty.tokens=700"], r"callbacks\.novelty\.tokens=700: the validation text has 600 tokens"),
        ([*ON, "objective=mlm"], r"callbacks\.novelty\.samples=3: needs a model that generates text"),
    ],
)
def test_wrong_settings_are_refused_before_training(train_here: Train, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_here(*TINY_GPT, *overrides)
    assert not Path("run/checkpoints").exists()
