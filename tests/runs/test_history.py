"""The history of a run: its code and its learning rates at each step."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.runs import checkpoint as ckpt
from gptexp.runs import code_hash, history
from gptexp.runs.opening import load
from gptexp.training.experiment import run_experiment as run_job
from support.run_folders import make_run
from support.runs import TINY_GPT

Train = Callable[..., dict[str, Any]]


def segments(schedule: str, *parts: tuple[int, int], **settings: object) -> list[history.Segment]:
    """Segments of a run: each ends at a step and was planned for a total number of steps."""
    found, first = [], 0
    for last, steps in parts:
        overrides = [f"schedule.{name}={value}" for name, value in settings.items()]
        config = compose([f"schedule={schedule}", f"trainer.max_steps={steps}", *overrides])
        found.append(history.segment(config, steps, first, last, "a"))
        first = last
    return history.checked(json.loads(json.dumps(found)))


@pytest.mark.parametrize(
    ("planned", "says"),
    [
        (partial(segments, "cosine", (40, 40)), None),
        (partial(segments, "cosine", (20, 20), (40, 40)), "at step 20 of 20"),
        (partial(segments, "cosine", (10, 20), (40, 40)), "at step 10 of 20"),
        (partial(segments, "cosine", (20, 20), (30, 30), (40, 40)), "at step 20 of 20, at step 30 of 30"),
        (partial(segments, "constant", (20, 20), (40, 40), warmup_steps=0), None),
        (partial(segments, "constant", (20, 20), (40, 40)), "at step 20 of 20"),  # 1 and 2 steps of warm-up
        (partial(segments, "wsd", (16, 20), (40, 40), warmup_steps=2), None),
        (partial(segments, "wsd", (18, 20), (40, 40), warmup_steps=2), "at step 18 of 20"),
        (partial(segments, "wsd", (40_000, 60_000), (90_000, 90_000), warmup_steps=2), None),
        (partial(segments, "wsd", (50_000, 60_000), (90_000, 90_000), warmup_steps=2), "at step 50000 of 60000"),
    ],
)
def test_a_run_is_extended_only_if_its_learning_rates_differ(
    planned: Callable[[], list[history.Segment]], says: str | None
) -> None:
    assert history.extension(planned()) == says


def test_a_run_resumed_without_changes_stays_one_segment() -> None:
    first, current = segments("cosine", (10, 20))[0], segments("cosine", (20, 20))[0]
    assert history.History([first], {**current, "from": 10}).until(15) == [{**current, "to": 15}]
    other: history.Segment = {**current, "from": 10, "code_sha256": "b"}
    resumed = history.History([first], other)
    assert resumed.until(10) == [first]
    assert resumed.until(15) == [first, {**other, "to": 15}]
    assert (resumed.former_code, history.History([], current).former_code) == ("a", None)


@pytest.mark.parametrize(
    "wrong",
    [7, ["x"], [{}], {"from": 2}, {"to": 10**30}, {"schedule": {"kind": "cosine", "min_lr_ratio": "x"}}],
)
def test_an_invalid_history_is_refused_in_one_line(wrong: object) -> None:
    if isinstance(wrong, dict):
        wrong = [{**segments("cosine", (4, 4))[0], **wrong}]
    with pytest.raises(ValueError, match="its history "):
        history.checked(wrong)


def test_an_extended_run_is_compared_as_a_separate_configuration(
    train_here: Train, workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scipy")
    from gptexp.report.comparison import Question, compare_folders

    train_here(*TINY_GPT, "trainer.max_steps=4", folder="straight")
    train_here(*TINY_GPT, folder="short")
    monkeypatch.setattr(
        "gptexp.training.starting_point.code_sha256", lambda *_: "f" * 64
    )  # simulates a change of the code
    run_job(compose(["resume=short", "trainer.max_steps=4", "trainer=cpu"]), Path("extended"))
    now = code_hash.code_sha256()
    assert f"notice: the code has changed since step 2: it was {now[:8]}, it is ffffffff" in capsys.readouterr().out
    result = json.loads((workplace / "extended/result.json").read_text(encoding="utf-8"))
    reported = [(part["to"], part["max_steps"], part["code_sha256"]) for part in result["history"]]
    assert reported == [(2, 2, now), (4, 4, "f" * 64)]
    assert result["peak_lr"] == compose(TINY_GPT).lr
    assert load(workplace / "extended/checkpoints/last.ckpt").history == result["history"]
    c = compare_folders([workplace / "extended", workplace / "straight"], Question())
    assert not c.left_out
    assert [row.label for row in c.rows] == ["extended –", "extended at step 2 of 2"]
    assert [reading.run.folder.name for row in c.rows for reading in row.readings] == ["straight", "extended"]


def test_a_checkpoint_without_a_history_has_the_rates_of_its_settings(workplace: Path) -> None:
    from gptexp.training.starting_point import history_since

    then, now = (compose([*TINY_GPT, f"trainer.max_steps={steps}"]) for steps in (20, 40))
    stored = ckpt.Checkpoint(step=20, model={}, optimizer={}, config=to_plain(then), tokenizer={}, data={}, metrics={})
    found = history_since(now, 40, stored).until(30)
    assert found[0] == history.segment(then, 20, 0, 20, None)
    assert history.extension(found) == "at step 20 of 20"


def test_compare_names_the_versions_of_the_code(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from gptexp.report.comparison import Question, compare_folders
    from gptexp.report.notes import notes

    (part,) = segments("cosine", (100, 100))
    for seed, code in enumerate(("a" * 64, "a" * 64, "b" * 64), 1):
        run = make_run(tmp_path / str(seed), 2.0 + seed, seed=seed, result={"history": [part | {"code_sha256": code}]})
        git = {"commit": "c" * 40, "diff": "+x" if seed == 3 else ""}
        (run / "provenance.json").write_text(json.dumps({"code_sha256": code, "git": git}))
    (note,) = [note for note in notes(compare_folders([tmp_path], Question())) if "versions" in note]
    assert note.startswith("the runs were made by 2 versions of the code: aaaaaaaa (commit ccccccc): 2 runs; bbbbbbbb")


def test_a_commit_without_code_changes_is_not_another_version(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from gptexp.report.comparison import Question, compare_folders
    from gptexp.report.notes import notes
    from support.run_folders import age

    (part,) = segments("cosine", (100, 100))
    for name, seed, commit in (("old", 1, "c"), ("new", 1, "d"), ("other", 2, "e")):
        run = make_run(tmp_path / name, 2.0, seed=seed, result={"history": [part | {"code_sha256": "a" * 64}]})
        git = {"commit": commit * 40, "diff": "+x"}
        (run / "provenance.json").write_text(json.dumps({"code_sha256": "a" * 64, "git": git}))
    age(tmp_path / "old", 60)
    compared = compare_folders([tmp_path], Question())
    assert not [note for note in notes(compared) if "versions" in note]
    assert compared.left_out[0].reason.endswith("which is newer")


def test_compare_distinguishes_uncommitted_changes_of_older_runs(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from gptexp.report.comparison import Question, compare_folders

    diffs = {"first": {"provenance": ""}, "second": {"provenance": "", "provenance-40": "+x = 2"}}
    for seed, (name, files) in enumerate(diffs.items(), 1):
        run = make_run(tmp_path / name, 2.0, seed=seed)
        for stem, diff in files.items():
            (run / f"{stem}.json").write_text(json.dumps({"git": {"commit": "c" * 40, "diff": diff}}))
    first, second = compare_folders([tmp_path], Question()).runs
    assert first.code == ("commit ccccccc",)
    assert second.code[0] == "commit ccccccc"
    assert second.code[1].startswith("commit ccccccc with changes ")


def test_a_rerun_with_other_code_is_noted_if_it_replaces_a_run(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from gptexp.report.comparison import Question, compare_folders
    from support.run_folders import age

    (part,) = segments("cosine", (100, 100))
    age(make_run(tmp_path / "old", 2.0, result={"history": [part]}), 60)
    make_run(tmp_path / "new", 2.1, result={"history": [part | {"code_sha256": "b"}]})
    (lost,) = compare_folders([tmp_path], Question()).left_out
    assert lost.reason.endswith("which is newer and was made by other code")


def test_the_scaling_law_excludes_extended_runs_by_name(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from gptexp.report.reading import read_runs
    from gptexp.report.scaling import _why_not

    make_run(tmp_path / "a", 2.0, result={"history": segments("cosine", (20, 20), (100, 100))})
    ((run,), _) = read_runs([tmp_path / "a"])
    assert _why_not(run, "val/bpb").startswith("extended at step 20 of 20: ")


def test_compare_shows_a_learning_rate_that_depends_on_the_width(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from gptexp.report.comparison import Question, compare_folders

    for width in (64, 128, 192):  # like older runs, whose results do not contain the resolved value of null
        for seed in (1, 2):
            make_run(tmp_path / f"{width}-{seed}", 2.0, seed=seed, model__n_embd=width, optimizer__lr=None)
    recorded = make_run(tmp_path / "3", 2.0, seed=3, model__n_embd=64, optimizer__lr=None, result={"peak_lr": 0.006})
    c = compare_folders([tmp_path], Question())
    assert recorded.exists()
    assert (c.keys, c.along) == (["model.n_embd"], ["optimizer.effective_lr"])
    assert [len(row.readings) for row in c.rows] == [3, 2, 2]
    assert [row.settings["optimizer.effective_lr"] for row in c.rows] == pytest.approx(
        [6.0e-3, 5.9e-3, 3.6e-3], rel=0.02
    )
