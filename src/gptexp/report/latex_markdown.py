"""The comparison as a LaTeX or Markdown table; names are escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gptexp.report.columns import Column, columns, decimals, effect_columns, where_tables
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
MARKDOWN = r"\`*_{}[]<>#|~$&@:"  # special in CommonMark, or in tables, formulas and links of GitHub


def latex(c: Comparison) -> str:
    """Return a booktabs tabular for each table, with the notes as comments."""
    comments = "".join(f"% {printable(line)}\n" for line in [*verdicts(c), *notes(c)])
    where = "".join(f"\n% {printable(caption)}\n{_tabular(part)}" for caption, part in where_tables(c))
    return "% \\usepackage{booktabs}\n" + "\n".join(map(_tabular, _tables(c))) + where + comments


def markdown(c: Comparison) -> str:
    """Return a GitHub table for each table, and the notes as a list."""
    lines = "".join(f"- {_markdown(line)}\n" for line in [*verdicts(c), *notes(c)])
    where = [f"{_markdown(caption)}\n\n{_pipes(part)}" for caption, part in where_tables(c)]
    return "\n".join([*map(_pipes, _tables(c)), *where, lines])


FORMATS: dict[str, tuple[str, Callable[[Comparison], str]]] = {
    "latex": ("comparison.tex", latex),
    "markdown": ("comparison.md", markdown),
}


def _tables(c: Comparison) -> list[list[Column]]:
    return [columns(c), *(effect_columns(effect, decimals(c)) for effect in main_effects(c))]


def _tabular(part: Sequence[Column]) -> str:
    form = "".join("l" if column.kind == "setting" else "r" for column in part)
    head, *rows = (" & ".join(map(_latex, row)) + r" \\" for row in _rows(part))
    body = "\n".join([head, r"\midrule", *rows])
    return f"\\begin{{tabular}}{{{form}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def _pipes(part: Sequence[Column]) -> str:
    rule = [":---" if column.kind == "setting" else "---:" for column in part]
    head, *rows = ([_markdown(cell) for cell in row] for row in _rows(part))
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])


def _rows(part: Sequence[Column]) -> list[list[str]]:
    cells = zip(*(column.cells for column in part), strict=True)
    return [[column.name for column in part], *map(list, cells)]


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(sign, sign) for sign in printable(text))
    return re.sub(r"^-(?=\d)", "$-$", escaped)  # a minus sign instead of a hyphen


def _markdown(text: str) -> str:
    escaped = "".join(f"\\{sign}" if sign in MARKDOWN else sign for sign in printable(text))
    return re.sub(r"(?i)\bwww\.", r"www\\.", escaped)  # GitHub would make it a link
