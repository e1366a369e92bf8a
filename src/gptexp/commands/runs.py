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
from typing import TYPE_CHECKING

from gptexp.util.entry_point import program_name
from gptexp.util.errors import RunError
from gptexp.util.options import OptionParser, command
from gptexp.util.text import printable

if TYPE_CHECKING:
    from gptexp.report.listing.rows import Row

LOGS = Path("logs")
SHOWN = 40  # rows on a terminal
EVERY = 2.0  # seconds between two looks of `watch`
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
    p.add_argument("--where", metavar="CONDITION", help='only such runs, jobs included: "n_layer>=4 and val/bpb<2"')
    p.add_argument("--sort", metavar="NAME", help="sort by a setting, a metric or a field, the smallest first")
    p.add_argument("--reverse", action="store_true", help="in the other order")
    p.add_argument("--jobs", action="store_true", help="also list the jobs of sweeps")
    about = f"most rows; 0: all. Default: {SHOWN} on a terminal, or all"
    p.add_argument("--limit", type=_count, metavar="N", help=about)
    p.add_argument("--json", action="store_true", help="print everything about each run and sweep as one flat list")
    p.set_defaults(act=show, logs=LOGS)
    commands = p.add_subparsers(title="commands", metavar="{watch,note}")
    watch_ = commands.add_parser("watch", help=f"show what runs now every {EVERY:g} seconds, until Ctrl-C")
    watch_.set_defaults(act=watch)
    note_ = commands.add_parser("note", help="attach a note to a run or a sweep, which the list shows")
    note_.add_argument("run", metavar="RUN", help="the folder of a run or a sweep, or `latest`")
    note_.add_argument("text", metavar="TEXT", help='the note; "" removes it')
    note_.set_defaults(act=note)
    for parser_ in (p, watch_, note_):
        about = f"where to look; default: {LOGS}"
        parser_.add_argument("--logs", type=Path, default=argparse.SUPPRESS, metavar="FOLDER", help=about)
    return p


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: must be a number of rows, or 0 for all")
    return int(text)


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp runs`."""
    arguments.act(arguments)


def show(arguments: argparse.Namespace) -> None:
    """Print the list."""
    from gptexp.report.listing.conditions import parse
    from gptexp.report.listing.rows import names, rows
    from gptexp.report.listing.table import columns, lines

    found = rows(arguments.logs)
    if arguments.where is not None:
        holds = parse(arguments.where, names(found)) if found else None
        found = [row for row in found if row.kind == "run" and holds and holds(row.value)]
    elif not (arguments.jobs or arguments.json):
        found = [row for row in found if row.sweep is None]
    if arguments.sort is not None and found:
        found = _sorted(found, arguments.sort, reverse=arguments.reverse)
    elif arguments.reverse:
        found.reverse()
    terminal = sys.stdout.isatty()
    limit = arguments.limit if arguments.limit is not None else SHOWN if terminal and not arguments.json else 0
    chosen = found[: limit or None]
    if arguments.json:
        print(json.dumps([row.as_plain() for row in chosen], indent=2, allow_nan=False))
        return
    if chosen:
        width = shutil.get_terminal_size().columns if terminal else None
        print("\n".join(lines(chosen, columns(chosen), width)))
    if len(chosen) < len(found):
        print(f"{len(chosen)} of {len(found):,} shown; --limit 0 shows all", file=sys.stderr)
    elif not found:
        which = "no run" if arguments.where is None else "no run meets the condition"
        print(f"{which} below {printable(str(arguments.logs))}", file=sys.stderr)


def _sorted(found: Sequence[Row], name: str, *, reverse: bool) -> list[Row]:
    """Return the rows by a value; those without it come last."""
    from gptexp.report.listing.conditions import full_name
    from gptexp.report.listing.rows import names

    name = full_name(name, names(found), "--sort")
    having = [row for row in found if row.value(name) is not None]
    having.sort(key=lambda row: (isinstance(row.value(name), str), row.value(name)), reverse=reverse)
    return having + [row for row in found if row.value(name) is None]


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
            time.sleep(max(EVERY, (time.monotonic() - began) / SHARE))


def _snapshot(logs: Path, width: int | None) -> str:
    from gptexp.report.listing.rows import rows
    from gptexp.report.listing.table import lines, watched
    from gptexp.runs.states import RUNNING

    found = [row for row in rows(logs) if row.state == RUNNING]
    found.sort(key=lambda row: row.run)  # a sweep comes before its jobs
    return "\n".join(lines(found, watched(found), width)) if found else f"nothing runs below {printable(str(logs))}"


def note(arguments: argparse.Namespace) -> None:
    """Attach a note to a run or a sweep, or remove it."""
    from gptexp.runs.layout import NOTE
    from gptexp.util.files import atomic_write, display_path

    folder, text = _folder(arguments.run, arguments.logs), " ".join(arguments.text.split())
    if len(text) > LONGEST_NOTE:
        raise RunError(f"TEXT: has {len(text):,} characters; a note has at most {LONGEST_NOTE:,}")
    if text:
        atomic_write(folder / NOTE, f"{text}\n".encode(errors="backslashreplace"))  # never through a link
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
