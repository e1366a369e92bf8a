"""`gptexp verify`: numbers hold bitwise or to rounding, and a stranger's page is only data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")

from gptexp.commands.verify import main
from gptexp.compose.composition import compose
from gptexp.report.comparison import Question, compare_folders
from gptexp.report.page import page
from gptexp.training.experiment import run_experiment
from support.pages import forged
from support.runs import TINY, TINY_GPT, story

Change = Callable[[dict[str, Any]], None]
SETTINGS = [*TINY, *TINY_GPT, "optimizer=adamw", "data.path=story.txt", "logger.tensorboard=false"]


def train(folder: str, *overrides: str) -> None:
    run_experiment(compose([*SETTINGS, *overrides]), Path(folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, three runs of two configurations, and the page of their comparison."""
    place = tmp_path_factory.mktemp("made")
    (place / "story.txt").write_text(story(120), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train("runs/a1")
        train("runs/a2", "seed=2")
        train("runs/b1", "model.n_layer=2")
        write_page("runs")
    return place


def write_page(runs: str, at: str | None = None) -> None:
    html = page(compare_folders([Path(runs)], Question(at=at)), {})
    Path("page.html").write_text(html, encoding="utf-8")


@pytest.fixture
def place(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def change_page(change: Change) -> str:
    """Write a page whose data a stranger changed together with the checksums; return its name."""
    html = Path("page.html").read_text(encoding="utf-8")
    Path("changed.html").write_text(forged(html, change), encoding="utf-8")
    return "changed.html"


def shared(**values: Any) -> Change:
    """Change what all runs of the page share; `data__path` is in the settings."""

    def change(block: dict[str, Any]) -> None:
        for name, value in values.items():
            at = block["shared"]["run"]["settings"]
            group, _, key = name.rpartition("__")
            (at.setdefault(group, {}) if group else at)[key] = value

    return change


def test_the_cheapest_run_of_a_page_is_trained_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("page.html") == 0
    out = capsys.readouterr().out
    assert "n_layer 1, seed 1: training 2 steps again\n  bitwise identical: " in out
    assert "1 of 3 runs trained again" in out


def test_all_runs_of_a_row_or_of_a_folder_are_trained_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("page.html", "--row", "n_layer 1", "--all") == 0
    assert capsys.readouterr().out.count("bitwise identical") == 2
    assert code_of("runs", "--all") == 0
    assert capsys.readouterr().out.count("bitwise identical") == 3
    assert code_of("runs/b1") == 0
    assert "runs/b1, seed 1: training 2 steps again\n  bitwise identical: " in capsys.readouterr().out


def test_verification_leaves_no_files(place: Path) -> None:
    before = sorted(place.rglob("*"))
    assert code_of("page.html") == 0
    assert sorted(place.rglob("*")) == before


def test_a_changed_cell_ends_before_training(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = Path("page.html").read_text(encoding="utf-8")
    Path("cell.html").write_text(html.replace('"seeds">2<', '"seeds">3<'), encoding="utf-8")
    assert code_of("cell.html") == 1
    out = capsys.readouterr().out
    assert "cell.html: row 1 (1), column seeds: shows 3, expected 2" in out
    assert "training" not in out


def metric(row: int, factor: float) -> Change:
    def change(block: dict[str, Any]) -> None:
        block["rows"][row]["runs"][0]["result"]["metrics"]["val/bpb"] *= factor

    return change


def test_a_wrong_number_with_right_checksums_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = change_page(metric(1, 1 + 1e-12))  # too small for the table to show it
    assert code_of(name) == 0  # another row is trained
    assert code_of(name, "--row", "n_layer 2") == 1
    out = capsys.readouterr().out
    assert "not equal: val/bpb is " in out
    assert "although code, versions and kind of machine are the same" in out


@pytest.mark.parametrize(("size", "code"), [(1e-8, 0), (5e-6, 1)])
def test_with_other_code_a_difference_may_be_rounding(
    place: Path, capsys: pytest.CaptureFixture[str], size: float, code: int
) -> None:
    def change(block: dict[str, Any]) -> None:
        metric(1, 1 + size)(block)
        block["shared"]["run"]["result"]["history"][0]["code_sha256"] = "0" * 64
        block["shared"]["run"]["result"]["code_sha256"] = "0" * 64
        block["shared"]["run"]["origin"]["versions"]["torch"] = "1.0"

    assert code_of(change_page(change), "--row", "n_layer 2") == code
    out = capsys.readouterr().out
    before, _, after = out.partition("notice: version of torch: it was 1.0, here it is ")
    assert ": it was 00000000, here it is " in before
    assert ("equal to rounding: largest relative difference" if code == 0 else "not equal: val/bpb is ") in after


def test_a_missing_or_changed_text_is_said_before_training(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("story.txt").read_text(encoding="utf-8")
    Path("story.txt").write_text(text + "more\n", encoding="utf-8")
    assert code_of("page.html") == 2
    Path("story.txt").unlink()
    assert code_of("page.html") == 2
    Path("story.txt").write_text(text, encoding="utf-8")
    found = capsys.readouterr()
    assert "the text or its tokens here differ from those of the run (fingerprint " in found.err
    assert "error: data.path=story.txt: " in found.err
    assert "step" not in found.err.replace("steps", "")


HOSTILE: dict[str, dict[str, Any]] = {
    "data.path=/etc/passwd": {"data__path": "/etc/passwd"},
    "data.path=../x": {"data__path": "../x"},
    "data.path=link.txt": {"data__path": "link.txt"},
    "data.path=*.txt": {"data__path": "*.txt"},
    "data.path=https://example.com/x": {"data__path": "https://example.com/x"},
    "init_from=gpt2": {"__init_from": "gpt2"},
    "init_from=../other": {"__init_from": "../other"},
    "callbacks.plugins.stop": {
        "callbacks__plugins": {"stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/loss"}}
    },
    "callbacks.plugins.code": {"callbacks__plugins": {"code": {"_target_": "os.system", "command": "touch owned"}}},
}


@pytest.mark.parametrize("named", HOSTILE)
def test_what_a_page_names_outside_needs_trust(place: Path, capsys: pytest.CaptureFixture[str], named: str) -> None:
    Path("link.txt").unlink(missing_ok=True)
    Path("link.txt").symlink_to("/etc/hostname")

    def change(block: dict[str, Any]) -> None:
        settings = block["shared"]["run"]["settings"]
        for name, value in HOSTILE[named].items():
            group, _, key = name.rpartition("__")
            (settings[group] if group else settings)[key] = value

    assert code_of(change_page(change)) == 2
    error = capsys.readouterr().err
    assert f"{named}" in error
    assert "add --trust" in error
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (shared(data__path="${oc.env:HOME}"), "stored settings must be plain values"),
        (shared(model__n_head=3), "model.n_head=3"),
        (shared(data__kind="other"), "data.kind=other: unknown"),
        (shared(model__evil=1), "model.evil"),
        (shared(trainer__precision="8-bit"), "trainer.precision"),
    ],
)
def test_settings_of_a_page_are_checked_by_the_schemas(
    place: Path, capsys: pytest.CaptureFixture[str], change: Change, error: str
) -> None:
    def also(block: dict[str, Any]) -> None:
        change(block)
        block["shared"]["run"]["result"]["precision"] = None

    assert code_of(change_page(also)) == 2
    assert error in capsys.readouterr().err


def test_a_page_of_a_hub_data_set_needs_trust(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(block: dict[str, Any]) -> None:
        data = {"kind": "huggingface", "dataset": "someone/texts", "val_bytes": 600, "global_batch_size": 4}
        block["shared"]["run"]["settings"]["data"] = data

    assert code_of(change_page(change)) == 2
    assert "data.dataset=someone/texts; if you trust them, add --trust" in capsys.readouterr().err


def test_paths_and_loggers_of_a_page_are_not_used(place: Path) -> None:
    def change(block: dict[str, Any]) -> None:
        settings = block["shared"]["run"]["settings"]
        settings["paths"] = {"data": str(place / "x"), "logs": str(place / "y"), "cache": str(place / "z")}
        settings["logger"] = {"tensorboard": True, "plugins": {"w": {"_target_": "os.system"}}}
        settings["resume"], settings["name"] = "../elsewhere", "../../name"

    assert code_of(change_page(change)) == 0
    assert not {"x", "y", "z"} & {path.name for path in place.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nothing.html"], "nothing.html: no such page, run or sweep"),
        (["story.txt"], "story.txt: has no data to verify; make the page again with `gptexp compare`"),
        (["page.html", "--row", "x"], "--row=x: no such row; give one of: n_layer 1; n_layer 2"),
        (["page.html", "--everything"], "--everything: no such option"),
    ],
)
def test_a_wrong_use_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    assert code_of(*arguments) == 2
    found = capsys.readouterr().err
    assert error in found
    assert found.count("\n") == 1


def test_a_page_at_a_budget_is_verified_at_the_budget(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = page(compare_folders([Path("runs")], Question(at="tokens")), {})
    Path("budget.html").write_text(html, encoding="utf-8")
    assert code_of("budget.html") == 0

    def change(block: dict[str, Any]) -> None:
        for row in block["rows"]:
            for run in row["runs"]:
                run["reading"]["value"] *= 1 + 1e-13

    Path("forged.html").write_text(forged(html, change), encoding="utf-8")
    assert code_of("forged.html") == 1
    assert "not equal: val/bpb at the budget is " in capsys.readouterr().out


def test_a_run_that_was_resumed_equals_one_training(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("run", "schedule=constant", "schedule.warmup_steps=0", "trainer.max_steps=2")
    resumed = ["resume=run", "trainer.max_steps=4", "schedule=constant", "schedule.warmup_steps=0"]
    run_experiment(compose([*resumed, "trainer=cpu", "logger.tensorboard=false"]), Path("longer"))
    assert code_of("longer") == 0
    assert "longer, seed 1: training 4 steps again\n  bitwise identical" in capsys.readouterr().out


def test_a_run_extended_with_another_schedule_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("run", "schedule=cosine")
    run_experiment(compose(["resume=run", "trainer.max_steps=4", "trainer=cpu"]), Path("longer"))
    assert code_of("longer") == 2
    assert "longer, seed 1: was resumed with another schedule (at step 2 of 2)" in capsys.readouterr().err


def test_early_stopping_and_initial_weights_are_verified(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("base")
    stop = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, mode: max, patience: 1}"
    more = ["trainer.max_steps=20", "trainer.val_every_steps=2", f"+callbacks.plugins.stop={stop}"]
    settings = [s for s in SETTINGS if not s.startswith("model.n_")]
    run_experiment(compose(["init_from=base", *settings, *more]), Path("tuned"))
    assert code_of("tuned") == 2
    assert "callbacks.plugins.stop; if you trust them, add --trust" in capsys.readouterr().err
    assert code_of("tuned", "--trust") == 0
    assert "tuned, seed 1: training 4 steps again\n  bitwise identical" in capsys.readouterr().out
