"""Training on a mixture: its scores, its length, resumption, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.compose.composition import compose, config_from_plain
from gptexp.compose.inheritance import check_against_source
from gptexp.config import MixtureConfig
from gptexp.config.conversion import to_plain
from gptexp.data.mixture import prepare_mixture
from gptexp.evaluation.scoring import score_tokens
from gptexp.objectives.loading import load_model
from gptexp.report.comparable import NotComparable
from gptexp.report.comparison import Question, compare_folders
from gptexp.runs.opening import load
from gptexp.training.experiment import run_experiment
from gptexp.util.errors import ConfigError
from support.runs import TINY, TINY_GPT

Train = Callable[..., dict[str, Any]]
FOX = "The quick brown fox jumps over the lazy dog. "
PARTS = [
    *("data=mixture", "data.parts.story.kind=text", "data.parts.story.path=story.txt"),
    *("data.parts.fox=text", "data.parts.fox.path=fox.txt", "data.parts.fox.weight=3"),
]


@pytest.fixture
def train_mixture(workplace: Path) -> Train:
    (workplace / "fox.txt").write_text(FOX * 40, encoding="utf-8")

    def run(*overrides: str, folder: str = "run") -> dict[str, Any]:
        run_experiment(compose([*TINY, *PARTS, *TINY_GPT, "callbacks.samples.tokens=0", *overrides]), Path(folder))
        result: dict[str, Any] = json.loads((workplace / folder / "result.json").read_text(encoding="utf-8"))
        return result

    return run


def test_the_score_of_a_part_is_its_own_evaluation(train_mixture: Train) -> None:
    result = train_mixture("seed=2")
    config = compose([*TINY, *PARTS, *TINY_GPT])
    path = Path("run/checkpoints/last.ckpt")
    model, tokenizer = load_model(load(path), path)
    assert isinstance(config.data, MixtureConfig)
    data = prepare_mixture(config.data, tokenizer, Path("data/cache"))
    scores = {name: score_tokens(model, tokenizer, part.val, block_size=16) for name, part in data.parts.items()}
    metrics = result["metrics"]
    for name, score in scores.items():
        assert metrics[f"val/bpb/{name}"] == pytest.approx(score.bpb, rel=1e-6)
        assert result["val"]["parts"][name]["bytes"] == score.bytes
    together = scores["fox"] + scores["story"]
    assert metrics["val/bpb"] == pytest.approx(together.bpb, rel=1e-6)
    assert metrics["val/bpb/weighted"] == pytest.approx(0.75 * scores["fox"].bpb + 0.25 * scores["story"].bpb, rel=1e-6)
    assert {name: (part["share"], part["windows"]) for name, part in result["mixture"].items()} == {
        "fox": (0.75, 6), "story": (0.25, 2),
    }  # fmt: skip
    with Path("run/metrics.csv").open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["val/bpb/fox"]) == metrics["val/bpb/fox"]


def test_a_run_stops_before_a_part_would_repeat(train_mixture: Train) -> None:
    result = train_mixture(
        "data.exhausted=stop", "trainer.max_steps=500", "trainer.val_every_steps=500", "data.parts.fox.weight=1000"
    )
    windows = (int(len(FOX * 40) * 0.9) - 1) // 16
    assert result["steps"] == result["length"]["max_steps"] == windows // 4
    assert result["mixture"]["fox"]["epochs"] <= 1


def test_a_resumed_run_equals_an_uninterrupted_one_and_keeps_its_weights(train_mixture: Train) -> None:
    whole = train_mixture("trainer.max_steps=4", "schedule=constant", folder="whole")
    train_mixture("schedule=constant", folder="half")
    changed = compose(["resume=half", "data.parts.fox.weight=2", "paths.logs=."])
    with pytest.raises(ConfigError, match=r"^data\.parts\.fox\.weight=2: .* has 3, which can't change"):
        check_against_source(changed)
    run_experiment(compose(["resume=half", "trainer.max_steps=4", "paths.logs=."]), Path("more"))
    assert json.loads(Path("more/result.json").read_text(encoding="utf-8"))["metrics"] == whole["metrics"]


def test_masked_tokens_are_scored_by_part_too(train_mixture: Train) -> None:
    metrics = train_mixture("objective=mlm")["metrics"]
    assert sorted(metrics) == [
        "val/mlm_accuracy", "val/mlm_loss", "val/mlm_loss/fox", "val/mlm_loss/story", "val/mlm_loss/weighted",
    ]  # fmt: skip


def test_weights_are_compared_by_scores_that_do_not_depend_on_them(train_mixture: Train) -> None:
    train_mixture(folder="runs/a")
    train_mixture("data.parts.fox.weight=1", folder="runs/b")
    for metric in ("val/bpb", "val/bpb/story"):
        found = compare_folders([Path("runs")], Question(metric=metric))
        assert found.keys == ["data.parts.fox.weight"]
        assert len(found.rows) == 2
    with pytest.raises(NotComparable, match="other weights, by which val/bpb/weighted is averaged"):
        compare_folders([Path("runs")], Question(metric="val/bpb/weighted"))


def test_a_stored_mixture_composes_to_itself(workplace: Path) -> None:
    config = compose(
        ["data=mixture", "data.parts.tales=tinystories", "data.parts.pydocs.weight=0.5", "data.val_bytes=99"]
    )
    parts = to_plain(config)["data"]["parts"]
    assert parts["pydocs"] == {
        "kind": "pydocs",
        "weight": 0.5,
        "val_fraction": 0.1,
        "val_bytes": 99,
        "max_tokens": None,
    }
    assert (parts["tales"]["dataset"], parts["tales"]["val_fraction"]) == ("roneneldan/TinyStories", 0.01)
    assert config_from_plain(to_plain(config)) == config
    assert list(to_plain(compose(["data=mixture"]))["data"]["parts"]) == ["pydocs", "python_stdlib"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("data.parts.pydocs.weight=1", "data.parts=pydocs: must name at least two corpora"),
        ("data.parts.x=shakespear", "data.parts.x=shakespear: no such option; did you mean shakespeare?"),
        ("data.parts.x.kind=foo", "data.parts.x.kind=foo: unknown; choose one of pydocs"),
        ("data.parts.x=mixture", "data.parts.x=mixture: a mixture can't be a part of a mixture"),
        ("data.parts.x.weight=1", "data.parts.x: names no corpus; add data.parts.x=OPTION"),
        ("data.parts.x=pydocs data.parts.x.weight=nan", "data.parts.x.weight=nan: must be a number above 0"),
        ("data.parts.x=pydocs data.parts.x.weight=1e-9", "data.parts.x.weight=1e-09: gives a share of 1.0e-09"),
        ("data.parts.a-b=pydocs", "data.parts=a-b: must be letters, digits and underscores"),
        ("data.parts.x=pydocs data.parts.x.foo=3", "data.parts.x.foo=3: no such setting of kind pydocs"),
        ("data.parts.x=pydocs data.parts.x.num_workers=1", "data.parts.x.num_workers=1: is a setting of all parts"),
        ("data.parts.x=pydocs data.parts.x.val_fraction=2", "data.parts.x.val_fraction=2.0: must be between 0 and 1"),
        ("data.parts.x=text", "data.parts.x.path=null: must name the files to read"),
        ("data.parts.x=pydocs objective=classification", "objective=classification: needs texts with labels"),
    ],
)
def test_a_wrong_part_is_named(overrides: str, message: str) -> None:
    others = [] if overrides.endswith("pydocs.weight=1") else ["data.parts.python_stdlib.weight=1"]
    with pytest.raises(ConfigError, match="^" + re.escape(message)):
        compose(["data=mixture", *others, *overrides.split()])
