"""`gptexp runs`: the list of runs and sweeps, those that run now, and notes."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptexp.util.entry_point import entry_point, program_name
from gptexp.util.errors import RunError, one_line_errors
from gptexp.util.options import OptionParser, positive_number
from gptexp.util.text import printable

if TYPE_CHECKING:
    from gptexp.report.listing.conditions import Condition
    from gptexp.report.listing.rows import Row

LOGS = Path("logs")
SHOWN = 40  # rows on a terminal
SHARE = 0.1  # of a core that `watch` uses at most
LONGEST_NOTE = 2000


def parser() -> OptionParser:
    """Return the parser."""
    p = OptionParser(
        prog=program_name("gptexp.commands.runs"),
        description="List the runs and sweeps below logs/, the newest first. A sweep is one row; --jobs also lists "
        "its runs. Conditions and --sort take settings (model.n_layer), metrics (val/bpb: the last value) and the "
        "fields of --json (state, best, age …).",
    )
    _add_logs(p, LOGS)
    p.add_argument("--where", metavar="CONDITION", help='only such runs, jobs included: "n_layer>=4 and val/bpb<2"')
    p.add_argument("--sort", metavar="NAME", help="sort by a setting, a metric or a field, the smallest first")
    p.add_argument("--reverse", action="store_true", help="in the other order")
    p.add_argument("--jobs", action="store_true", help="also list the jobs of sweeps")
    p.add_argument(
        "--limit", type=_count, metavar="N", help=f"most rows; 0: all. Default: {SHOWN} on a terminal, or all"
    )
    p.add_argument("--json", action="store_true", help="print everything about each run and sweep as one flat list")
    p.set_defaults(act=show)
    commands = p.add_subparsers(title="commands", metavar="{watch,note}")
    watch_ = commands.add_parser("watch", help="show the runs and sweeps that run now, until Ctrl-C")
    watch_.add_argument("--every", type=positive_number, default=2.0, metavar="S", help="seconds; default: %(default)s")
    watch_.set_defaults(act=watch)
    note_ = commands.add_parser("note", help="attach a note to a run or a sweep, which the list shows")
    note_.add_argument("run", metavar="RUN", help="the folder of a run or a sweep, or `latest`")
    note_.add_argument("text", metavar="TEXT", help='the note; "" removes it')
    note_.set_defaults(act=note)
    for command in (watch_, note_):
        _add_logs(command, argparse.SUPPRESS)
    return p


def _add_logs(p: argparse.ArgumentParser, default: Any) -> None:
    p.add_argument("--logs", type=Path, default=default, metavar="FOLDER", help=f"where to look; default: {LOGS}")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: must be a number of rows, or 0 for all")
    return int(text)


@entry_point
def main(argv: list[str] | None = None) -> None:
    """Entry point of `gptexp runs`."""
    arguments = parser().parse_args(argv)
    with one_line_errors():
        arguments.act(arguments)


def show(arguments: argparse.Namespace) -> None:
    """Print the list."""
    from gptexp.report.listing.conditions import parse
    from gptexp.report.listing.rows import plain, rows
    from gptexp.report.listing.table import columns, lines

    condition = None if arguments.where is None else parse(arguments.where)
    found = rows(arguments.logs)
    known = _names(found) if condition is not None or arguments.sort is not None else []
    if condition is not None:
        found = _fulfilling(found, condition, known)
    elif not (arguments.jobs or arguments.json):
        found = [row for row in found if row.found.sweep is None]
    if arguments.sort is not None:
        found = _sorted(found, arguments.sort, known, reverse=arguments.reverse)
    elif arguments.reverse:
        found.reverse()
    terminal = sys.stdout.isatty()
    limit = arguments.limit if arguments.limit is not None else SHOWN if terminal and not arguments.json else 0
    chosen = found[: limit or None]
    if arguments.json:
        print(json.dumps([plain(row) for row in chosen], indent=2, allow_nan=False))
        return
    if chosen:
        print("\n".join(lines(chosen, columns(chosen), _width() if terminal else None)))
    if len(chosen) < len(found):
        print(f"{len(chosen)} of {len(found):,} shown; --limit 0 shows all", file=sys.stderr)
    elif not found:
        which = "no run meets the condition" if condition is not None else "no run"
        print(f"{which} below {printable(str(arguments.logs))}", file=sys.stderr)


def _width() -> int:
    return shutil.get_terminal_size().columns


def _names(found: Sequence[Row]) -> list[str]:
    """Return every name that --where and --sort accept."""
    from gptexp.report.listing.rows import FIELDS

    names = dict.fromkeys(FIELDS)
    for row in found:
        names |= dict.fromkeys(row.record.metrics) | dict.fromkeys(row.record.settings)
    return list(names)


def _fulfilling(found: Sequence[Row], condition: Condition, known: Sequence[str]) -> list[Row]:
    """Return the runs for which a condition holds."""
    from gptexp.report.listing.conditions import full_name

    names = {name: full_name(name, known, "--where") for name in condition.names if found}

    def holds(row: Row) -> bool:
        return condition.holds(lambda name: row.value(names[name]))

    return [row for row in found if not row.found.is_sweep and holds(row)]


def _sorted(found: Sequence[Row], name: str, known: Sequence[str], *, reverse: bool) -> list[Row]:
    """Return the rows by a value; those without it come last."""
    from gptexp.report.listing.conditions import full_name

    name = full_name(name, known, "--sort") if found else name
    values = [(row.value(name), row) for row in found]
    having = [(value, row) for value, row in values if value is not None]
    having.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=reverse)
    return [row for _, row in having] + [row for value, row in values if value is None]


def watch(arguments: argparse.Namespace) -> None:
    """Show what runs, again and again on a terminal, else once."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        print(_snapshot(arguments.logs, None))
        return
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            live.update(Text(_snapshot(arguments.logs, console.width), no_wrap=True, overflow="crop"), refresh=True)
            time.sleep(max(arguments.every, (time.monotonic() - began) / SHARE))


def _snapshot(logs: Path, width: int | None) -> str:
    from gptexp.report.listing.rows import rows
    from gptexp.report.listing.table import lines, running, watched

    found = running(rows(logs))
    if not found:
        return f"nothing runs below {printable(str(logs))}"
    return "\n".join(lines(found, watched(found), width))


def note(arguments: argparse.Namespace) -> None:
    """Attach a note to a run or a sweep, or remove it."""
    from gptexp.runs.layout import NOTE
    from gptexp.util.files import atomic_write, display_path, require_no_link

    folder, text = _folder(arguments.run, arguments.logs), " ".join(arguments.text.split())
    if len(text) > LONGEST_NOTE:
        raise RunError(f"TEXT: has {len(text):,} characters; a note has at most {LONGEST_NOTE:,}")
    require_no_link(folder / NOTE)
    if text:
        atomic_write(folder / NOTE, f"{text}\n".encode(errors="backslashreplace"))
    else:
        (folder / NOTE).unlink(missing_ok=True)
    print(printable(f"{display_path(folder)}: note {'saved' if text else 'removed'}"))


def _folder(run: str, logs: Path) -> Path:
    """Return the folder of a run or a sweep. RunError: it is none."""
    from gptexp.runs.finding import find_checkpoint
    from gptexp.runs.layout import CONFIG, RESULT, SWEEP
    from gptexp.util.files import user_path

    if run == "latest":
        return find_checkpoint(run, logs).parents[1]
    folder = user_path(run, "RUN")
    if not any((folder / name).is_file() for name in (CONFIG, SWEEP, RESULT)):
        raise RunError(f"RUN={run}: no run or sweep; give the folder of one, as `gptexp runs` lists it, or `latest`")
    return folder


if __name__ == "__main__":
    main()
