"""The length of a sweep's jobs: which layer gives it, and that all seeds of a configuration share its steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptexp.config.length import LENGTHS
from gptexp.sweep import job, lengths, store
from gptexp.sweep.plan import Plan, plan
from gptexp.sweep.share import sharing_of
from gptexp.training.length import Length
from gptexp.util.errors import ConfigError
from support.runs import TINY, TINY_GPT, command

BASE = [*TINY, *TINY_GPT, "data.path=story.txt"]
UNSET = "trainer.max_steps=null"  # TINY gives it


def asked(planned: Plan) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in job.config["trainer"].items() if name in LENGTHS and value is not None}
        for job in planned.jobs
    ]


def steps(folder: Path) -> list[int]:
    done = store.read(folder)
    return [json.loads((done.place(job) / "result.json").read_text())["length"]["max_steps"] for job in done.jobs]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["sweep=scaling", "model.n_embd=32"], [{"max_steps": n} for n in (400, 800, 1600)]),
        (
            ["sweep=scaling", "model.n_embd=32", "trainer.max_flops=1e12,1e13"],
            [{"max_flops": 1e12}, {"max_flops": 1e13}],
        ),
        (["sweep=scaling", "model.n_embd=32", "trainer.max_time=30s"], [{"max_time": "30s"}]),
        (["sweep=scaling", "model.n_embd=32", "trainer.max_steps=70"], [{"max_steps": 70}]),
        (["experiment=speedrun_cpu", "trainer.max_tokens=1e5,1e6"], [{"max_tokens": 10**5}, {"max_tokens": 10**6}]),
        (["experiment=speedrun_cpu", "seed=1,2"], [{"max_steps": 90}] * 2),
    ],
)
def test_the_command_line_replaces_the_length_of_a_preset(
    workplace: Path, overrides: list[str], expected: list[dict[str, Any]]
) -> None:
    (workplace / "shakespeare.txt").write_text("text " * 900)
    data = ["data=text", "data.path=story.txt"]
    assert asked(plan([*overrides, *data, "sweep.name=mine"])) == expected


def test_two_lengths_in_a_sweep_are_refused_naming_both(workplace: Path) -> None:
    line = [*BASE, UNSET, "trainer.max_flops=1e12,1e13", "trainer.max_time=30s", "seed=1,2"]
    with pytest.raises(ConfigError, match=r"^trainer.max_flops and trainer.max_time: a run has one length"):
        plan(line)


def test_budgets_are_resolved_before_the_first_job_and_share_steps(workplace: Path) -> None:
    line = ["schedule=wsd", "schedule.warmup_steps=1", UNSET, "trainer.max_tokens=640,1280", "seed=1,2"]
    planned = plan([*BASE, *line, "sweep.name=mine"])
    resolved = lengths.budgets(planned)
    assert sorted(length.max_steps for length in resolved.values()) == [10, 20]
    made = store.join(planned)
    assert [made.steps_of(job) for job in made.jobs] == [None] * 4
    lengths.store(resolved)
    assert [made.steps_of(job) for job in made.jobs] == [10, 10, 20, 20]
    assert lengths.budgets(planned) == {}
    sharing = sharing_of(made, 2)
    assert sharing is not None
    assert sharing.starts == [9]


def test_seeds_share_a_measured_length_and_other_settings_have_their_own(workplace: Path) -> None:
    line = [UNSET, "trainer.max_time=1s", "trainer.val_every_steps=1000,1001", "seed=1,2", "sweep.name=mine"]
    made = store.join(plan([*BASE, *line]))
    paths = [made.resolution_of(job) for job in made.jobs]
    assert paths[0] == paths[1] != paths[2] == paths[3]
    lengths.store({paths[2]: Length(asked={"max_time": "1s"}, max_steps=3)})
    for number in (1, 0, 2):
        job.run(made.folder, number)
    first = json.loads(paths[0].read_text())
    assert first["asked"] == {"max_time": "1s"}
    results = [json.loads((made.place(made.jobs[i]) / "result.json").read_text()) for i in (0, 1, 2)]
    assert [result["steps"] for result in results] == [first["max_steps"], first["max_steps"], 3]
    assert [made.steps_of(job) for job in made.jobs] == [first["max_steps"]] * 2 + [3, 3]


def test_a_resolution_of_another_budget_or_a_damaged_one_is_not_used(workplace: Path) -> None:
    planned = plan([*BASE, UNSET, "trainer.max_tokens=640", "seed=1,2", "sweep.name=mine"])
    made = store.join(planned)
    path = made.resolution_of(made.jobs[0])
    path.parent.mkdir()
    for content in (
        '{"asked": {"max_tokens": 641}, "max_steps": 10}',
        '{"asked": {"max_tokens": 640}, "max_steps": 0}',
        '{"asked": {"max_tokens": 640}, "max_steps": true}',
        "[]",
        "{",
    ):
        path.write_text(content)
        assert made.steps_of(made.jobs[0]) is None


def test_a_budget_that_a_model_cannot_have_is_refused_before_the_sweep(workplace: Path) -> None:
    line = [*TINY, "data.path=story.txt", "model=bigram", UNSET, "trainer.max_flops=1e9", "seed=1,2", "sweep.name=mine"]
    done = command("train", "-m", *line, cwd=workplace)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: trainer.max_flops=1e+09: a model of kind bigram has no")
    assert not (workplace / "logs/sweeps/mine/sweep.yaml").exists()


@pytest.mark.parametrize(
    ("override", "cells"),
    [("trainer.max_tokens=640", ["640"]), ("trainer.max_time=90s", ["1:30"]), ("trainer.tokens_per_parameter=1", [])],
)
def test_a_dry_run_estimates_a_budget(workplace: Path, override: str, cells: list[str]) -> None:
    done = command("train", *BASE, UNSET, override, "dry_run=true", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert all(cell in done.stdout for cell in cells)
    assert not (workplace / "logs").exists()
