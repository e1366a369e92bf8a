"""The comparison as a table for a paper (LaTeX) or a README (Markdown); any name in it stays text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gptexp.report.cells import Column, columns, decimals, effect_columns
from gptexp.report.comparison import Comparison
from gptexp.report.effects import main_effects
from gptexp.report.notes import notes, verdicts
from gptexp.util.text import printable

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "{}$&#_%"},
    **{sign: f"${sign}$" for sign in "<>|"},
    "±": r"$\pm$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "·": r"$\cdot$",
    "–": "--",
    "…": r"\dots{}",
    '"': r"\textquotedbl{}",
}
MARKDOWN = r"\`*_{}[]<>#|~$&@:"  # CommonMark's, and those of GitHub's tables, formulas and links


def latex(c: Comparison) -> str:
    """A tabular for each table, with booktabs; notes as comments."""
    comments = "".join(f"% {printable(line)}\n" for line in [*verdicts(c), *notes(c)])
    return "% \\usepackage{booktabs}\n" + "\n".join(map(_tabular, _all(c))) + comments


def markdown(c: Comparison) -> str:
    """A table of GitHub's form for each table, and the notes as a list."""
    lines = "".join(f"- {_markdown(line)}\n" for line in [*verdicts(c), *notes(c)])
    return "\n".join([*map(_pipes, _all(c)), lines])


FORMATS: dict[str, tuple[str, Callable[[Comparison], str]]] = {
    "latex": ("comparison.tex", latex),
    "markdown": ("comparison.md", markdown),
}


def _all(c: Comparison) -> list[list[Column]]:
    return [columns(c), *(effect_columns(effect, decimals(c)) for effect in main_effects(c))]


def _tabular(shown: Sequence[Column]) -> str:
    form = "".join("l" if column.kind == "setting" else "r" for column in shown)
    head, *rows = (" & ".join(map(_latex, row)) + r" \\" for row in _rows(shown))
    body = "\n".join([head, r"\midrule", *rows])
    return f"\\begin{{tabular}}{{{form}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def _pipes(shown: Sequence[Column]) -> str:
    rule = [":---" if column.kind == "setting" else "---:" for column in shown]
    head, *rows = ([_markdown(cell) for cell in row] for row in _rows(shown))
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])


def _rows(shown: Sequence[Column]) -> list[list[str]]:
    cells = zip(*(column.cells for column in shown), strict=True)
    return [[column.name for column in shown], *map(list, cells)]


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(sign, sign) for sign in printable(text))
    return re.sub(r"^-(?=\d)", "$-$", escaped)  # a hyphen is shorter than a minus sign


def _markdown(text: str) -> str:
    escaped = "".join(f"\\{sign}" if sign in MARKDOWN else sign for sign in printable(text))
    return re.sub(r"(?i)\bwww\.", r"www\\.", escaped)  # GitHub makes a link of it
