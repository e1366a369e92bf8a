"""Jobs of a sweep that share their first steps: each computed once, and nothing but times differs."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.config.trajectory import Trajectory, trajectory
from gptexp.sweep import job as one_job
from gptexp.sweep import share, store
from gptexp.sweep.plan import plan
from support import child_processes
from support.labelled_texts import CLASSIFY, sentences, write_csv
from support.runs import TINY, TINY_GPT
from support.same_runs import differences

BASE = [*TINY, *TINY_GPT, "data.path=story.txt"]
WSD = ["schedule=wsd", "schedule.warmup_steps=2"]
OWN_RATES = ["optimizer=muon", "optimizer.scalar_lr=0.004"]


def run_sweep(*overrides: str, name: str, order: list[int] | None = None) -> Path:
    """Run the jobs of a sweep in this process, one after another."""
    made = store.join(plan([*BASE, *overrides, f"sweep.name={name}"]))
    for number in share.in_order(made, made.unfinished()) if order is None else order:
        assert one_job.run(made.folder, number) is not None
    return made.folder


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return content


def computed(folder: Path) -> list[int]:
    return [result(folder / job.name)["steps_computed"] for job in store.read(folder).jobs]


def path_of(*overrides: str, steps: int) -> Trajectory:
    found = trajectory(to_plain(compose([*BASE, f"trainer.max_steps={steps}", *overrides])), steps)
    assert found is not None
    return found


# ------------------------------------------------------------------------------------ planning


def test_runs_are_equal_until_their_learning_rates_differ(workplace: Path) -> None:
    wsd = ["schedule=wsd", "schedule.warmup_steps=5"]
    short, long = path_of(*wsd, steps=100), path_of(*wsd, steps=200)
    assert short.common(long) == long.common(short) == 81  # the first step of a decay has the peak rate
    assert short.key(81) == long.key(81)
    assert short.key(82) != long.key(82)
    constant = path_of("schedule=constant", "schedule.warmup_steps=5", steps=300)
    assert (constant.common(long), constant.common(constant)) == (161, 300)
    assert path_of("schedule=constant", "schedule.warmup_steps=6", steps=300).common(long) == 0
    assert path_of(*wsd, "seed=2", steps=200).common(long) == 0
    assert path_of(*wsd, "trainer.val_every_steps=7", "trainer.log_every_steps=3", steps=200).common(long) == 200
    muon = ["optimizer=muon", "optimizer.lr=0.01"]
    assert path_of(*wsd, *muon, "optimizer.muon_lr=0.01", steps=9).common(path_of(*wsd, *muon, steps=9)) == 9
    for name in ("muon_lr", "embedding_lr", "scalar_lr"):
        assert path_of(*wsd, *muon, f"optimizer.{name}=0.02", steps=9).common(path_of(*wsd, *muon, steps=9)) == 0


@pytest.mark.parametrize(
    "override",
    ["data.global_batch_size=8", "data.micro_batch_size=2", "model.dropout=0.1", "optimizer.weight_decay=0",
     "trainer.precision=64-true", "trainer.gradient_clip=null", "callbacks.samples.tokens=5", "data.val_bytes=500"],
)  # fmt: skip
def test_a_setting_that_changes_steps_or_scores_is_not_shared(workplace: Path, override: str) -> None:
    assert path_of(override, steps=9).common(path_of(steps=9)) == 0


def test_runs_whose_record_cannot_be_rebuilt_do_not_share(workplace: Path) -> None:
    for plugin in ("gptexp.training.callbacks.trace.Trace", "lightning.pytorch.callbacks.Timer"):
        settings = to_plain(compose([*BASE, f"+callbacks.plugins.x={{_target_: {plugin}}}"]))
        assert trajectory(settings, 9) is None
    settings = to_plain(compose([*BASE, "callbacks=early_stopping"]))
    found = trajectory(settings, 9)
    assert found is not None
    assert found.common(path_of(steps=9)) == 9
    settings["trainer"]["max_time"] = "5min"
    assert trajectory(settings, 9) is None


def test_a_ladder_of_lengths_costs_the_longest_and_the_decays(workplace: Path) -> None:
    line = [*BASE, *WSD, "trainer.max_steps=800,200,400", "seed=1,2"]
    made = store.join(plan(line))
    assert share.in_order(made, range(6)) == [2, 3, 4, 5, 0, 1]  # the shortest first, seeds in turn
    ordered = [made.jobs[number] for number in share.in_order(made, range(6))]
    steps = [int(made.steps_of(job) or 0) for job in ordered]
    computed = share.steps_to_compute(ordered, steps)
    assert computed == [200, 200, 400 - 161, 400 - 161, 800 - 321, 800 - 321]
    assert share.in_words(steps, computed) == "1,836 of 2,800 steps (66%)"
    found = share.sharing_of(made, 4)  # 400 steps
    assert found is not None
    assert found.starts == [321, 161]
    assert {(Path(other.folder).name, other.step) for other in found.others} == {
        ("max_steps=800,seed=1", 321),
        ("max_steps=200,seed=1", 161),
    }
    assert share.sharing_of(store.join(plan([*line, "sweep.share=false", "sweep.name=alone"])), 4) is None


def test_a_dry_run_tells_what_sharing_saves(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from rich.console import Console

    from gptexp.sweep import probe

    measured = probe.Measurement(100.0, 100.0, 1, 1, 1.0, 1)  # a step takes a second
    monkeypatch.setattr(probe, "measure", lambda settings: measured)
    line, out = [*BASE, *WSD, "trainer.max_steps=200,400,800", "seed=1,2"], io.StringIO()
    probe.show(plan(line), Console(file=out, width=80))
    assert (
        "1,836 of 2,800 steps (66%) are computed · about 31 minutes; sweep.share=false computes all" in out.getvalue()
    )
    assert "6 jobs · about 47 minutes one after another" in out.getvalue()
    out = io.StringIO()
    probe.show(plan([*line, "sweep.share=false"]), Console(file=out, width=80))
    assert "sharing" not in out.getvalue()
    assert "2,800" not in out.getvalue()


# ------------------------------------------------------------------------------------ equality


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        ([*WSD, "trainer.max_steps=10,20", "trainer.val_every_steps=3", "trainer.log_every_steps=2"], [10, 11]),
        (["schedule=constant", "schedule.warmup_steps=1", "trainer.max_steps=6,9", "model.dropout=0.1"], [6, 3]),
        (["trainer.max_steps=9", "trainer.val_every_steps=2,5", "trainer.log_every_steps=1,4"], [9, 1, 1, 1]),
        ([*WSD, "trainer.max_steps=8,16", "data.micro_batch_size=2", *OWN_RATES], [8, 9]),
        ([*WSD, "trainer.max_steps=8", "schedule.decay_fraction=0.25,0.5", "trainer.precision=64-true"], [8, 3]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_sharing_changes_nothing_but_the_steps_computed(workplace: Path, line: list[str], steps: list[int]) -> None:
    shared, alone = run_sweep(*line, name="shared"), run_sweep(*line, "sweep.share=false", name="alone")
    assert computed(shared) == steps
    assert computed(alone) == [result(alone / job.name)["steps"] for job in store.read(alone).jobs]
    for job in store.read(shared).jobs:
        assert differences(alone / job.name, shared / job.name) == []
    assert not (shared / ".prefixes").exists()
    assert not list(shared.glob("*/checkpoints/best-every-*"))


def test_the_longest_job_first_gives_the_same_runs(workplace: Path) -> None:
    line = [*WSD, "trainer.max_steps=6,12,24", "trainer.val_every_steps=4"]
    shared = run_sweep(*line, name="shared", order=[2, 0, 1])
    alone = run_sweep(*line, "sweep.share=false", name="alone")
    assert computed(shared) == [6 - 5, 12 - 11, 24]
    for job in store.read(shared).jobs:
        assert differences(alone / job.name, shared / job.name) == []


def test_early_stopping_and_other_validation_intervals_share(workplace: Path) -> None:
    """A job that early stopping ends starts from a prefix before that step."""
    line = ["schedule=constant", "schedule.warmup_steps=1", "trainer.max_steps=12,30", "trainer.val_every_steps=2,3"]
    stop = ["callbacks=default,early_stopping", "optimizer=adamw", "optimizer.lr=3"]
    shared = run_sweep(*line, *stop, name="shared")
    alone = run_sweep(*line, *stop, "sweep.share=false", name="alone")
    jobs = [job.name for job in store.read(shared).jobs]
    assert {job: differences(alone / job, shared / job) for job in jobs} == {job: [] for job in jobs}
    steps = [result(alone / job)["steps"] for job in jobs]
    assert any(12 < n < 30 for n in steps)
    assert sum(computed(shared)) < sum(steps) / 2


def test_classifiers_share_too(workplace: Path) -> None:
    write_csv("texts.csv", sentences(200))
    folders = []
    for name, more in (("shared", []), ("alone", ["sweep.share=false"])):
        line = [*CLASSIFY, *WSD, "trainer.max_steps=6,12", "trainer.val_every_steps=2", f"sweep.name={name}", *more]
        made = store.join(plan(line))
        assert all(one_job.run(made.folder, number) is not None for number in range(2))
        folders.append(made.folder)
    assert computed(folders[0]) == [6, 6]  # the only step of the short decay has the peak rate
    for job in ("max_steps=6", "max_steps=12"):
        assert differences(folders[1] / job, folders[0] / job) == []


def test_a_prefix_is_accepted_only_by_the_mark_inside_it(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*BASE, *WSD, "trainer.max_steps=10,20", "model.n_head=1,2"]
    made = store.join(plan([*line, "sweep.name=mine"]))
    for number in (0, 1):
        one_job.run(made.folder, number)
    places = sorted((made.folder / ".prefixes").iterdir())
    first, second = (place / "prefix.ckpt" for place in places)
    assert first.read_bytes() != second.read_bytes()
    moved = first.read_bytes()
    first.write_bytes(second.read_bytes())  # of the other model
    second.write_bytes(moved[: len(moved) // 2])  # damaged
    for number in (2, 3):
        one_job.run(made.folder, number)
    printed = capsys.readouterr().out
    assert printed.count("notice: the stored prefix of 9 steps is not used: ") == 2
    assert "of other settings, code, data or another kind of machine" in printed
    assert computed(made.folder) == [10, 10, 20, 20]
    alone = run_sweep(*line[len(BASE) :], "sweep.share=false", name="alone")
    for job in made.jobs:
        assert differences(alone / job.name, made.folder / job.name) == []


def test_a_prefix_of_other_code_is_not_used(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = store.join(plan([*BASE, *WSD, "trainer.max_steps=10,20", "sweep.name=mine"]))
    one_job.run(made.folder, 0)
    monkeypatch.setattr("gptexp.runs.provenance.code_sha256", lambda settings=None: "f" * 64)
    one_job.run(made.folder, 1)
    assert computed(made.folder) == [10, 20]
    assert (
        "notice: the stored prefix of 9 steps is not used: prefix.ckpt is of other settings, code"
        in capsys.readouterr().out
    )


def test_prefixes_stay_until_no_unfinished_job_needs_them(workplace: Path) -> None:
    made = store.join(plan([*BASE, *WSD, "trainer.max_steps=10,20,40", "sweep.name=mine"]))
    places: list[int] = []
    for number in range(3):
        one_job.run(made.folder, number)
        places.append(len(list((made.folder / ".prefixes").glob("*"))))
    assert places == [1, 2, 0]  # after 9 steps; after 9 and 17, both of which the last job can start from
    assert computed(made.folder) == [10, 11, 23]


def test_two_jobs_that_end_at_once_may_both_delete_prefixes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store.join(plan([*BASE, *WSD, "trainer.max_steps=10,20", "sweep.name=mine"]))
    (made.folder / ".prefixes/of-nothing").mkdir(parents=True)
    status = store.Sweep.status

    def deleting(sweep: store.Sweep, job: Any) -> str:
        shutil.rmtree(sweep.folder / ".prefixes", ignore_errors=True)
        return status(sweep, job)

    monkeypatch.setattr(store.Sweep, "status", deleting)
    share.tidy(made)
    share.tidy(made)
    assert not (made.folder / ".prefixes").exists()


def test_the_origin_of_shared_steps_is_recorded(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_sweep(*WSD, "trainer.max_steps=10,20,40", name="mine")
    last = folder / "max_steps=40"
    origins = {
        path.name: json.loads(path.read_text(encoding="utf-8")).get("computed_by")
        for path in last.glob("provenance*.json")
    }
    assert origins == {
        "provenance.json": "max_steps=10",
        "provenance-9.json": "max_steps=20",
        "provenance-17.json": None,
    }
    assert (result(last)["steps_computed"], result(last)["resumed_from"]) == (23, 17)
    assert [part["to"] for part in result(last)["history"]] == [40]  # so compare calls it no extension
    assert "continuing job max_steps=20 from step 17" in capsys.readouterr().out


@pytest.mark.parametrize("saved", [False, True])
def test_a_job_killed_while_it_starts_from_a_prefix_starts_again(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    line = [*WSD, "trainer.max_steps=10,20", "trainer.val_every_steps=4"]
    made = store.join(plan([*BASE, *line, "sweep.name=mine"]))
    one_job.run(made.folder, 0)

    class Killed(BaseException):
        """Ends the job as SIGKILL does: nothing handles it."""

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        after_curves, after_checkpoint = "gptexp.training.continuing.ckpt.save", "gptexp.training.build.seeded"
        broken.setattr(after_checkpoint if saved else after_curves, killed)
        with pytest.raises(Killed):
            one_job.run(made.folder, 1)
    place = made.place(made.jobs[1])
    assert (place / "metrics.csv").exists()
    assert (place / "checkpoints/last.ckpt").exists() == saved
    assert one_job.run(made.folder, 1) is not None
    alone = run_sweep(*line, "sweep.share=false", name="alone")
    assert computed(made.folder) == [10, 11]
    assert differences(alone / "max_steps=20", place) == []


def test_a_full_disk_does_not_fail_the_job_that_stores(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    made = store.join(plan([*BASE, *WSD, "trainer.max_steps=10,20", "sweep.name=mine"]))
    monkeypatch.setattr("gptexp.training.prefixes.link", full)
    for number in (0, 1):
        one_job.run(made.folder, number)
    assert "notice: the prefix of 9 steps could not be stored: " in capsys.readouterr().out
    assert computed(made.folder) == [10, 20]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_jobs_of_several_processes_share(workplace: Path, quick_ranks: None) -> None:
    line = [
        *WSD,
        "trainer.max_steps=10,20",
        "trainer.val_every_steps=4",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
    ]
    for kind in ("ddp", "fsdp"):
        settings = [*line, f"trainer.strategy={kind}", "schedule.decay_fraction=0.2", "model.dropout=0.1"]
        shared = run_sweep(*settings, name=f"{kind}-shared")
        alone = run_sweep(*settings, "sweep.share=false", name=f"{kind}-alone")
        assert sum(computed(shared)) < 30
        for job in store.read(shared).jobs:
            assert differences(alone / job.name, shared / job.name) == []


MORE_KILLS = partial(pytest.param, marks=pytest.mark.weekly)
LADDER = [*TINY, *TINY_GPT, "data.path=story.txt", "schedule=wsd", "schedule.warmup_steps=10", "model.n_layer=2",
          "trainer.max_steps=50,100,200", "seed=1,2", "trainer.val_every_steps=30", "trainer.log_every_steps=5",
          "callbacks.checkpoint.every_steps=12"]  # fmt: skip


def train(place: Path, *overrides: str) -> subprocess.Popen[Any]:
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return child_processes.start("gptexp.train", "-m", *LADDER, *overrides, cwd=place, **silent)


def written(folder: Path) -> int:
    """The number of rows in all metrics.csv files, about 150 at the end."""
    return sum(path.read_text(encoding="utf-8").count("\n") for path in folder.glob("*/metrics.csv"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("launcher", "kills"), [("basic", 2), ("cores", 1), MORE_KILLS("basic", 3), MORE_KILLS("cores", 3)]
)
def test_a_killed_ladder_equals_unshared_runs(workplace: Path, launcher: str, kills: int) -> None:
    chosen = [] if launcher == "basic" else ["hydra/launcher=cores", "hydra.launcher.n_jobs=2"]
    assert train(workplace, "sweep.name=alone", "sweep.share=false").wait() == 0
    assert train(workplace, *chosen, "sweep.name=shared").wait() == 0
    logs = workplace / "logs/sweeps"
    for rows in sorted(random.Random(19).sample(range(10, 140), kills)):
        process, deadline = train(workplace, *chosen, "sweep.name=killed"), time.monotonic() + 200
        while written(logs / "killed") < rows and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert train(workplace, *chosen, "sweep.name=killed").wait() == 0
    jobs = [job.name for job in store.read(logs / "alone").jobs]
    for name in ("shared", "killed"):
        assert {job: differences(logs / "alone" / job, logs / name / job) for job in jobs} == {job: [] for job in jobs}
        assert not (logs / name / ".prefixes").exists()
    assert sum(computed(logs / "alone")) == 700
    sums = [sum(computed(logs / name)) for name in ("shared", "killed")]
    assert max(sums) < 700  # in parallel, a job may start before its first steps are stored
    if launcher == "basic":
        assert sums == [456, 456]
