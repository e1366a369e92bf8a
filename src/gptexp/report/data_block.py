"""The data block of report.html: what its table was made from, as JSON, and the check of a page against it.

A page may come from a stranger. Its block is data: it is parsed as JSON, its types are checked, and it holds no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from gptexp import __version__
from gptexp.report.budget import Reading, at_end
from gptexp.report.columns import Column, columns, decimals, effect_columns
from gptexp.report.comparison import Comparison, Question, compare_to, make_row
from gptexp.report.effects import main_effects
from gptexp.report.reading import LeftOut
from gptexp.report.recorded import RecordedRun, as_json, as_plain, from_plain, recorded
from gptexp.util.errors import RunError
from gptexp.util.files import read_text

ID, FORMAT, VERSION = "gptexp-data", "gptexp report", 1
PAGE_BYTES = 64 * 2**20
PLAIN = ("keys", "by", "along", "budget", "flops_estimated")  # fields of a Comparison that are stored as they are
DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError)


class PageChanged(RunError):
    """A page differs from what its data give; the message names the place, what it shows and what is expected."""


@dataclass(frozen=True)
class Reported:
    """A run of a page: the label of its row, and what the table shows of it in the comparison."""

    label: str
    run: RecordedRun
    reading: Reading
    comparison: Comparison


# ---------------------------------------------------------------------------------- writing


def with_block(html: str, c: Comparison) -> str:
    """Return a page with its data block."""
    block = _block(c) | {"sections": read_elements(html).sections()}
    head, end, tail = html.rpartition("</body>")
    return f'{head}<script type="application/json" id="{ID}">{sealed(block)}</script>{end}{tail}'


def sealed(block: Mapping[str, Any]) -> str:
    """Return the text of a block, with the checksums of its parts."""
    return _escaped({**block, "checksums": {where: _checksum(part) for where, part in _parts(block)}})


def _escaped(block: Mapping[str, Any]) -> str:
    """The data as JSON in ASCII that can't end the script element."""
    text = json.dumps(block, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _block(c: Comparison) -> dict[str, Any]:
    runs = [[_run(c, reading) for reading in row.readings] for row in c.rows]
    of_runs, of_rows = common([run for row in runs for run in row]), common([as_json(row.settings) for row in c.rows])
    return {
        "format": FORMAT,
        "version": VERSION,
        "gptexp": __version__,
        "question": as_json(asdict(c.question)),
        **{name: as_json(getattr(c, name)) for name in PLAIN},
        "baseline": c.rows.index(c.baseline),
        "shared": {"run": of_runs, "row": of_rows},
        "rows": [
            {
                "label": row.label,
                "settings": without(as_json(row.settings), of_rows),
                "missing": len(row.missing),
                "runs": [without(run, of_runs) for run in found],
            }
            for row, found in zip(c.rows, runs, strict=True)
        ],
    }


def _run(c: Comparison, reading: Reading) -> dict[str, Any]:
    plain = as_plain(recorded(reading.run))
    if c.question.at is None:
        return plain  # the reading is that of the last step
    return plain | {"reading": {f.name: as_json(getattr(reading, f.name)) for f in fields(Reading)[1:]}}


def common(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entries that all nested mappings have with equal values."""
    kept: dict[str, Any] = {}
    for key, value in (parts[0] if parts else {}).items():
        found = [part[key] for part in parts if key in part]
        if len(found) == len(parts) and all(type(other) is type(value) for other in found):
            if isinstance(value, dict):
                kept[key] = common(found)
            elif all(other == value for other in found):
                kept[key] = value
    return kept


def without(part: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a nested mapping that `common` did not return."""
    rest = {}
    for key, value in part.items():
        if key not in shared:
            rest[key] = value
        elif isinstance(value, dict) and (inner := without(value, shared[key])):
            rest[key] = inner
    return rest


def merged(shared: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested mapping that `without` was made from."""
    both = {key: merged(shared[key], rest[key]) for key in shared.keys() & rest.keys()}
    return {**shared, **rest, **both}


def _parts(block: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each part of the data with its place; a checksum of each names what was changed."""
    yield from ((name, part) for name, part in block.items() if name not in ("rows", "sections", "checksums"))
    for i, row in enumerate(block["rows"], 1):
        yield f"row {i}", {key: value for key, value in row.items() if key != "runs"}
        for j, run in enumerate(row["runs"], 1):
            yield from ((f"row {i}, run {j}, {name}", part) for name, part in run.items())


def _checksum(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:8]


# ---------------------------------------------------------------------------------- reading


class Elements(HTMLParser):
    """The data block, the cells of the tables that the block gives, and the rest of a page by heading."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._rest: list[tuple[list[str], list[str]]] = [(["the head"], [])]
        self._inside = ""  # block, table or heading

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and ("id", ID) in attrs:
            self._inside = "block"
            self.blocks.append("")
            return
        if tag == "table" and (("id", "comparison") in attrs or ("class", "effect") in attrs):
            self._inside = "table"
            self.tables.append([])
        elif tag in ("h1", "h2"):
            self._inside = "heading"
            self._rest.append(([], []))
        elif self._inside == "table" and tag == "tr":
            self.tables[-1].append([])
        elif self._inside == "table" and tag in ("th", "td"):
            self.tables[-1][-1].append("")
        self._rest[-1][1].append(f"<{tag} {attrs}>")

    def handle_endtag(self, tag: str) -> None:
        if self._inside != "block":
            self._rest[-1][1].append(f"</{tag}>")
        if (self._inside, tag) in (("block", "script"), ("table", "table"), ("heading", "h1"), ("heading", "h2")):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "block":
            self.blocks[-1] += data
        elif self._inside == "table":
            if data.strip():
                self.tables[-1][-1][-1] += data
        else:
            self._rest[-1][self._inside != "heading"].append(data)

    def sections(self) -> dict[str, str]:
        """Return a checksum of everything outside the tables, by heading."""
        return {"".join(name): _checksum("".join(content)) for name, content in self._rest}


def read_elements(html: str) -> Elements:
    """Parse a page."""
    elements = Elements()
    elements.feed(html)
    elements.close()
    return elements


def read_report(path: Path) -> list[Reported]:
    """Return the runs of a page, row by row, after a check that the page shows what its data give.

    Raises:
        PageChanged: the page or its data were changed.
        RunError: the page has no data.
    """
    try:
        elements = read_elements(read_text(path, PAGE_BYTES))
    except (UnicodeDecodeError, *DAMAGED[-2:], IndexError) as error:
        raise RunError(f"{path}: not a page of gptexp compare ({type(error).__name__})") from None
    if len(elements.blocks) != 1:
        raise RunError(f"{path}: has no data to verify; make the page again with `gptexp compare`")
    try:
        block = json.loads(elements.blocks[0], parse_constant=_refuse)
        if (block["format"], block["version"]) != (FORMAT, VERSION):
            raise PageChanged(f"{path}: data: format {block['format']} {block['version']}, expected {FORMAT} {VERSION}")
        _check_checksums(path, "data", {w: _checksum(part) for w, part in _parts(block)}, block["checksums"])
        if _escaped(block) != elements.blocks[0]:
            raise PageChanged(f"{path}: data: a number is not written as gptexp writes it")
        reported, c = _comparison(block)
        _check_tables(path, elements.tables, c)
        _check_checksums(path, "section", elements.sections(), block["sections"])
        return reported
    except PageChanged:
        raise
    except DAMAGED as error:
        raise PageChanged(f"{path}: data: damaged ({type(error).__name__}: {str(error)[:160]})") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _check_checksums(path: Path, kind: str, found: Mapping[str, str], stored: Mapping[str, str]) -> None:
    for where in dict.fromkeys([*found, *stored]):
        shown, expected = found.get(where, "missing"), stored.get(where, "missing")
        if shown != expected:
            raise PageChanged(f"{path}: {kind}: {where}: was changed (checksum {shown}, expected {expected})")


def _comparison(block: Mapping[str, Any]) -> tuple[list[Reported], Comparison]:
    """Compute the comparison again from the runs of a page."""
    question, shared = Question(**block["question"]), block["shared"]
    rows, all_runs = [], []
    for part in block["rows"]:
        plain = [merged(shared["run"], run) for run in part["runs"]]
        runs = sorted(map(from_plain, plain), key=lambda run: run.seed)
        if question.at is None:
            ended = [run.as_run() for run in runs]
            readings = at_end(ended, question.metric, estimated=bool(block["flops_estimated"]))
        else:
            readings = [Reading(run=run.as_run(), **own["reading"]) for run, own in zip(runs, plain, strict=True)]
        missing = [LeftOut(Path(), "")] * min(part["missing"], 1)
        rows.append(make_row(merged(shared["row"], part["settings"]), readings, missing, [], question.method))
        rows[-1].label = str(part["label"])
        all_runs.append(runs)
    baseline = rows[block["baseline"]]
    compare_to(rows, baseline)
    names = {name: block[name] for name in PLAIN}
    nothing: dict[str, Any] = {"left_out": [], "unequal": frozenset(), "texts": [], "unfinished": []}
    c = Comparison(question=question, rows=rows, baseline=baseline, **names, **nothing)
    return [
        Reported(row.label, run, reading, c)
        for row, runs in zip(rows, all_runs, strict=True)
        for run, reading in zip(runs, row.readings, strict=True)
    ], c


def _check_tables(path: Path, shown: Sequence[Sequence[Sequence[str]]], c: Comparison) -> None:
    expected = [columns(c), *(effect_columns(effect, decimals(c)) for effect in main_effects(c))]
    if len(shown) != len(expected):
        raise PageChanged(f"{path}: has {len(shown)} tables, expected {len(expected)}")
    for cells, table in zip(shown, expected, strict=True):
        _check_cells(path, cells, table)


def _check_cells(path: Path, shown: Sequence[Sequence[str]], table: Sequence[Column]) -> None:
    rows = [[column.name for column in table], *zip(*(column.cells for column in table), strict=True)]
    if [len(row) for row in shown] != [len(row) for row in rows]:
        raise PageChanged(f"{path}: a table has other rows or columns than its data give")
    for number, (found, wanted) in enumerate(zip(shown, rows, strict=True)):
        for column, cell, expected in zip(table, found, wanted, strict=True):
            if cell != expected:
                place = f"row {number} ({wanted[0]})" if number else "the heading"
                raise PageChanged(f"{path}: {place}, column {column.name}: shows {cell}, expected {expected}")
