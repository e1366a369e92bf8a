"""The length of a run: resolved to a number of steps once, before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.runs.opening import load
from gptexp.runs.result import read_result
from gptexp.training import timing
from gptexp.training.experiment import run_experiment
from gptexp.training.timing import Times
from support.runs import TINY, TINY_GPT, command

Train = Callable[..., dict[str, Any]]


def weights(folder: str) -> dict[str, Any]:
    return {name: value.tolist() for name, value in load(Path(folder) / "checkpoints/last.ckpt").model.items()}


def test_a_resolution_replaces_the_steps_of_the_settings(train_here: Train) -> None:
    given = train_here(*TINY_GPT, "trainer.max_steps=5", folder="given")
    config = compose([*TINY, *TINY_GPT, "data.path=story.txt", "trainer.max_steps=9"])
    result = run_experiment(config, Path("resolved"), steps=5)
    assert given["length"] == {"asked": {"max_steps": 5}, "max_steps": 5}
    assert result.length == {"asked": {"max_steps": 9}, "max_steps": 5}
    assert result.steps == 5
    assert result.metrics == given["metrics"]
    assert weights("resolved") == weights("given")
    assert load(Path("resolved/checkpoints/last.ckpt")).config["trainer"] == to_plain(config)["trainer"]


TOKENS_PER_STEP = 4 * 16  # of TINY: windows and block_size
UNSET = "trainer.max_steps=null"  # TINY gives it
BY_TIME = [*TINY_GPT, UNSET, "trainer.max_time=2s", "trainer.val_every_steps=7", "model.dropout=0.1"]


@pytest.mark.parametrize(
    ("override", "steps"),
    [
        ("trainer.max_tokens=320", 5),
        ("trainer.max_tokens=383", 5),
        ("trainer.max_tokens=1", 1),
        ("trainer.max_flops={flops_of_3_steps}", 3),
        ("trainer.max_flops={almost_3_steps}", 2),
        ("trainer.tokens_per_parameter={tokens_of_4_steps}", 4),
    ],
)
def test_a_budget_gives_the_most_steps_that_it_affords(train_here: Train, override: str, steps: int) -> None:
    one = train_here(*TINY_GPT, "trainer.max_steps=1", folder="one")
    flops = one["flops_per_token"] * TOKENS_PER_STEP
    values = {
        "flops_of_3_steps": 3 * flops,
        "almost_3_steps": 3 * flops - 1,
        "tokens_of_4_steps": (4 * TOKENS_PER_STEP + 1) / one["trainable_parameters"],
    }
    result = train_here(*TINY_GPT, UNSET, override.format(**values))
    assert result["steps"] == result["length"]["max_steps"] == result["history"][-1]["max_steps"] == steps
    name, _, value = override.format(**values).partition("=")
    assert result["length"]["asked"] == {name.removeprefix("trainer."): float(value)}


def test_a_model_without_flops_refuses_a_budget_of_flops_by_name(train_here: Train) -> None:
    with pytest.raises(ValueError, match=r"^trainer.max_flops=1e\+12: a model of kind bigram has no FLOPs"):
        train_here("model=bigram", UNSET, "trainer.max_flops=1e12")
    assert not Path("run/checkpoints").exists()


def test_a_warm_up_longer_than_the_resolved_run_is_refused(train_here: Train) -> None:
    message = r"^schedule.warmup_steps=6: must be at most the 5 steps of trainer.max_tokens=320"
    with pytest.raises(ValueError, match=message):
        train_here(*TINY_GPT, UNSET, "schedule.warmup_steps=6", "trainer.max_tokens=320")


def test_a_resumed_run_keeps_its_recorded_steps_until_its_length_changes(train_here: Train) -> None:
    train_here(*TINY_GPT, UNSET, "trainer.max_tokens=320", folder="source")
    with pytest.raises(ValueError, match=r"already complete \(5 steps\); raise trainer.max_tokens to continue"):
        run_experiment(compose(["resume=source", "trainer=cpu"]), Path("same"))
    longer = run_experiment(compose(["resume=source", "trainer=cpu", "trainer.max_steps=7"]), Path("longer"))
    assert longer.length == {"asked": {"max_steps": 7}, "max_steps": 7}
    other = run_experiment(compose(["resume=longer", "trainer=cpu", "trainer.max_tokens=576"]), Path("other"))
    assert other.length == {"asked": {"max_tokens": 576}, "max_steps": 9}


def test_a_measured_run_equals_one_with_its_steps_given(train_here: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST", 0.2)
    line = [*BY_TIME, "trainer.max_time=1s"]
    measured = train_here(*line, folder="measured")
    steps = measured["length"]["max_steps"]
    assert measured["length"] == {"asked": {"max_time": "1s"}, "max_steps": steps}
    given = train_here(*line, "trainer.max_time=null", f"trainer.max_steps={steps}", folder="given")
    assert measured["metrics"] == given["metrics"]
    assert measured["history"] == given["history"]
    assert weights("measured") == weights("given")


@pytest.mark.parametrize(
    ("seconds", "val_every_steps", "steps"),
    [(60, 64, 2496), (61, 64, 2560), (61.75, 64, 2576), (60, 10_000, 3744), (1.2, 64, 1), (0.1, 64, 1)],
)
def test_a_measurement_counts_validations_and_the_rest(seconds: float, val_every_steps: int, steps: int) -> None:
    times = Times(step=1 / 64, validation=0.5, rest=1.0)
    assert times.steps_within(seconds, val_every_steps) == steps
    needed = [times.rest + n * times.step + -(-n // val_every_steps) * times.validation for n in (steps, steps + 1)]
    assert needed[0] <= seconds or steps == 1
    assert needed[1] > seconds


@pytest.mark.slow
def test_a_killed_run_keeps_its_measured_steps_and_equals_an_undisturbed_one(workplace: Path) -> None:
    trace = "+callbacks.plugins.trace={_target_: gptexp.training.callbacks.trace.Trace, kill_at: 9}"
    line = [*TINY, "data.path=story.txt", *BY_TIME, "callbacks.checkpoint.every_steps=4"]
    killed = command("train", *line, trace, "hydra.run.dir=killed", cwd=workplace)
    assert killed.returncode != 0
    stored = load(workplace / "killed/checkpoints/last.ckpt")
    assert (stored.step, stored.config["trainer"]["max_time"]) == (8, "2s")
    assert stored.history is not None
    done = command("train", "resume=killed", "callbacks.plugins.trace.kill_at=null", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "measuring" not in done.stdout
    result = read_result(workplace / "killed")
    assert result.length == {"asked": {"max_time": "2s"}, "max_steps": stored.history[-1]["max_steps"]}
    assert result.steps == stored.history[-1]["max_steps"]
    undisturbed = run_experiment(compose(line), Path("whole"), steps=result.steps)
    assert undisturbed.metrics == result.metrics
    assert weights("whole") == weights("killed")


@pytest.mark.slow
def test_ranks_agree_on_the_measured_steps(workplace: Path) -> None:
    line = [*TINY, "data.path=story.txt", *BY_TIME, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    done = command("train", *line, "hydra.run.dir=measured", cwd=workplace, quick=True)
    assert done.returncode == 0, done.stderr
    steps = read_result(workplace / "measured").steps
    assert steps is not None
    line += ["trainer.max_time=null", f"trainer.max_steps={steps}"]
    given = command("train", *line, "hydra.run.dir=given", cwd=workplace, quick=True)
    assert given.returncode == 0, given.stderr
    assert weights("measured") == weights("given")
