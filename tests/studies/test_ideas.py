"""An idea must leave length, data, score and seeds alone, and what it may not change is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gptexp.studies.ideas import base_of, idea_of
from gptexp.util.errors import ConfigError
from support.runs import TINY, TINY_GPT, story

BASE = " ".join([*TINY, *TINY_GPT, "data.path=story.txt", "optimizer.lr=0.01"])


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    (tmp_path / "other.txt").write_text(story(130), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("idea", "names"),
    [
        ("trainer.max_steps=3", "trainer.max_steps"),
        ("trainer.val_every_steps=1", "trainer.val_every_steps"),
        ("data.path=other.txt", "data.path"),
        ("data.val_bytes=500", "data.val_bytes"),
        ("data=pydocs", "data"),
        ("objective=mlm", "objective"),
        ("init_from=run", "init_from"),
        ("paths.logs=elsewhere", "paths.logs"),
        ("data.global_batch_size=8", "data.global_batch_size"),
        ("model.block_size=32", "model.block_size"),
        ("seed=3", "seed"),
        ("resume=latest", "resume"),
        ("sweep.retries=1", "sweep.retries"),
        ("hydra.run.dir=x", "hydra.run.dir"),
    ],
)
def test_a_setting_that_must_be_shared_is_refused_by_name(idea: str, names: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(names)}[=:]"):
        idea_of(base_of(BASE), idea)


def test_a_preset_that_changes_the_length_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.max_steps: .*580 in the base, 90 in the idea"):
        idea_of(base_of("data=shakespeare data.val_bytes=null"), "experiment=speedrun_cpu")


@pytest.mark.parametrize(
    "idea",
    [
        "model.activation=relu model.mlp_ratio=3",
        "tokenizer=byte",
        "data.micro_batch_size=2 optimizer.lr=0.02",
        "model.block_size=8 data.global_batch_tokens=64 data.global_batch_size=null",
        "optimizer=adamw",
    ],
)
def test_an_idea_at_equal_budget_is_composed(idea: str) -> None:
    base = base_of(BASE)
    composed = idea_of(base, idea)
    assert composed.identity != base.identity
    assert composed.config.trainer == base.config.trainer


@pytest.mark.parametrize("length", ["trainer.max_tokens=200", "trainer.max_flops=1e7", "trainer.max_time=5min"])
def test_a_batch_may_change_if_the_length_is_not_in_steps(length: str) -> None:
    base = base_of(BASE.replace("trainer.max_steps=2", length))
    assert idea_of(base, "data.global_batch_size=8").config.data.global_batch_size == 8
    for other in ("trainer.max_steps=3", "trainer.max_flops=2e7", "trainer.max_time=6min"):
        with pytest.raises(ConfigError, match=f"^{other}: an idea can't change the length"):
            idea_of(base, other)


def test_a_length_that_depends_on_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.tokens_per_parameter: depends on the model"):
        base_of(BASE.replace("trainer.max_steps=2", "trainer.tokens_per_parameter=2"))


def test_the_idea_replaces_settings_of_the_base_and_quotes_are_read() -> None:
    idea = idea_of(base_of(BASE), "'optimizer.lr=0.03'")
    assert idea.config.lr == 0.03
    assert "optimizer.lr=0.01" not in idea.overrides


@pytest.mark.parametrize(
    ("base", "idea", "message"),
    [
        (BASE, "", "--idea: is empty"),
        (BASE, "'optimizer.lr=1", "no closing quotation"),
        (BASE, "optimizer.lr=0.01", "changes no setting that affects the result"),
        (BASE, "trainer.log_every_steps=7", "changes no setting that affects the result"),
        (BASE, "optimizer.lr=0.1,0.2", "has several values"),
        (BASE, "optimizer.lrr=0.1", "optimizer.lr"),
        (BASE.replace("story.txt", "none.txt"), "optimizer.lr=1", "none.txt"),
        (f"{BASE} seed=2", "optimizer.lr=1", "seed=2: gptexp judge chooses the seeds"),
    ],
)
def test_a_wrong_text_is_one_error_that_names_it(base: str, idea: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        idea_of(base_of(base), idea)
    assert "\n" not in str(error.value)
