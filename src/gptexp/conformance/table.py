"""The outcomes as a table for a terminal of 80 columns, and as conformance.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gptexp.conformance.check import Area, Outcome, Status, Value
from gptexp.util.text import printable

STYLES = {Status.passed: "green", Status.failed: "bold red", Status.skipped: "dim"}
WORDS = {Status.passed: "passed", Status.failed: "failed", Status.skipped: "skipped"}
WIDEST, WIDEST_CELL, LEAST_NAME = 100, 20, 20
LONGEST_TEXT = 44  # of a hash only the first characters are printed
Report = Sequence[tuple[Area, Sequence[Outcome]]]


def print_area(console: Console, area: Area, outcomes: Sequence[Outcome]) -> None:
    """Print title, note and rows of an area; the source of a number is below it, in the whole width."""
    width = min(console.width, WIDEST)
    cells = [(outcome.check.name, *_numbers(outcome), outcome.status.value) for outcome in outcomes]
    headings = ("", "published", "ours", "tolerance", "")
    widths = [min(WIDEST_CELL, max(map(len, column))) for column in zip(headings, *cells, strict=True)]
    widths[0] = max(LEAST_NAME, width - sum(widths[1:]) - len(headings) + 1)
    console.print(Text(f"\n{area.title}", style="bold"))
    if area.note:
        console.print(Text(area.note, style="dim"), width=width)
    console.print(_row(headings, widths, style="dim"))
    for outcome, row in zip(outcomes, cells, strict=True):
        console.print(_row(row, widths, last=STYLES[outcome.status]))
        for line in filter(None, (outcome.check.source, outcome.reason)):
            console.print(Padding(Text(printable(line), style="dim"), (0, 0, 0, 2)), width=width)


def _row(cells: Sequence[str], widths: Sequence[int], *, style: str = "", last: str = "") -> Table:
    """One row of columns; a cell that is too long is wrapped."""
    table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    for index, width in enumerate(widths):
        is_number = 0 < index < len(widths) - 1
        table.add_column(width=width, justify="right" if is_number else "left", overflow="fold")
    table.add_row(*(Text(cell, style=style) for cell in cells[:-1]), Text(cells[-1], style=last))
    return table


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return how many checks passed, failed and were skipped."""
    counts = Counter(outcome.status for outcome in outcomes)
    return " · ".join(f"{counts[status]} {word}" for status, word in WORDS.items())


def markdown(report: Report, facts: Mapping[str, str]) -> str:
    """Return the whole table as a document. facts: lines of its head, by name."""
    every = [outcome for _, rows in report for outcome in rows]
    head = ["# Conformance", "", "Published numbers, computed again by this package.", ""]
    head += [f"- {name}: {_cell(value)}" for name, value in facts.items()]
    head += [f"- result: {summary(every)}"]
    parts = [_section(area, rows) for area, rows in report]
    return "\n".join([*head, *(line for part in parts for line in part)]) + "\n"


def _section(area: Area, rows: Sequence[Outcome]) -> list[str]:
    lines = ["", f"## {area.title}", ""]
    lines += [_cell(area.note), ""] if area.note else []
    lines += ["| | published | ours | tolerance | result | source |", "|---|--:|--:|--:|---|---|"]
    for outcome in rows:
        result = outcome.status.value + (f": {outcome.reason}" if outcome.reason else "")
        cells = (outcome.check.name, *_numbers(outcome), result, outcome.check.source)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return lines


def _numbers(outcome: Outcome) -> tuple[str, str, str]:
    """The published value, the computed value and the tolerance, as text."""
    check = outcome.check
    ours = "–" if outcome.ours is None else format_value(outcome.ours)
    return format_value(check.published), ours, f"± {format_value(check.tolerance)}" if check.tolerance else "equal"


def format_value(value: Value) -> str:
    """Return 1,234,567 or 2.4819; a tuple with spaces; text shortened, and quoted if it begins or ends with a space."""
    if isinstance(value, str):
        text = printable(value)
        text = text if len(text) <= LONGEST_TEXT else f"{text[:12]}…"
        return f"“{text}”" if text != text.strip() else text
    if isinstance(value, tuple):  # tokens are printed without commas
        return " ".join(f"{member:.5g}" if isinstance(member, float) else str(member) for member in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def _cell(text: str) -> str:
    """Escape the characters that are special in a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
