"""`gptexp runs` reads every kind of folder, and its index changes nothing but the time."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from gptexp.report.listing import index, record
from gptexp.report.listing.record import Record
from gptexp.report.listing.rows import Row, rows
from gptexp.report.listing.table import columns, lines
from gptexp.runs.layout import RUNS_INDEX
from gptexp.runs.writing import claim_run_folder
from gptexp.util.errors import RunError
from gptexp.util.files import write_json
from support.run_folders import make_run, sweep_of


def unfinished(folder: Path, **changes: Any) -> Path:
    """A run that was killed: it has no result."""
    (make_run(folder, **changes) / "result.json").unlink()
    return folder


def listed(logs: Path) -> dict[str, Row]:
    return {os.path.relpath(row.run, logs).replace("\\", "/"): row for row in rows(logs)}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the files that a test has just written for old ones."""
    monkeypatch.setattr(index, "SETTLED", -1e9)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A finished, a killed and a failed run, and a sweep of three jobs, of which one has no folder."""
    logs = tmp_path / "logs"
    make_run(logs / "runs/a/1", 1.9)
    unfinished(logs / "runs/a/2", bpb=2.5, trainer__max_steps=40)
    make_run(logs / "runs/a/3", result={"status": "failed", "error": "loss is nan\nat step 3"})
    sweep_of(logs / "sweeps/s", "n=1", "n=2", "n=3")
    make_run(logs / "sweeps/s/n=1", 1.8, model__n_layer=1)
    (logs / "sweeps/s/n=2").mkdir()
    (logs / "sweeps/s/n=2/result.json").write_text('{"status": "failed", "error": "no memory"}')
    return logs


def test_each_run_and_sweep_has_its_state_progress_and_best_value(logs: Path) -> None:
    found = listed(logs)
    states = {name: (row.state, row.step, row.max_steps) for name, row in found.items()}
    assert states == {
        "runs/a/1": ("completed", 100, 100),
        "runs/a/2": ("interrupted", 40, 40),
        "runs/a/3": ("failed", 100, 100),
        "sweeps/s": ("failed", None, None),
        "sweeps/s/n=1": ("completed", 100, 100),
        "sweeps/s/n=2": ("failed", 0, None),
    }
    sweep = found["sweeps/s"]
    assert (sweep.done, sweep.jobs, sweep.best, sweep.metric) == (1, 3, 1.8, "val/bpb")
    assert found["runs/a/1"].best == 1.9
    assert found["runs/a/2"].best == pytest.approx(2.5)
    assert found["runs/a/3"].error == "loss is nan at step 3"
    assert found["sweeps/s/n=2"].problem is None
    assert found["runs/a/1"].seconds == found["sweeps/s"].seconds


def test_a_job_that_a_sweep_no_longer_has_counts_for_its_size_only(logs: Path) -> None:
    before = listed(logs)["sweeps/s"]
    make_run(logs / "sweeps/s/n=9", 0.5)
    after = listed(logs)
    assert (after["sweeps/s"].done, after["sweeps/s"].best) == (1, 1.8)
    assert after["sweeps/s"].size == before.size + after["sweeps/s/n=9"].size


def test_a_run_is_running_while_a_process_holds_its_lock(logs: Path) -> None:
    with claim_run_folder(logs / "sweeps/s/n=3", resumes=None):
        found = listed(logs)
        assert found["sweeps/s/n=3"].state == found["sweeps/s"].state == "running"
    (logs / "sweeps/s/.sweep.lock").touch()
    (logs / "runs/a/2/.lock").touch()  # left over from a killed process
    assert listed(logs)["runs/a/2"].state == "interrupted"


def test_the_jobs_of_a_search_count_trials_to_come(tmp_path: Path) -> None:
    sweep_of(tmp_path / "s", "n=1", search={"n_trials": 9})
    assert listed(tmp_path)["s"].jobs == 9


CORRUPT: dict[str, list[tuple[bytes | None, str]]] = {
    "config.yaml": [
        (b"", "config.yaml has no settings of a gptexp run"),
        (b"a: [", "config.yaml cannot be read"),
        (b"a: &x 1\nb: *x", "is an alias"),
        (None, "no config.yaml"),
    ],
    "result.json": [
        (b"{", "result.json is damaged: not valid JSON"),
        (b'{"steps": -1}', "result.json is damaged: steps"),
    ],
    "metrics.csv": [
        (b"step,val/bpb\nx,1\n", "metrics.csv is damaged: invalid literal"),
        (b"val/bpb\n1\n", "metrics.csv is damaged: a row has too many columns, or no step"),
        (b"step\n1,2\n", "metrics.csv is damaged: a row has too many columns, or no step"),
        (b"step\n" + b"9" * 400 + b"\n", "metrics.csv is damaged: a step is no number of steps"),
        (b"\xff\xfe\n", "metrics.csv is damaged: 'utf-8' codec"),
    ],
    "sweep.yaml": [(b"", "sweep.yaml is empty or not a sweep"), (b"jobs: 3", "sweep.yaml is empty or not a sweep")],
}


@pytest.mark.parametrize(("name", "content", "reason"), [(n, c, r) for n, cases in CORRUPT.items() for c, r in cases])
def test_a_corrupt_folder_is_listed_with_the_reason(logs: Path, name: str, content: bytes | None, reason: str) -> None:
    folder = "sweeps/s" if name == "sweep.yaml" else "runs/a/1"
    if content is None:
        (logs / folder / name).unlink()
    else:
        (logs / folder / name).write_bytes(content)
    row = listed(logs)[folder]
    assert row.state == "corrupt"
    assert reason in str(row.problem)
    assert len(listed(logs)) == 6


def test_what_no_run_has_written_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").touch()
    (tmp_path / "result.json").touch()  # in the folder of logs itself
    make_run(tmp_path / ".hidden/run")
    make_run(tmp_path / "run")
    (tmp_path / "again").symlink_to(tmp_path / "run", target_is_directory=True)
    assert listed(tmp_path).keys() == {"run"}
    with pytest.raises(RunError, match="no such folder"):
        rows(tmp_path / "nothing")


def test_the_size_counts_each_file_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "logs/run")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").write_bytes(b"x" * 10_000)
    os.link(folder / "checkpoints/last.ckpt", folder / "checkpoints/best.ckpt")
    small = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    assert listed(tmp_path / "logs")["run"].size == small + 10_000


# ---------------------------------------------------------------------------------- the index


def everything(logs: Path) -> list[dict[str, Any]]:
    return [{**row.as_plain(), "age": 0} for row in rows(logs)]


@pytest.mark.usefixtures("settled")
def test_the_index_changes_no_row(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cold = everything(logs)
    stored = json.loads((logs / RUNS_INDEX).read_text())
    assert len(stored["folders"]) == len(cold) == 6
    monkeypatch.setattr(index, "read", None)  # every record comes from the index
    assert everything(logs) == cold
    monkeypatch.undo()
    (logs / RUNS_INDEX).unlink()
    assert everything(logs) == cold


CHANGES = {
    "config.yaml": ("n_layer: 2", "n_layer: 3"),
    "result.json": ('"val/bpb": 1.9', '"val/bpb": 1.7'),
    "metrics.csv": ("0.001", "0.002"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("settled")
def test_a_changed_file_is_read_again_even_with_its_old_date(logs: Path, name: str) -> None:
    before = everything(logs)
    path = logs / "runs/a/1" / name
    path.write_text(path.read_text().replace(*CHANGES[name]))  # as long as before
    os.utime(path, ns=(10**18, 10**18))
    after = everything(logs)
    (logs / RUNS_INDEX).unlink()
    assert after == everything(logs) != before


@pytest.mark.usefixtures("settled")
def test_a_note_and_new_and_deleted_runs_are_seen(logs: Path) -> None:
    everything(logs)
    (logs / "runs/a/1/note.txt").write_text("the one of the talk\n")
    make_run(logs / "runs/a/4", 1.6)
    for path in (logs / "runs/a/2").iterdir():
        path.unlink()
    found = listed(logs)
    assert found["runs/a/1"].note == "the one of the talk"
    assert found["runs/a/4"].best == 1.6
    assert "runs/a/2" not in found
    assert "runs/a/2" not in json.loads((logs / RUNS_INDEX).read_text())["folders"]


def test_a_file_that_has_just_changed_is_not_trusted_to_its_date(logs: Path) -> None:
    everything(logs)
    assert not (logs / RUNS_INDEX).exists()  # all files are younger than two seconds


@pytest.mark.usefixtures("settled")
def test_a_future_date_is_never_trusted(logs: Path) -> None:
    later = time.time_ns() + 10**12
    os.utime(logs / "runs/a/1/result.json", ns=(later, later))
    everything(logs)
    assert "runs/a/1" not in json.loads((logs / RUNS_INDEX).read_text())["folders"]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"made_by": 1, "folders": {}}', "code"])
@pytest.mark.usefixtures("settled")
def test_a_damaged_index_is_made_again(logs: Path, damage: str) -> None:
    right = everything(logs)
    stored = json.loads((logs / RUNS_INDEX).read_text())
    stored["folders"]["runs/a/1"][1]["note"] = "what another version has read"
    text = json.dumps(stored | {"made_by": "another version"}) if damage == "code" else damage
    (logs / RUNS_INDEX).write_text(text)
    assert everything(logs) == right
    assert (logs / RUNS_INDEX).read_text() != text


@pytest.mark.usefixtures("settled")
def test_a_run_of_a_package_is_read_again_when_the_package_changes(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(logs)
    assert not json.loads((logs / RUNS_INDEX).read_text())["foreign"]
    make_run(logs / "runs/mine", model__kind="mine")
    read: list[Path] = []

    def counted(folder: Path, *, is_sweep: bool) -> Record:
        read.append(folder)
        return record.read(folder, is_sweep=is_sweep)

    monkeypatch.setattr(index, "read", counted)
    for version, count in (("1", 1), ("2", 7), ("2", 0)):
        read.clear()
        monkeypatch.setattr("gptexp.runs.code_hash.all_code_sha256", partial(str, version))
        assert len(everything(logs)) == 7
        assert len(read) == count


@pytest.mark.usefixtures("settled")
def test_a_folder_that_cannot_be_written_is_listed(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(index, "atomic_write", refuse)
    assert len(everything(logs)) == 6
    assert not (logs / RUNS_INDEX).exists()


# ---------------------------------------------------------------------------------- the table

HOSTILE = {
    "escapes": "\x1b[31mred\x1b]0;title\x07\u202e",
    "markup": "[bold red]x[/] [link=https://example.org]y[/link]",
    "wide": "实验" * 40,
    "long": "x" * 200,
    "lines": "one\ntwo\r\tthree",
}


def table(logs: Path, width: int | None) -> list[str]:
    found = rows(logs)
    return list(lines(found, columns(found), width))


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_and_breaks_no_line(logs: Path, name: str, width: int) -> None:
    possible = HOSTILE[name].replace("/", "-")[:80] if os.name != "nt" else name
    folder = make_run(logs / "runs" / possible, 1.5)
    (folder / "note.txt").write_text(HOSTILE[name])
    make_run(logs / "runs/f", result={"status": "failed", "error": HOSTILE[name]})
    for form in (width, None):
        printed = table(logs, form)
        assert all(line.isprintable() for line in printed)
        heading, *found = (line for line in printed if not line.startswith("    "))
        assert len(found) == 8
        if form is not None:
            assert max(map(cell_len, printed)) <= form
            assert heading.split()[:3] == ["run", "state", "progress"]
    assert any("note: " in line for line in printed)


def test_a_narrow_terminal_has_fewer_columns_and_the_end_of_each_name(logs: Path) -> None:
    make_run(logs / "runs/some_long_name_of_a_model-and_a_corpus/2026-11-30_09-20-11-abc", 1.5)
    wide, narrow = table(logs, 140), table(logs, 80)
    assert wide[0].split() == ["run", "state", "progress", "best", "val/bpb", "last", "time", "age", "size"]
    assert "size" not in narrow[0]
    assert {"state", "progress", "best", "age"} <= set(narrow[0].split())
    assert any("2026-11-30_09-20-11-abc  completed" in line for line in narrow)
    assert "…" in "".join(narrow)


def test_without_a_terminal_each_run_is_one_whole_line(logs: Path) -> None:
    make_run(logs / "runs" / ("long" * 50), 1.5)
    printed = table(logs, None)
    assert len(printed) == 1 + 7
    assert any("long" * 50 in line for line in printed)
    assert any(line.endswith("loss is nan at step 3") for line in printed)


def test_runs_of_several_objectives_name_their_metrics(logs: Path) -> None:
    folder = make_run(logs / "runs/c", objective__kind="classification")
    metrics = {"val/loss": 0.5, "val/accuracy": 0.8}
    stored = json.loads((folder / "result.json").read_text())
    write_json(folder / "result.json", stored | {"metrics": metrics, "best": metrics | {"step": 60}})
    printed = table(logs, 140)
    assert "val/loss 0.5000" in "\n".join(printed)
    assert "val/bpb 1.9000" in "\n".join(printed)
