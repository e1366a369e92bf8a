"""The table as LaTeX, Markdown and CSV: names are escaped."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")


from gptexp.report.comparison import Comparison, Question, compare_folders
from gptexp.report.latex_markdown import latex, markdown
from gptexp.report.table import to_csv
from gptexp.util.text import printable
from support.run_folders import make_run

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
