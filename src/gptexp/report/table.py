"""The comparison as a table on a terminal, readable at 80 columns and without colour, and as comparison.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gptexp.report.columns import Column, columns, decimals, effect_columns, where_tables
from gptexp.report.comparison import Comparison, Row
from gptexp.report.effects import main_effects
from gptexp.report.naming import differing
from gptexp.report.notes import notes, verdicts
from gptexp.report.reading import LeftOut
from gptexp.report.where import Where
from gptexp.util.text import printable

WIDEST_SETTING = 28
LONGEST_WORD = 16
MOST_LEFT_OUT = 12
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a formula in a spreadsheet
Cell = str | int | float | bool | None


def print_comparison(console: Console, c: Comparison) -> None:
    """Print the tables, the verdicts, the notes, and the excluded runs."""
    for table in _tables(console, columns(c)):
        console.print(table)
        console.print()
    for effect in main_effects(c):
        console.print(_table(effect_columns(effect, decimals(c))))
        console.print()
    for caption, part in where_tables(c):
        _print_line(console, caption)
        console.print(_table(part))
        console.print()
    for line in verdicts(c):
        _print_line(console, line)
    console.print()
    for line in notes(c):
        _print_line(console, line, style="dim")
    print_left_out(console, c.left_out)


def _tables(console: Console, whole: Sequence[Column]) -> list[Table]:
    """One table if it fits; else results and costs apart, each in as many tables as its columns need."""
    if _fits(console, whole):
        return [_table(whole)]
    heads = [column for column in whole if column.kind == "setting"]
    tables: list[list[Column]] = []
    for kind in ("result", "cost"):
        tables.append(list(heads))
        for column in (column for column in whole if column.kind == kind):
            if len(tables[-1]) > len(heads) and not _fits(console, [*tables[-1], column]):
                tables.append(list(heads))
            tables[-1].append(column)
    return [_table(part) for part in tables]


def _fits(console: Console, part: Sequence[Column]) -> bool:
    wide = console.options.update(width=10_000)
    return Measurement.get(console, wide, _table(part)).maximum <= console.width


def _table(part: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    for column in part:
        if column.kind == "setting":  # words and headings are not broken if there is space
            longest = max((cell_len(word) for text in (column.name, *column.cells) for word in text.split()), default=0)
            table.add_column(
                Text(column.name), overflow="fold", min_width=min(longest, LONGEST_WORD), max_width=WIDEST_SETTING
            )
        else:
            table.add_column(Text(column.name), justify="right", no_wrap=True)
    for index in range(len(part[0].cells)):
        table.add_row(*(Text(column.cells[index]) for column in part))  # Text: brackets are not markup
    return table


def print_left_out(console: Console, left_out: Sequence[LeftOut]) -> None:
    """Print each excluded run with its reason, at most MOST_LEFT_OUT of them."""
    if not left_out:
        return
    console.print()
    _print_line(console, f"left out ({len(left_out)}):")
    for run in left_out[:MOST_LEFT_OUT]:
        _print_line(console, f"{run.folder}: {run.reason}", indent=2)
    if len(left_out) > MOST_LEFT_OUT:
        _print_line(console, f"… and {len(left_out) - MOST_LEFT_OUT} more; report.html lists all of them", indent=2)


def _print_line(console: Console, text: str, indent: int = 0, style: str = "") -> None:
    console.print(Padding(Text(printable(text), style=style), (0, 0, 0, indent), expand=False))


def to_csv(c: Comparison) -> str:
    """Return comparison.csv: a row for each configuration, unrounded; the differing settings first, by full name."""
    return _csv([{**_settings(c, row), **_numbers(c, row)} for row in c.rows])


def where_csv(where: Where) -> str:
    """Return where.csv: a row for each bin of each split of each configuration, unrounded."""
    return _csv([
        {"configuration": one.label, "baseline": one.baseline, "split": name, "bin": part.label, "tokens": part.tokens,
         "baseline_loss": part.baseline, "loss": part.loss, "difference": part.difference.mean,
         "difference_low": part.difference.low, "difference_high": part.difference.high, "seeds": part.difference.n,
         "contribution": part.contribution}
        for one in where.located for name, bins in one.splits.items() for part in bins
    ])  # fmt: skip


def _csv(table: Sequence[Mapping[str, Cell]]) -> str:
    rows = [{_escaped(key): _escaped(value) for key, value in row.items()} for row in table]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _escaped(cell: Cell) -> Cell:
    """Text without control characters, and with an apostrophe before what a spreadsheet would read as a formula."""
    if not isinstance(cell, str):
        return cell
    return f"'{printable(cell)}" if cell.startswith(FORMULA) else printable(cell)


def _settings(c: Comparison, row: Row) -> dict[str, Cell]:
    return {key: row.settings.get(key) for key in dict.fromkeys([*c.keys, *differing([r.settings for r in c.rows])])}


def _numbers(c: Comparison, row: Row) -> dict[str, Cell]:
    d = row.difference
    return {
        "configuration": row.label,
        "metric": c.metric,
        "seeds": len(row.readings),
        "seed_list": " ".join(str(reading.run.seed) for reading in row.readings),
        "seeds_missing": len(row.missing),
        "mean": row.interval.mean,
        "low": row.interval.low,
        "high": row.interval.high,
        "sd": row.interval.sd,
        "interval": c.question.method,
        "best": row.best,
        "baseline": row is c.baseline,
        "difference": None if d is None else d.mean,
        "difference_low": None if d is None else d.low,
        "difference_high": None if d is None else d.high,
        "test": None if d is None else d.test,
        "p": None if d is None else d.p,
        "p_holm": row.p,
        "parameters": row.parameters,
        "steps": row.mean("steps"),
        "tokens": row.mean("tokens"),
        "bytes": row.mean("nbytes"),
        "flops": row.mean("flops"),
        "flops_estimated": c.flops_estimated,
        "tokens_per_second": row.tokens_per_second,
        "seconds": row.mean("seconds"),
    }
