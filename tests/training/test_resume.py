"""What a resumed run inherits from its source, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptexp import evaluate
from gptexp.compose.composition import compose
from gptexp.compose.inheritance import check_against_source
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.opening import load
from gptexp.training.experiment import run_experiment as run_job
from gptexp.util.errors import ConfigError
from support.runs import TINY, TINY_GPT, story

# The learning rate is too small to change a weight: step 1 stays the best, and step 3 ends the patience of 2.
STOPPING = [
    *TINY, *TINY_GPT, "data.path=story.txt", "optimizer.lr=1e-30", "trainer.max_steps=50", "trainer.val_every_steps=1",
    "callbacks=early_stopping", "callbacks.plugins.early_stopping.patience=2", "callbacks.checkpoint.every_steps=7",
    "logger=csv",
]  # fmt: skip
RESUME = ["resume=run", "trainer=cpu"]
EARLY, LAST = "callbacks.plugins.early_stopping", "run/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with story.txt and ./run, which early stopping ended after step 3 of 50."""
    place, before = tmp_path_factory.mktemp("stopped"), Path.cwd()
    (place / "story.txt").write_text(story(120), encoding="utf-8")
    os.chdir(place)
    try:
        run_job(compose(STOPPING), Path("run"))
        yield place
    finally:
        os.chdir(before)


@pytest.fixture
def stopped(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """./run in a copy of that folder, which is the current one."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("run")


def result(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return content


def edit(run: Path, group: str | None, **changes: object) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    (settings[group] if group else settings).update(changes)
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def test_resume_restores_callbacks_and_loggers(stopped: Path) -> None:
    config = compose(RESUME)
    assert config.callbacks.plugins["early_stopping"]["patience"] == 2
    assert (config.callbacks.checkpoint.every_steps, config.logger.tensorboard) == (7, False)
    check_against_source(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{EARLY}.patience=3"], f"{EARLY}.patience=3: resume=run has 2, which can't change"),
        (["callbacks=default"], f"{EARLY}._target_=null: resume=run has lightning"),
        (
            ["+callbacks.plugins.timer={_target_: lightning.pytorch.callbacks.Timer}"],
            "callbacks.plugins.timer._target_=lightning.pytorch.callbacks.Timer: resume=run has null",
        ),
    ],
)  # fmt: skip
def test_resume_refuses_other_callbacks_that_change_what_is_computed(
    stopped: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check_against_source(compose([*RESUME, *overrides]))
    assert str(error.value).startswith(message)


def test_resume_accepts_other_callbacks_that_only_observe(stopped: Path) -> None:
    changes = ["callbacks.samples.tokens=3", "callbacks.checkpoint.every_steps=9", "logger=default"]
    config = compose([*RESUME, *changes, "+callbacks.plugins.trace={_target_: gptexp.training.callbacks.trace.Trace}"])
    check_against_source(config)
    assert (config.callbacks.samples.tokens, config.callbacks.checkpoint.every_steps) == (3, 9)
    assert config.logger.tensorboard
    assert list(config.callbacks.plugins) == ["early_stopping", "trace"]


def test_a_checkpoint_file_alone_restores_early_stopping(stopped: Path) -> None:
    shutil.copy(stopped / "checkpoints/previous.ckpt", "alone.ckpt")
    config = compose(["resume=alone.ckpt", "trainer=cpu"])
    assert config.callbacks.plugins["early_stopping"]["patience"] == 2
    run_job(config, Path("again"))
    assert result(Path("again"))["steps"] == 3


def test_a_run_killed_after_early_stopping_trains_no_further(stopped: Path) -> None:
    before = result(stopped)
    (stopped / "result.json").unlink()
    run_job(compose(RESUME), stopped)
    after = result(stopped)
    assert before["steps"] == 3
    assert [after[key] for key in ("steps", "metrics", "best")] == [before[key] for key in ("steps", "metrics", "best")]


def test_a_run_that_early_stopping_ended_is_not_trained_further(stopped: Path) -> None:
    with pytest.raises(
        ValueError, match=r"resume=run: a callback, such as early stopping, stopped the run after step 3.*init_from=run"
    ):
        run_job(compose([*RESUME, "trainer.max_steps=60"]), Path("further"))


def test_resume_restores_patience_and_the_best_checkpoint(stopped: Path) -> None:
    """The checkpoint of step 2 has used one validation of the patience, so step 3 is again the last step."""
    run_job(compose(["resume=run/checkpoints/previous.ckpt", "trainer=cpu"]), Path("again"))
    assert (result(Path("again"))["resumed_from"], result(Path("again"))["steps"]) == (2, 3)
    assert result(Path("again"))["best"]["step"] == 1
    assert load(Path("again/checkpoints/best.ckpt")).step == 1


def test_without_its_best_checkpoint_a_run_restarts_the_search(stopped: Path) -> None:
    (stopped / "checkpoints/best.ckpt").unlink()
    run_job(compose(["resume=run/checkpoints/previous.ckpt", "trainer=cpu"]), Path("again"))
    assert result(Path("again"))["best"]["step"] == load(Path("again/checkpoints/best.ckpt")).step == 3


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        ("optimizer", {"lr": 0.5}, f"optimizer.lr=0.5: {LAST} was trained with 1e-30, which can't change"),
        ("optimizer", {"weight_decay": 0.0}, f"optimizer.weight_decay=0.0: {LAST} was trained with 0.1"),
        (None, {"seed": 9}, f"seed=9: {LAST} was trained with 1"),
        (
            "callbacks",
            {"plugins": {"early_stopping": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "patience": 9}}},
            f"{EARLY}.monitor=null: {LAST} was trained with val/bpb",
        ),
        ("trainer", {"val_every_steps": 2}, f"trainer.val_every_steps=2: {LAST} was trained with 1"),
    ],
)  # fmt: skip
def test_resume_refuses_an_edited_config(
    stopped: Path, group: str | None, changes: dict[str, object], message: str
) -> None:
    edit(stopped, group, **changes)
    (stopped / "result.json").unlink()
    with pytest.raises(ValueError, match=r"a checkpoint of another run, or config\.yaml was edited") as error:
        run_job(compose(RESUME), stopped)
    assert str(error.value).startswith(message)


def test_init_from_refuses_an_edited_model(stopped: Path) -> None:
    edit(stopped, "model", n_head=1)
    with pytest.raises(ValueError, match=r"model\.n_head=1: run/checkpoints/last\.ckpt was trained with 2"):
        run_job(compose(["init_from=run", "trainer=cpu", "data=text", "data.path=story.txt"]), Path("tuned"))


def test_a_job_of_a_sweep_refuses_the_checkpoint_of_another_run(stopped: Path) -> None:
    from gptexp.sweep import job, store
    from gptexp.sweep.plan import plan

    made = store.join(plan([*STOPPING, "seed=2,3", "sweep.name=mine"]))
    shutil.copytree("run", made.folder / "seed=2")
    (made.folder / "seed=2/result.json").unlink()
    assert job.run(made.folder, 0) is None
    assert result(made.folder / "seed=2")["error"].startswith("seed=2: ")
    assert "was trained with 1, which can't change" in result(made.folder / "seed=2")["error"]


def test_a_setting_newer_than_a_run_has_its_default(stopped: Path) -> None:
    """The same for settings and groups that the checkpoint and config.yaml lack."""
    path = stopped / "checkpoints/last.ckpt"
    stored = load(path)
    for settings in (stored.config, file := yaml.safe_load((stopped / "config.yaml").read_text(encoding="utf-8"))):
        for group, key in (("model", "qk_norm"), ("trainer", "gradient_clip"), ("data", "max_tokens")):
            del settings[group][key]
        del settings["objective"]
    (stopped / "config.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")
    ckpt.save(replace(stored, stopped=False), path)
    config: Any = compose([*RESUME, "trainer.max_steps=4"])
    check_against_source(config)
    assert (config.model.qk_norm, config.trainer.gradient_clip) == (False, 1.0)
    run_job(config, Path("longer"))
    assert result(Path("longer"))["steps"] == 4
    check_against_source(compose(["init_from=run", "data=text", "data.path=story.txt"]))


def test_a_run_that_stores_a_removed_setting_still_resumes(stopped: Path) -> None:
    path = stopped / "checkpoints/last.ckpt"
    stored = load(path)
    stored.config["data"]["block_size"] = 16
    ckpt.save(replace(stored, stopped=False), path)
    edit(stopped, "data", block_size=16)
    config = compose([*RESUME, "trainer.max_steps=4"])
    check_against_source(config)
    run_job(config, Path("longer"))
    assert result(Path("longer"))["steps"] == 4
    assert "block_size" not in load(Path("longer/checkpoints/last.ckpt")).config["data"]
    evaluate.main([str(path), "--trust-data"])
