"""`gptexp compare` as a user runs it: files, errors, formats, and two real runs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")


from gptexp.compare import main
from gptexp.report import compare_command
from gptexp.report.comparison import Question, compare_folders
from gptexp.report.page import page
from gptexp.report.reading import last_sample
from support import child_processes
from support.pages import Page, sweep
from support.run_folders import make_run
from support.runs import TINY_GPT, command

PLOTS = [f"{name}.{form}" for name in ("ablation", "curves", "pareto") for form in ("pdf", "png", "svg")]
FILES = sorted([*PLOTS, "comparison.csv", "report.html"])


def test_compare_prints_the_table_and_writes_files_next_to_the_runs(tmp_path: Path) -> None:
    sweep(tmp_path / "sweep")
    done = command("compare", "sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].split()[:4] == ["n_layer", "seeds", "val/bpb", "difference"]
    reported = "comparison.csv · curves.png · ablation.png · pareto.png · report.html · plots also as pdf and svg"
    assert done.stdout.endswith(f"sweep/report: {reported}\n")
    assert sorted(path.name for path in (tmp_path / "sweep/report").iterdir()) == FILES
    again = command("compare", "sweep", "--out", "elsewhere", cwd=tmp_path)
    assert again.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-1]
    for name in FILES:  # the same runs give the same bytes
        assert (tmp_path / "elsewhere" / name).read_bytes() == (tmp_path / "sweep/report" / name).read_bytes()


def test_compare_does_not_import_torch(tmp_path: Path) -> None:
    sweep(tmp_path / "sweep")
    code = (
        "import sys; from gptexp.compare import main; from matplotlib.figure import Figure\n"
        "Figure.savefig = lambda figure, file, **options: file.write(b'')\n"  # it takes two seconds
        "main(['sweep'])\n"
        "print([m for m in ('torch', 'lightning', 'tokenizers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_missing_packages_give_one_line_that_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['scipy'] = None; from gptexp.compare import main; main(['.'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr == 'error: compare needs scipy: pip install -e ".[compare]" in the checkout of gptexp\n'


WRONG = [
    (["nowhere"], "nowhere: no such folder"),
    (["empty"], "empty: no run in it or below it"),
    (["broken"], "nothing to compare: broken/a: unfinished: no result.json"),
    (["sweep", "--metric", "val/x"], "--metric=val/x: no run has it"),
    (["sweep", "--at", "bytes"], "--at=bytes: no run can be compared at this budget"),
    (["sweep", "--budget", "1e9"], "--budget: only with --scaling"),
    (["sweep", "--scaling"], "--scaling: 1 distinct sizes (N) among 4 complete runs"),
    (["sweep", "--out", "file"], "file"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_incomparable_runs_give_a_one_line_error_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    sweep(tmp_path / "sweep")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (make_run(tmp_path / "broken/a") / "result.json").unlink()
    done = command("compare", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_command_for_a_folder_is_quoted() -> None:
    assert compare_command("logs/sweeps/block_size") == "gptexp compare logs/sweeps/block_size"
    assert compare_command("a b", Path("c")) == "gptexp compare 'a b' c"


def test_two_real_runs_are_compared_by_their_recorded_metrics(train_here: Callable[..., dict[str, Any]]) -> None:
    """The runs come from real training, so a change of the file formats makes this test fail."""
    short = train_here(*TINY_GPT, "tokenizer=byte", folder="sweep/short")
    long = train_here(*TINY_GPT, "tokenizer=byte", "trainer.max_steps=6", folder="sweep/long")
    comparison = compare_folders([Path("sweep")], Question())
    assert comparison.left_out == []
    assert comparison.keys == ["trainer.max_steps"]
    assert [row.values for row in comparison.rows] == [{1: r["metrics"]["val/bpb"]} for r in (short, long)]
    assert [row.mean("tokens") for row in comparison.rows] == [short["tokens"], long["tokens"]]
    runs = [row.readings[0].run for row in comparison.rows]
    assert [list(run.curve.steps) for run in runs if run.curve] == [[2], [2, 4, 6]]
    assert all(run.seconds > 0 and set(run.origin) >= {"device", "data"} for run in runs)
    assert [run.curve.seconds_derived for run in runs if run.curve] == [False, False]
    assert [run.bytes_per_token for run in runs] == [1.0, 1.0]  # bytes
    assert not comparison.flops_estimated
    sample = last_sample(Path("sweep/long"))
    assert sample
    assert sample in (Path("sweep/long") / "samples.md").read_text(encoding="utf-8").split("## step 6")[1]
    at_tokens = compare_folders([Path("sweep")], Question(at="tokens"))
    assert at_tokens.budget == short["tokens"]
    assert sample in Page(page(comparison, {})).text


def _compare_with_little_space() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # less than a picture has
    main(["sweep"])


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    """If the disk becomes full while the page is written, the old page is kept."""
    sweep(tmp_path / "sweep")
    (tmp_path / "sweep/report").mkdir()
    (tmp_path / "sweep/report/report.html").write_text("old")
    done = child_processes.call(_compare_with_little_space, cwd=tmp_path)
    assert done.code == 2
    assert "sweep/report/" in done.err
    assert (tmp_path / "sweep/report/report.html").read_text() == "old"
    assert not list(tmp_path.rglob("*.tmp"))
    assert json.loads((tmp_path / "sweep/a1/result.json").read_text())["status"] == "completed"


@pytest.mark.usefixtures("undrawn")
def test_formats_are_printed_and_another_metric_keeps_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(tmp_path / "sweep")
    main(["sweep", "--format", "latex"])
    first = capsys.readouterr()
    assert first.out == (tmp_path / "sweep/report/comparison.tex").read_text(encoding="utf-8")
    assert first.err.startswith("\nsweep/report: comparison.csv")
    before = {path: path.read_bytes() for path in (tmp_path / "sweep/report").iterdir() if path.is_file()}
    assert sorted(path.name for path in before) == sorted([*FILES, "comparison.tex"])
    main(["sweep", "--format", "markdown", "--metric", "val/loss", "--at", "tokens"])
    printed = capsys.readouterr().out
    assert (tmp_path / "sweep/report/val_loss-at-tokens/comparison.md").read_text(encoding="utf-8") == printed
    assert all(path.read_bytes() == data for path, data in before.items())
