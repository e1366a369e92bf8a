"""`python -m gptexp.compare` as a user runs it: files, report page, errors, and two real runs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from gptexp import replay as replay_entry_point
from gptexp.commands import replay as replay_command
from gptexp.report import compare_command
from gptexp.report.comparison import Comparison, Question, compare, compare_folders
from gptexp.report.latex_markdown import latex, markdown
from gptexp.report.page import page
from gptexp.report.plots import ablation, curves, pareto, plots
from gptexp.report.reading import last_sample, read_runs
from gptexp.report.style import fonts, literal
from gptexp.report.table import print_comparison, to_csv
from gptexp.util.errors import RunError
from gptexp.util.text import printable
from support.run_folders import make_run
from support.runs import TINY_GPT, command

PLOTS = [f"{name}.{form}" for name in ("ablation", "curves", "pareto") for form in ("pdf", "png", "svg")]
FILES = sorted([*PLOTS, "comparison.csv", "report.html"])
EVIL = "<script>alert('x')</script>\"'><img src=http://evil.example/x onerror=alert(1)>"


def sweep(place: Path, **changes: Any) -> Path:
    for seed in (1, 2):
        make_run(place / f"a{seed}", 2.0 + seed / 100, seed=seed, **changes)
        make_run(place / f"b{seed}", 1.9 + seed / 90, seed=seed, model__n_layer=4, **changes)
    return place


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def made_page(place: Path) -> str:
    comparison = compare_folders([place], Question())
    return page(comparison, plots(comparison))


# ---------------------------------------------------------------------------------- the command


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
        "import sys; from gptexp.compare import main; main(['sweep'])\n"
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
    assert compare_command("logs/sweeps/block_size") == "python -m gptexp.compare logs/sweeps/block_size"
    assert compare_command("a b", Path("c")) == "python -m gptexp.compare 'a b' c"


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
    assert sample in Page(page(comparison, plots(comparison))).text


# ---------------------------------------------------------------------------------- the page


def test_the_report_page_executes_no_script_from_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "a<b>&'\"", 2.0, sample=EVIL, data__path=EVIL, name=EVIL)
    make_run(tmp_path / "b", 1.9, sample=EVIL, data__path=f"{EVIL}2", tokenizer__kind=EVIL)
    (make_run(tmp_path / "<script>c", 1.9) / "result.json").write_text(EVIL)
    html = made_page(tmp_path)
    seen = Page(html)
    assert "script" not in seen.tags
    assert seen.tags.count("img") == 3
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert EVIL in seen.text  # shown as text
    assert "<script>c" in seen.text


def test_the_report_page_loads_nothing_from_the_network(tmp_path: Path) -> None:
    seen = Page(made_page(sweep(tmp_path)))
    links = [value or "" for name, value in seen.attributes if name in ("src", "href", "srcset", "action")]
    assert len(links) == 3
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert {"link", "iframe", "object", "base"}.isdisjoint(seen.tags)
    policies = [value or "" for name, value in seen.attributes if name == "content"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policies


def test_the_report_page_shows_the_table_the_notes_and_one_sample_each(tmp_path: Path) -> None:
    sweep(tmp_path)
    make_run(tmp_path / "b1", 1.9, seed=1, model__n_layer=4, sample="what four layers wrote\n\n```text\nfence")
    (tmp_path / "a2/result.json").unlink()
    text = " ".join(Page(made_page(tmp_path)).text.split())
    assert "val/bpb by n_layer" in text
    assert "what four layers wrote ```text fence" in text
    assert "The cat sat." in text
    assert "early" not in text  # an older section
    assert "a2: unfinished: no result.json" in text


def test_the_report_page_labels_every_cell_for_narrow_screens(tmp_path: Path) -> None:
    html = made_page(sweep(tmp_path))
    assert html.count("<td") == html.count("<td data-name=")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("text", ["", "no sections", "## step x\n\n````text\na\n````\n\n"])
def test_missing_or_malformed_samples_are_not_an_error(tmp_path: Path, text: str) -> None:
    (make_run(tmp_path / "a", 2.0) / "samples.md").write_text(text)
    assert last_sample(tmp_path / "a") == ""
    assert "no sample" in Page(made_page(tmp_path)).text


# ---------------------------------------------------------------------------------- plots


def test_plots_have_print_resolution(tmp_path: Path) -> None:
    images = plots(compare_folders([sweep(tmp_path)], Question()))
    sizes = {name: struct.unpack(">II", data[16:24]) for name, data in images.items() if data[:4] == b"\x89PNG"}
    assert sizes == {"curves.png": (2000, 1480), "ablation.png": (1280, 880), "pareto.png": (1280, 960)}


@pytest.mark.parametrize(
    "value", ["$x_1$", "$\\bad{$", "_hidden", "50%", "\\frac", "日本語", "{}", "a" * 300, "new\nline", ""]
)
def test_plots_show_any_setting_as_text(tmp_path: Path, value: str, recwarn: pytest.WarningsRecorder) -> None:
    make_run(tmp_path / "a", 2.0, data__path=value)
    make_run(tmp_path / "b", 2.0, data__path="$other$")
    assert len(plots(compare_folders([tmp_path], Question()))) == 3
    warned = [str(warning.message) for warning in recwarn if "onstrained" not in str(warning.message)]
    assert all(text.startswith("plots show boxes for characters that no font here has: 日") for text in warned)
    assert len(warned) <= (value == "日本語")


def test_missing_characters_give_one_notice_that_names_a_font(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0, data__path="𒀀.txt")  # cuneiform
    make_run(tmp_path / "b", 2.0, data__path="b.txt")
    done = command("compare", ".", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("notice: plots show boxes for characters that no font here has: 𒀀; install")
    assert "fonts-noto-cjk" in done.stderr
    assert "fontlist-*.json\n" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_installed_chinese_font_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans", "Noto Sans CJK JP", "Other Sans CJK"])
    assert fonts() == ["DejaVu Sans", "Noto Sans CJK JP", "Other Sans CJK"]


def test_chinese_text_is_shown_and_invisible_characters_are_escaped(tmp_path: Path) -> None:
    make_run(
        tmp_path / "a", 2.0, sample="\u3000\u3000話說天下\u00a0大勢\u202e\u200b\x1b[2J", data__path="\u3000三國.txt"
    )
    make_run(tmp_path / "b", 2.0, data__path="b.txt")
    text = Page(made_page(tmp_path)).text
    assert "\u3000\u3000話說天下\u00a0大勢\\u202e\\u200b\\x1b[2J" in text
    assert literal("\u3000三國") == "\u3000三國"


def test_a_legend_shows_long_names_completely_inside_the_picture(tmp_path: Path) -> None:
    for n in range(4):
        which: dict[str, Any] = {"model__n_layer": 2 + n % 2, "model__position": ["learned", "rope"][n // 2]}
        make_run(tmp_path / f"{n}", 2.0 + n / 100, data__path="long/path/of/a/corpus/" * 3 + str(n), **which)
    c = compare_folders([tmp_path], Question(by=["data.path"]))
    for draw in (curves, ablation, pareto):
        figure = draw(c)
        figure.canvas.draw()
        for legend in figure.legends:
            box, whole = legend.get_window_extent(), figure.bbox
            assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
            assert box.y0 >= whole.y0
            assert all("…" not in text.get_text() for text in legend.get_texts())


@pytest.mark.parametrize("configurations", [1, 2, 30])
def test_plots_are_drawn_for_one_configuration_and_for_many(tmp_path: Path, configurations: int) -> None:
    for n in range(1, configurations + 1):
        make_run(tmp_path / f"{n}", 2.0 + n / 100, model__n_layer=n, model__position=["rope", "alibi"][n % 2])
    make_run(tmp_path / "diverged", None, model__n_layer=99)
    make_run(tmp_path / "flat", 2.0, model__n_layer=98)
    (tmp_path / "flat/metrics.csv").unlink()
    assert len(plots(compare_folders([tmp_path], Question()))) == 3


# ---------------------------------------------------------------------------------- arbitrary file contents

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARTS = ["status", "metrics", "best", "val", "steps", "tokens", "seconds", "training_seconds", "tokens_per_second"]


@given(
    part=st.sampled_from([*PARTS, "parameters", "resumed_from", "bytes_per_token", "flops_per_token"]),
    value=JSON | st.dictionaries(st.sampled_from(["val/bpb", "tokens", "text_sha256"]), JSON),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_of_a_result_is_read_or_named_in_an_error(tmp_path: Path, part: str, value: object) -> None:
    run = make_run(tmp_path / "a", 2.0, result={part: value})
    runs, left_out = read_runs([run])
    assert len(runs) + len(left_out) == 1
    assert all(re.match(r"unfinished|failed|result\.json is damaged", excluded.reason) for excluded in left_out)
    for metric in {name for run in runs for name in run.metrics}:
        with contextlib.suppress(RunError):  # for example after a divergence
            print_comparison(Console(file=io.StringIO()), compare(runs, [], Question(metric=metric)))


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    """If the disk becomes full while the page is written, the old page is kept."""
    sweep(tmp_path / "sweep")
    (tmp_path / "sweep/report").mkdir()
    (tmp_path / "sweep/report/report.html").write_text("old")
    shell = f"ulimit -f 20; exec {sys.executable} -m gptexp.compare sweep"
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "mpl")}
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, cwd=tmp_path, timeout=100, env=environment
    )
    assert done.returncode == 2
    assert "sweep/report/" in done.stderr
    assert (tmp_path / "sweep/report/report.html").read_text() == "old"
    assert not list(tmp_path.rglob("*.tmp"))
    assert json.loads((tmp_path / "sweep/a1/result.json").read_text())["status"] == "completed"


def test_a_formula_in_a_setting_is_text_in_the_csv(tmp_path: Path) -> None:
    texts = ["=1+1", "+A1", "-A1", "@SUM(A1)", "\tx", "\r=1"]
    for index, text in enumerate([*texts, "plain"]):
        make_run(tmp_path / str(index), -2.0 - index, data__path=text, optimizer__lr=0.001, model__n_layer=index)
    rows = list(
        csv.DictReader(io.StringIO(to_csv(compare_folders([tmp_path], Question(by=["data.path"]))), newline=""))
    )
    assert [row["data.path"] for row in rows] == [*(f"'{printable(text)}" for text in texts), "plain"]
    assert [float(row["mean"]) for row in rows] == [-2.0 - index for index in range(7)]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in tuple("=@\t\r")]


def test_replay_prints_the_strings_of_a_bundle_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = {"what": "step 2\x1b[2J", "seed": 1, "precision": "32-true\x1b]0;x\x07"}
    monkeypatch.setattr(replay_command, "read_bundle", lambda _: bundle)
    monkeypatch.setattr(replay_command, "replay", lambda _: "h\x1b[31m is the first module")
    with pytest.raises(SystemExit):
        replay_entry_point.main([str(tmp_path / "b.pt")])
    assert "\x1b" not in capsys.readouterr().out


NASTY = r"a_b & 50% $x$ #1 {y} \end{tabular} ~^ | <b> [l](http://x) www.x.com `c` *d*"


@pytest.fixture
def nasty(tmp_path: Path) -> Comparison:
    make_run(tmp_path / "a", 2.0, data__path=NASTY)
    make_run(tmp_path / "b", 1.9, data__path="b.txt\n\\input{x}")
    return compare_folders([tmp_path], Question())


def test_a_latex_table_escapes_a_malicious_name(nasty: Comparison) -> None:
    table = latex(nasty).split("\\end{tabular}\n")[0]
    lines = table.splitlines()
    assert lines[1:3] == [r"\begin{tabular}{lrrrrrrrrr}", r"\toprule"]
    assert r"a\_b \& 50\% \$x\$ \#1 \{y\} \textbackslash{}end\{tabular\}" in table
    assert r"\textasciitilde{}\textasciicircum{} $|$ $<$b$>$" in table
    assert r"\textbackslash{}input\{x\}" in table
    assert {line.replace(r"\&", "").count("&") for line in lines if line.endswith(r"\\")} == {9}
    assert all(line.startswith("%") for line in latex(nasty).split("\\end{tabular}\n")[1].splitlines())


def test_a_latex_table_prints_negative_numbers_with_a_minus_sign(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0, model__n_layer=1)
    make_run(tmp_path / "b", 1.9, model__n_layer=2)
    assert "& $-$0.1000 &" in latex(compare_folders([tmp_path], Question()))


def test_a_markdown_table_escapes_a_malicious_name(nasty: Comparison) -> None:
    table = markdown(nasty).split("\n\n")[0].splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {11}
    assert table[1] == "| :--- |" + " ---: |" * 9
    row = next(line for line in table if "50%" in line)
    assert r"\$x\$ \#1 \{y\}" in row
    assert r"\| \<b\> \[l\](http\://x) www\.x.com \`c\` \*d\*" in row


def test_formats_are_printed_and_another_metric_keeps_the_old_report(tmp_path: Path) -> None:
    sweep(tmp_path / "sweep")
    first = command("compare", "sweep", "--format", "latex", cwd=tmp_path)
    assert first.stdout == (tmp_path / "sweep/report/comparison.tex").read_text(encoding="utf-8")
    assert first.stderr.startswith("\nsweep/report: comparison.csv")
    before = {path: path.read_bytes() for path in (tmp_path / "sweep/report").iterdir()}
    done = command("compare", "sweep", "--format", "markdown", "--metric", "val/loss", "--at", "tokens", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep/report/val_loss-at-tokens/comparison.md").read_text(encoding="utf-8") == done.stdout
    assert all(path.read_bytes() == data for path, data in before.items())
