"""`gptexp runs`, `gptexp runs watch` and `gptexp runs note` as a user runs them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from gptexp.commands import runs as command
from gptexp.runs.writing import claim_run_folder
from support.run_folders import age, make_run, sweep_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with two runs, the second one newer, and a sweep of two jobs."""
    monkeypatch.chdir(tmp_path)
    old = make_run(Path("logs/runs/old"), 1.9, model__n_layer=4, seed=2)
    age(old, 3600)
    make_run(Path("logs/runs/new"), 2.2, model__n_layer=2)
    sweep_of(Path("logs/sweeps/s"), "n=1", "n=2")
    make_run(Path("logs/sweeps/s/n=1"), 1.8, model__n_layer=8)
    return tmp_path


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            command.main(list(arguments))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def names(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines()[1:]]


def test_the_list_has_the_newest_first_and_a_row_for_a_sweep(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert set(names(out)[:2]) == {"logs/runs/new", "logs/sweeps/s"}
    assert names(out)[2:] == ["logs/runs/old"]
    assert "1/2 jobs" in out
    assert len(names(run("--jobs")[1])) == 4


def test_where_selects_runs_and_jobs(run: Run) -> None:
    assert set(names(run("--where", "model.n_layer>=4 and val/bpb<2")[1])) == {"logs/runs/old", "logs/sweeps/s/n=1"}
    assert names(run("--where", "n_layer==2 and state=='completed'")[1]) == ["logs/runs/new"]
    assert names(run("--where", "'old' in run and seed in (2, 3)")[1]) == ["logs/runs/old"]
    assert run("--where", "val/bpb<0")[1:] == ("", "no run meets the condition below logs\n")


ERRORS = [
    (["--where", "model.n_lyer>=4"], "error: --where: model.n_lyer: no setting, metric or field of these runs; did"),
    (["--where", "open('x')"], "error: --where=open('x'): is not a condition; only comparisons with"),
    (["--sort", "bbp"], "error: --sort: bbp: no setting, metric or field of these runs; did you mean bpb?"),
    (["--limit", "-3"], "error: --limit: -3: must be a number of rows, or 0 for all"),
    (["--logs", "nowhere"], "error: --logs=nowhere: no such folder"),
    (["wach"], "error: {watch,note}: invalid choice: 'wach'"),
    (["note", "nowhere", "x"], "error: RUN=nowhere: no run or sweep; give the folder of one"),
    (["note", "logs/runs/new", "x" * 3000], "error: TEXT: has 3,000 characters; a note has at most 2,000"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_a_wrong_argument_is_one_line_with_the_remedy(arguments: list[str], message: str, run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_sort_orders_by_value_and_puts_missing_values_last(run: Run) -> None:
    order = ["logs/sweeps/s/n=1", "logs/runs/old", "logs/runs/new", "logs/sweeps/s"]
    assert names(run("--jobs", "--sort", "val/bpb")[1]) == order
    assert names(run("--jobs", "--sort", "bpb", "--reverse")[1]) == [*order[2::-1], order[3]]
    code, out, err = run("--sort", "best", "--limit", "1")
    assert (code, names(out), err) == (0, ["logs/sweeps/s"], "1 of 3 shown; --limit 0 shows all\n")


def test_json_is_one_flat_list_with_all_values(run: Run) -> None:
    found = {row["run"]: row for row in json.loads(run("--json")[1])}
    assert found.keys() == {"logs/runs/old", "logs/runs/new", "logs/sweeps/s", "logs/sweeps/s/n=1"}
    job, sweep = found["logs/sweeps/s/n=1"], found["logs/sweeps/s"]
    assert (job["kind"], job["sweep"], job["state"], job["best"], job["metric"]) == (
        "run",
        "s",
        "completed",
        1.8,
        "val/bpb",
    )
    assert (sweep["kind"], sweep["done"], sweep["jobs"], sweep["best"]) == ("sweep", 1, 2, 1.8)
    assert job["settings"]["model.n_layer"] == 8
    assert job["metrics"]["val/bpb"] == 1.8
    assert job["size"] == sum(path.stat().st_size for path in Path("logs/sweeps/s/n=1").iterdir())
    assert [row["run"] for row in json.loads(run("--json", "--where", "n_layer==8")[1])] == ["logs/sweeps/s/n=1"]


def test_an_empty_folder_has_no_runs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("--logs", "empty", "--where", "val/bpb<2") == (0, "", "no run meets the condition below empty\n")
    assert run("--logs", "empty", "--json") == (0, "[]\n", "")


def test_a_note_is_shown_replaced_and_removed(run: Run) -> None:
    assert run("note", "logs/runs/old", "the  one\nof the talk") == (0, "logs/runs/old: note saved\n", "")
    assert "note: the one of the talk" in run()[1]
    assert names(run("--where", "'talk' in note")[1]) == ["logs/runs/old"]
    run("note", "logs/runs/old/", "another")
    assert json.loads(run("--json", "--where", "'old' in run")[1])[0]["note"] == "another"
    assert run("note", "logs/runs/old", "") == (0, "logs/runs/old: note removed\n", "")
    assert "note" not in run()[1]
    assert run("note", "logs/sweeps/s", "第一次")[0] == 0
    assert "note: 第一次" in run()[1]


def test_a_note_is_not_written_through_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "logs/runs/old/note.txt").symlink_to(tmp_path / "mine")
    assert run("note", "logs/runs/old", "x")[0] == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "logs/runs/old/note.txt").read_text() == "x\n"


def test_latest_is_the_newest_run_with_a_checkpoint(run: Run, tmp_path: Path) -> None:
    for number, name in enumerate(("new", "old")):
        path = tmp_path / "logs/runs" / name / "checkpoints/last.ckpt"
        path.parent.mkdir()
        path.touch()
        os.utime(path, (10**9 + number, 10**9 + number))
    assert run("note", "latest", "x")[1] == "logs/runs/old: note saved\n"


# ---------------------------------------------------------------------------------- watch


def test_watch_shows_what_runs_and_the_jobs_of_its_sweep(run: Run) -> None:
    assert run("watch") == (0, "nothing runs below logs\n", "")
    with claim_run_folder(Path("logs/sweeps/s/n=2"), resumes=None):
        make_run(Path("logs/sweeps/s/n=2"), 2.0, trainer__max_steps=400, seconds_column=True, asked={"max_steps": 800})
        Path("logs/sweeps/s/n=2/result.json").unlink()
        code, out, _ = run("watch")
    assert code == 0
    heading, sweep, job = out.splitlines()
    assert heading.split() == ["run", "progress", "train/loss", "best", "val/bpb", "tokens/s", "left", "silent"]
    assert sweep.split()[:3] == ["logs/sweeps/s", "1/2", "jobs"]
    seconds = 400 * 8 * 64 / 10_000
    assert job.split()[:6] == ["logs/sweeps/s/n=2", "400/800", "2.0000", "2.0000", "10k", f"0:{round(seconds):02d}"]


def test_watch_redraws_until_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, waits = io.StringIO(), list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("rich.console.Console", lambda **options: Console(file=screen, force_terminal=True, width=80))
    monkeypatch.setattr(time, "sleep", sleep)
    assert run("watch")[0] == 0
    assert waits == [2.0] * 3
    assert "nothing runs below logs" in screen.getvalue()


def test_the_list_and_the_watch_import_no_torch(place: Path) -> None:
    code = (
        "import sys; from gptexp.commands.runs import main\n"
        "main([]); main(['note', 'logs/runs/old', 'x']); main(['watch'])\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'hydra', 'lightning', 'scipy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=place, timeout=60)
