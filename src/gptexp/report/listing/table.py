"""The list as lines of text: as many columns as the terminal has space for, or all of them without a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len, set_cell_size

from gptexp.report.listing.rows import Row
from gptexp.runs.states import RUNNING
from gptexp.util.text import clock, printable, quantity

NOTHING = "–"
GAP = "  "
SHORTEST_NAME = 36  # columns are left out before names are cut further
OPTIONAL = ("last", "tokens/s", "size", "silent", "time")  # in the order in which they are left out

Columns = Mapping[str, Sequence[str]]  # the cells of each column, by its name


def columns(rows: Sequence[Row]) -> Columns:
    """Return the columns of `gptexp runs` between the folder and the remark."""
    return {
        "state": [row.state for row in rows],
        "progress": [_progress(row) for row in rows],
        **_best(rows),
        "last": [_value(row.metrics.get(row.metric)) for row in rows],
        "time": [_duration(row.seconds) for row in rows],
        "age": [_age(row.age) for row in rows],
        "size": [quantity(row.size).replace(" ", "") + "B" for row in rows],
    }


def watched(rows: Sequence[Row]) -> Columns:
    """Return the columns of `gptexp runs watch`."""
    speeds = [row.metrics.get("tokens_per_second") for row in rows]
    return {
        "progress": [_progress(row) for row in rows],
        "train/loss": [_value(row.metrics.get("train/loss")) for row in rows],
        **_best(rows),
        "tokens/s": [NOTHING if speed is None else quantity(speed) for speed in speeds],
        "left": [_duration(_left(row)) for row in rows],
        "silent": [_age(row.age) for row in rows],
    }


def _best(rows: Sequence[Row]) -> Columns:
    """Return the column of the best values, which have the name of their metric unless all have the same."""
    metrics = {row.metric for row in rows if row.best is not None}
    if len(metrics) == 1:
        return {f"best {metrics.pop()}": [_value(row.best) for row in rows]}
    return {"best": [_value(row.best, f"{row.metric} ") for row in rows]}


def _value(x: float | None, metric: str = "") -> str:
    return NOTHING if x is None else f"{metric}{x:.4f}" if abs(x) < 1000 else f"{metric}{x:.4g}"


def _progress(row: Row) -> str:
    """Return the steps of a run, or the completed jobs of a sweep: 120/580."""
    if row.kind == "sweep":
        return f"{row.done}/{row.jobs or 0} jobs"
    return f"{row.step or 0}" + ("" if row.max_steps in (None, row.step) else f"/{row.max_steps}")


def _left(row: Row) -> float | None:
    """Return the seconds that a run still needs at its speed until now."""
    if not (row.step and row.max_steps and row.seconds):
        return None
    return (row.max_steps - row.step) * row.seconds / row.step


def _duration(seconds: float | None) -> str:
    return NOTHING if seconds is None else clock(min(seconds, 1e9))


def _age(seconds: float) -> str:
    """Return a duration in its largest unit: 40s, 12min, 3h, 8d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _remark(row: Row) -> str:
    """Return what is wrong with a run, and its note."""
    problem = None if row.state == RUNNING else row.problem  # a run that starts has not written all files yet
    parts = (problem, row.error, row.note and f"note: {row.note}")
    return " · ".join(printable(part) for part in parts if part)


def lines(rows: Sequence[Row], columns: Columns, width: int | None) -> Iterator[str]:
    """Yield the heading and a line for each row.

    width: of the terminal; None: nothing is cut, and the remark stands at the end of the line, not below it.
    """
    names = ["run", *(printable(row.run) for row in rows)]
    widths = {heading: max(map(len, [heading, *cells])) for heading, cells in columns.items()}
    longest = max(map(cell_len, names))
    if width is not None:
        for heading in OPTIONAL:
            if _room(width, widths) < min(longest, SHORTEST_NAME):
                widths.pop(heading, None)
        longest = min(longest, max(_room(width, widths), 8))
    aligned = {heading: str.ljust if heading == "state" else str.rjust for heading in widths}
    shown = [[aligned[at](cell, widths[at]) for cell in (at, *columns[at])] for at in widths]
    for name, remark, *cells in zip(names, ["", *map(_remark, rows)], *shown, strict=True):
        end = _start_of(name[::-1], longest)[::-1]  # the last parts of a path distinguish runs
        line = GAP.join([set_cell_size(end, longest), *cells])
        if width is None:
            yield f"{line}{GAP}{remark}".rstrip()
            continue
        yield line.rstrip()
        if remark:
            yield _start_of(f"    {remark}", width)


def _room(width: int, widths: Mapping[str, int]) -> int:
    """Return the width that the other columns leave for the names."""
    return width - sum(len(GAP) + column for column in widths.values())


def _start_of(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"
