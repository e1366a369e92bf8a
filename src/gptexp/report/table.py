"""The comparison on a terminal: a table that reads well at 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gptexp.report.cells import Column, columns, decimals, effect_columns
from gptexp.report.comparison import Comparison
from gptexp.report.effects import main_effects
from gptexp.report.notes import notes, verdicts
from gptexp.report.reading import LeftOut
from gptexp.util.text import printable

WIDEST_SETTING = 28
LONGEST_WORD = 16
MOST_LEFT_OUT = 12


def print_comparison(console: Console, c: Comparison) -> None:
    """Table, verdicts, notes, and what was left out."""
    shown = columns(c)
    for table in _tables(console, shown):
        console.print(table)
        console.print()
    for effect in main_effects(c):
        console.print(_table(effect_columns(effect, decimals(c))))
        console.print()
    for line in verdicts(c):
        _say(console, line)
    console.print()
    for line in notes(c):
        _say(console, line, style="dim")
    print_left_out(console, c.left_out)


def _tables(console: Console, shown: Sequence[Column]) -> list[Table]:
    """One table where it fits; else results and costs apart, each in as many tables as its columns need."""
    if _fits(console, shown):
        return [_table(shown)]
    heads = [column for column in shown if column.kind == "setting"]
    tables: list[list[Column]] = []
    for kind in ("result", "cost"):
        tables.append(list(heads))
        for column in (column for column in shown if column.kind == kind):
            if len(tables[-1]) > len(heads) and not _fits(console, [*tables[-1], column]):
                tables.append(list(heads))
            tables[-1].append(column)
    return [_table(columns) for columns in tables]


def _fits(console: Console, shown: Sequence[Column]) -> bool:
    wide = console.options.update(width=10_000)
    return Measurement.get(console, wide, _table(shown)).maximum <= console.width


def _table(shown: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    for column in shown:
        if column.kind == "setting":  # a head and a word are never broken where there is room for them
            longest = max((cell_len(word) for text in (column.name, *column.cells) for word in text.split()), default=0)
            table.add_column(
                Text(column.name), overflow="fold", min_width=min(longest, LONGEST_WORD), max_width=WIDEST_SETTING
            )
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
    console.print(Padding(Text(printable(text), style=style), (0, 0, 0, indent), expand=False))
