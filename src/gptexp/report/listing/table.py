"""The list as lines of text: as many columns as the terminal has place for, or all of them without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from gptexp.report.listing.rows import Row
from gptexp.runs.states import RUNNING
from gptexp.util.text import clock, printable, quantity

NOTHING = "–"
GAP = "  "
SHORTEST_NAME = 36  # columns are left out before names are cut further
Cell = Callable[[Row], str]


@dataclass(frozen=True, slots=True)
class Column:
    """A column. needed: how late it is left out where the terminal is narrow; 0 is kept."""

    name: str
    cell: Cell
    needed: int = 0
    right: bool = True


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns besides the first, which has the folder, and the last, which has the remark."""
    metrics = {row.metric for row in rows if row.best is not None}
    one = metrics.pop() if len(metrics) == 1 else ""
    value: Callable[[float | None, Row], str] = lambda x, row: (  # noqa: E731
        NOTHING if x is None else f"{x:.4g}" if abs(x) >= 1000 else f"{x:.4f}" if one else f"{row.metric} {x:.4f}"
    )
    return [
        Column("state", lambda row: row.state, right=False),
        Column("progress", progress),
        Column(f"best {one}".strip(), lambda row: value(row.best, row)),
        Column("last", lambda row: value(row.record.metrics.get(row.metric), row), 3),
        Column("time", lambda row: NOTHING if row.seconds is None else clock(min(row.seconds, 1e9)), 1),
        Column("age", lambda row: age(time.time() - row.changed)),
        Column("size", lambda row: quantity(row.size).replace(" ", "") + "B", 2),
    ]


def progress(row: Row) -> str:
    """Return the steps of a run, or the completed jobs of a sweep: 120/580."""
    if row.found.is_sweep:
        return f"{row.done}/{row.record.total} jobs"
    whole = row.record.max_steps
    return f"{row.record.step or 0}" + ("" if whole in (None, row.record.step) else f"/{whole}")


def left(row: Row) -> str:
    """Return the time that a run still needs at its speed until now."""
    record = row.record
    if not (record.step and record.max_steps and record.seconds):
        return NOTHING
    return clock(min((record.max_steps - record.step) * record.seconds / record.step, 1e9))


def age(seconds: float) -> str:
    """Return a duration in its largest unit: 40s, 12min, 3h, 8d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def remark(row: Row) -> str:
    """Return what is wrong with a run, and its note."""
    record = row.record
    problem = record.problem if row.state != RUNNING else ""  # a run that starts has not written all files yet
    parts = (problem, record.error, record.note and f"note: {record.note}")
    return " · ".join(printable(part) for part in parts if part)


def lines(rows: Sequence[Row], chosen: Sequence[Column], width: int | None) -> Iterator[str]:
    """Yield the heading and a line for each row.

    width: of the terminal; None: nothing is cut, and the remark stands at the end of the line, not below it.
    """
    names = [printable(row.name) for row in rows]
    cells = [[column.cell(row) for row in rows] for column in chosen]
    widths = [max(map(cell_len, [column.name, *texts])) for column, texts in zip(chosen, cells, strict=True)]
    shown = set(range(len(chosen)))
    room: Callable[[], int] = lambda: (width or 0) - sum(len(GAP) + widths[i] for i in shown)  # noqa: E731
    longest = max(map(cell_len, ["run", *names]))
    while width is not None and room() < min(longest, SHORTEST_NAME) and any(chosen[i].needed for i in shown):
        shown.remove(max(shown, key=lambda i: chosen[i].needed))
    first = longest if width is None else min(longest, max(room(), 8))
    order = sorted(shown)
    heading = [_aligned(chosen[i].name, widths[i], chosen[i].right) for i in order]
    yield GAP.join([_aligned("run", first, False), *heading]).rstrip()
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        line = [_aligned(cells[i][number], widths[i], chosen[i].right) for i in order]
        text, also = GAP.join([_aligned(_end_of(name, first), first, False), *line]), remark(row)
        if width is None:
            yield f"{text}{GAP}{also}".rstrip()
        else:
            yield text.rstrip()
            yield from [_start_of(f"    {also}", width)] if also else []


def _aligned(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _start_of(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"


def _end_of(text: str, width: int) -> str:
    """Return the end of a path: its last parts distinguish runs."""
    if cell_len(text) <= width:
        return text
    while cell_len(text) > width - 1:
        text = text[max(1, (cell_len(text) - width + 1) // 2) :]
    return f"…{text}"


def watched(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of `gptexp runs watch`."""
    loss: Cell = lambda row: _number(row.record.metrics.get("train/loss"))  # noqa: E731
    speed: Cell = lambda row: _quantity(row.record.metrics.get("tokens_per_second"))  # noqa: E731
    return [
        Column("progress", progress),
        Column("train/loss", loss),
        columns(rows)[2],
        Column("tokens/s", speed, 2),
        Column("left", left),
        Column("silent", lambda row: age(time.time() - row.changed), 1),
    ]


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _quantity(value: float | None) -> str:
    return NOTHING if value is None else quantity(value)


def running(rows: Sequence[Row]) -> list[Row]:
    """Return the runs and sweeps that run, each sweep before its jobs."""
    found = [row for row in rows if row.state == RUNNING]
    return sorted(found, key=lambda row: str(row.found.folder))
