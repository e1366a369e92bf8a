"""gptexp.notebook, the API that the notebooks use."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from gptexp import notebook
from support.runs import TINY, TINY_GPT, story


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    return tmp_path


def test_steps_scale_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(notebook.BUDGET, raising=False)
    assert notebook.steps(300) == 300
    monkeypatch.setenv(notebook.BUDGET, "0.1")
    assert (notebook.steps(300), notebook.steps(5)) == (30, 2)
    for wrong in ("0", "2", "much", "nan"):
        monkeypatch.setenv(notebook.BUDGET, wrong)
        with pytest.raises(ValueError, match="GPTEXP_BUDGET="):
            notebook.steps(300)


def test_text_is_split_as_in_a_run(place: Path) -> None:
    train, val = notebook.read_text("data=text", "data.path=story.txt")
    text = (place / "story.txt").read_text(encoding="utf-8")
    assert train + val == text
    assert len(val) == round(len(text) / 10)


def test_a_chinese_text_without_a_font_gives_one_notice(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    style = pytest.importorskip("gptexp.report.style")
    monkeypatch.setattr(style, "fonts", lambda: ["DejaVu Sans"])
    notebook._require_chinese_font.cache_clear()
    (place / "story.txt").write_text("面包已经凉了。\n" * 60, encoding="utf-8")
    for _ in range(2):
        notebook.read_text("data=text", "data.path=story.txt")
    notices = [line for line in capsys.readouterr().out.splitlines() if line.startswith("notice: plots show boxes")]
    assert len(notices) == 1
    assert "fonts-noto-cjk" in notices[0]
    notebook._require_chinese_font.cache_clear()


def test_notices_are_one_line_and_warnings_of_others_are_unchanged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpl = pytest.importorskip("matplotlib")
    plain = warnings.formatwarning
    monkeypatch.setattr(warnings, "formatwarning", plain)
    with mpl.rc_context(), warnings.catch_warnings():
        notebook.set_up()
    assert warnings.formatwarning("read as big5", UserWarning, notebook.__file__, 1) == "notice: read as big5\n"
    assert warnings.formatwarning("slow", UserWarning, "cell", 1) == plain("slow", UserWarning, "cell", 1)


@pytest.mark.parametrize("folder", ["notebooks", "notebooks/zh"])
def test_a_notebook_works_in_the_root_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    mpl = pytest.importorskip("matplotlib")
    (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with mpl.rc_context():
        notebook.set_up()
    assert Path.cwd() == tmp_path


def test_data_opens_from_a_line_of_overrides(place: Path) -> None:
    (place / "story.txt").rename(place / "my story.txt")
    line = "data=text data.path='my story.txt'"
    data = notebook.open_data(line)
    train, val = notebook.read_text(line)
    assert (data.tokenizer.kind, data.tokenizer.vocab_size) == ("char", len(set(train + val)))
    assert data.tokenizer.decode(data.train[:]) == train
    assert data.tokenizer.decode(data.val[:]) == val
    assert notebook.open_data(line, "tokenizer=byte").tokenizer.kind == "byte"


def test_a_run_trained_by_command_opens(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # Jupyter's kernels set this
    notebook.command(f"python -m gptexp.train {' '.join([*TINY, *TINY_GPT])} data.path=story.txt name=mine")
    printed = capsys.readouterr().out
    assert "val/bpb" in printed
    assert "\x1b" not in printed
    run = notebook.open_run()
    assert run.folder is not None
    assert run.folder.parent.name == "mine"
    steps, losses = run.curve()
    assert steps[-1] == run.result["steps"]
    assert losses[-1] == pytest.approx(run.result["metrics"]["val/loss"])
    assert run.samples()[-1][0] == steps[-1]
    text = run.write("The", 12, temperature=0.0)
    assert text.startswith("The")
    assert text == run.write("The", 12, temperature=0.0, seed=7)
    with pytest.raises(ValueError, match="val/nothing: not in metrics"):
        run.curve("val/nothing")
    frame = notebook.inspect(text="The baker")._repr_html_()
    assert frame.lower().startswith('<iframe srcdoc="&lt;!doctype html')
    assert frame.count('"') == 8  # the page itself has none that is not escaped


def test_a_command_that_fails_stops_the_notebook(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="exit code 2"):
        notebook.command("python -m gptexp.train model.n_lyer=3")
    assert "did you mean model.n_layer?" in capsys.readouterr().out
    with pytest.raises(ValueError, match="give a command of the form"):
        notebook.command("rm -r logs")
