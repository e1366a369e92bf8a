"""The comparison on a terminal: a table that reads well at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gptexp.report.cells import Column, columns
from gptexp.report.comparison import Comparison
from gptexp.report.notes import notes, verdicts
from gptexp.report.reading import LeftOut
from gptexp.words import plain

WIDEST_SETTING = 28
MOST_LEFT_OUT = 12


def print_comparison(console: Console, c: Comparison) -> None:
    """Table, verdicts, notes, and what was left out."""
    shown = columns(c)
    for table in _tables(console, shown):
        console.print(table)
        console.print()
    for line in verdicts(c):
        _say(console, line)
    console.print()
    for line in notes(c):
        _say(console, line, style="dim")
    print_left_out(console, c.left_out)


def _tables(console: Console, shown: Sequence[Column]) -> list[Table]:
    """One table where it fits; else results and costs apart."""
    whole = _table(shown)
    if Measurement.get(console, console.options.update(width=10_000), whole).maximum <= console.width:
        return [whole]
    return [_table([column for column in shown if column.kind in ("setting", kind)]) for kind in ("result", "cost")]


def _table(shown: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    for column in shown:
        if column.kind == "setting":
            table.add_column(Text(column.name), overflow="fold", max_width=WIDEST_SETTING)
        else:
            table.add_column(Text(column.name), justify="right", no_wrap=True)
    for index in range(len(shown[0].cells)):
        table.add_row(*(Text(column.cells[index]) for column in shown))  # Text: brackets are no markup
    return table


def print_left_out(console: Console, left_out: Sequence[LeftOut]) -> None:
    """Each run that takes no part, with its reason."""
    if not left_out:
        return
    console.print()
    _say(console, f"left out ({len(left_out)}):")
    for lost in left_out[:MOST_LEFT_OUT]:
        _say(console, f"{lost.folder}: {lost.reason}", indent=2)
    if len(left_out) > MOST_LEFT_OUT:
        _say(console, f"… and {len(left_out) - MOST_LEFT_OUT} more, all named in report.html", indent=2)


def _say(console: Console, text: str, indent: int = 0, style: str = "") -> None:
    console.print(Padding(Text(plain(text), style=style), (0, 0, 0, indent), expand=False))
