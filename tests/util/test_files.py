"""Untrusted files: only plain files of a limited size are read, and links are never written through."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.report.reading import read_runs
from gptexp.runs import samples
from gptexp.runs.finding import stored_settings
from gptexp.runs.layout import SAMPLES, WRITTEN
from gptexp.runs.result import Result, find_result
from gptexp.runs.writing import claim_run_folder
from gptexp.util.errors import RunError
from gptexp.util.files import append_descriptor, make_folder, open_append, read_bytes, read_json
from gptexp.util.yaml_files import read_yaml, write_yaml
from support.run_folders import make_run

needs_posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and devices")


@needs_posix
@pytest.mark.parametrize("read", [lambda path: read_bytes(path, 10), open_append, append_descriptor])
def test_a_pipe_or_device_is_refused_without_waiting(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match=r"not a regular file|No such device|is a link") as caught:
            read(tmp_path / name)
        assert name in str(caught.value)


def test_a_file_larger_than_expected_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=r"has more than 1,000 bytes.*a"):
        read_bytes(tmp_path / "a", 1000)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a [1]\nb: *a\n", r"line 2: \*a is an alias; write the value itself"),
        ("a: &a [*a]\n", "is an alias"),
        ("[" * 40 + "]" * 40, "nested more than 32 levels deep"),
        ("[" * 100_000, "x.yaml: "),
        ("a: !!python/object/apply:os.system [true]", "x.yaml: "),
        ("a: 2001-99-99", "x.yaml: "),
        ("a: " + "9" * 5000, "x.yaml: "),
        ("a: \x00", "x.yaml: "),
        ("{a: b", "x.yaml: "),
        ("? [1]\n: 2", "x.yaml: "),
    ],
)
def test_yaml_with_more_than_plain_values_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=why) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_written_yaml_is_read_back_without_aliases(tmp_path: Path) -> None:
    shared = ["a", {"b": 1e-5}]
    write_yaml(tmp_path / "x.yaml", {"one": shared, "two": shared, "text": "三国"})
    assert read_yaml(tmp_path / "x.yaml") == {"one": shared, "two": shared, "text": "三国"}


def test_too_deeply_nested_json_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"result\.json: not valid JSON"):
        read_json(tmp_path / "result.json")
    assert find_result(tmp_path) == Result()


# ------------------------------------------------------------------------------------ samples.md


def test_sections_are_found_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    class Counted(str):
        def find(self, *arguments: Any) -> int:
            looked.append(1)
            return str.find(self, *arguments)

    open_ones = "".join(f"## step {n}\n\n````text\nnever closed\n" for n in range(1000))
    whole = samples.section(7, "a\n````\nb")
    assert list(samples.sections(Counted(whole + open_ones + whole))) == [(7, "a\n````\nb")] * 2
    assert len(looked) <= 4


def test_an_incomplete_character_in_samples_drops_only_its_section(tmp_path: Path) -> None:
    torn = samples.section(2, "三国演义").encode()[:-12]
    assert torn.decode(errors="ignore").encode() != torn
    (tmp_path / SAMPLES).write_bytes(samples.section(1, "三国").encode() + torn)
    assert samples.read(tmp_path) == [(1, "三国")]


# ------------------------------------------------------------------------------------ untrusted run folders


def test_settings_with_aliases_are_refused_by_every_reader(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    with (run / "config.yaml").open("a", encoding="utf-8") as file:
        file.write(bomb)
    _, left_out = read_runs([run])
    assert "is an alias" in left_out[0].reason
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints/last.ckpt").touch()
    with pytest.raises(RunError, match="is an alias"):
        stored_settings(str(run))


@needs_posix
def test_a_pipe_instead_of_a_run_file_does_not_block(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for name in ("metrics.csv", "samples.md", "provenance.json"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    runs, _ = read_runs([run])
    assert "not a regular file" in runs[0].curve_problem.lower()
    from gptexp.report.reading import last_sample

    assert last_sample(run) == ""


@needs_posix
@pytest.mark.parametrize("name", WRITTEN)
def test_no_file_of_a_run_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    victim, run = tmp_path / "victim", tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(victim)
    with (
        pytest.raises(OSError, match=r"is a link, and gptexp does not write through links"),
        claim_run_folder(run, resumes=None),
    ):
        pytest.fail("the folder was opened")
    assert not victim.exists()


@needs_posix
def test_appending_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "log.txt").symlink_to(tmp_path / "victim")
    (tmp_path / "checkpoints").symlink_to(tmp_path)
    for write in (open_append, append_descriptor):
        with pytest.raises(OSError, match="is a link"):
            write(tmp_path / "log.txt")
    with pytest.raises(OSError, match="is a link"):
        make_folder(tmp_path / "checkpoints")
    assert not (tmp_path / "victim").exists()


@needs_posix
@pytest.mark.parametrize("place", ["report", "report/question"])
def test_a_report_that_is_a_link_is_refused(tmp_path: Path, place: str) -> None:
    from gptexp.commands.compare import _report_folder

    (tmp_path / "victim/question").mkdir(parents=True)
    link = tmp_path / "runs" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="is a link, and gptexp does not write through links"):
        _report_folder(tmp_path / "runs", "question")
    link.unlink()
    assert _report_folder(tmp_path / "runs", "question") == tmp_path / "runs/report/question"


@needs_posix
def test_a_run_folder_that_is_a_link_is_written_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with claim_run_folder(tmp_path / "run", resumes=None) as folder:
        write_yaml(folder / "config.yaml", {})
        make_folder(folder / "checkpoints")
    assert {"config.yaml", "checkpoints"} <= {path.name for path in (tmp_path / "disk").iterdir()}
