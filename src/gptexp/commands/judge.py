"""`gptexp judge`: keep or discard an idea, with controlled errors over all ideas of a line of bases."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gptexp.util.entry_point import program_name
from gptexp.util.errors import ConfigError
from gptexp.util.options import OptionParser, command
from gptexp.util.text import printable

if TYPE_CHECKING:
    from gptexp.studies.judge import Outcome
    from gptexp.studies.ledger import Entry

CODES = {"keep": 0, "discard": 1, "undecided": 3}
CONTROLS = ("fdr", "fwer")


def parser() -> OptionParser:
    options = OptionParser(
        prog=program_name("gptexp.commands.judge"),
        description="Decide whether an idea is better than a base. Both are trained on the same seeds, pair after "
        "pair, until a sequential test ends. The error over all ideas of a line of bases is controlled: "
        "logs/ledger.jsonl has every idea. After a keep, use base and idea together as the next --base.",
        epilog="Exit code 0: keep; 1: discard; 3: undecided; 2: an error. An interrupted call continues when it is "
        "repeated.",
    )
    options.add_argument("--base", metavar="SETTINGS", help='the base, as for train: "experiment=speedrun_cpu"')
    options.add_argument("--idea", metavar="SETTINGS", help='settings that the idea changes: "model.mlp_ratio=3"')
    options.add_argument("--idea-rev", metavar="REV", help="a git revision of gptexp's code instead, such as a branch")
    options.add_argument("--max-seeds", type=_count, metavar="N", help="most pairs of runs for one idea; default: 32")
    options.add_argument("--margin", type=_number, metavar="X", help="smallest improvement of interest; default: 0")
    options.add_argument("--control", choices=CONTROLS, help="fdr (default): share of useless ideas among those kept; "
                         "fwer: chance that any useless idea is kept")  # fmt: skip
    options.add_argument("--alpha", type=_fraction, metavar="X", help="the controlled error; default: 0.05")
    options.add_argument("--ideas", type=_count, metavar="N", help="number of ideas to plan for; default: 200")
    options.add_argument("--log", action="store_true", help="print the ledger and judge nothing")
    options.add_argument("--json", action="store_true", help="print JSON; progress goes to standard error")
    options.add_argument("--logs", type=Path, default=Path("logs"), metavar="FOLDER", help="default: %(default)s")
    return options


def _count(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 10**6:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0 <= value < math.inf:
        return value
    raise argparse.ArgumentTypeError(f"{text}: must be a number from 0, such as 0.002")


def _fraction(text: str) -> float:
    if 0 < (value := _number(text)) < 0.5:
        return value
    raise argparse.ArgumentTypeError(f"{text}: must be above 0 and below 0.5")


@command(parser)
def main(arguments: argparse.Namespace) -> int:
    """Judge, or print the ledger; return the exit code."""
    given = [
        f"--{name.replace('_', '-')}" for name in ("base", "idea", "idea_rev") if getattr(arguments, name) is not None
    ]
    if arguments.log:
        if given:
            raise ConfigError(f"--log: prints the ledger; leave out {given[0]}")
        return _log(arguments)
    if "--base" not in given:
        raise ConfigError('--base: is missing; give the settings of the base, such as --base "experiment=speedrun_cpu"')
    if len(given) != 2:
        raise ConfigError("--idea, --idea-rev: give one of them")
    from gptexp.studies.judge import MOST_SEEDS

    if arguments.max_seeds is not None and arguments.max_seeds > MOST_SEEDS:
        raise ConfigError(f"--max-seeds={arguments.max_seeds}: must be at most {MOST_SEEDS}")
    outcome = _judged(arguments)
    if arguments.json:
        print(json.dumps({**outcome.entry.as_plain(), "stored": outcome.is_stored}))
    else:
        print("\n".join(map(printable, _lines(outcome))))
    return CODES[outcome.entry.verdict or "undecided"]


def _judged(arguments: argparse.Namespace) -> Outcome:
    """Compose, check and judge."""
    from gptexp.studies.ideas import base_of, idea_of
    from gptexp.studies.judge import Given, judge, settings_idea
    from gptexp.studies.revision import revision_idea

    base = base_of(arguments.base)
    if arguments.idea is None:
        idea = revision_idea(arguments.idea_rev, base)
    else:
        idea = settings_idea(idea_of(base, arguments.idea), arguments.idea)
    given = Given(
        control=arguments.control,
        alpha=arguments.alpha,
        ideas=arguments.ideas,
        most=arguments.max_seeds,
        margin=arguments.margin,
    )
    stream = sys.stderr if arguments.json else sys.stdout
    try:
        return judge(base, idea, given, arguments.logs, lambda text: print(text, file=stream, flush=True))
    except (SystemExit, KeyboardInterrupt):
        print("repeat the command line to continue", file=sys.stderr)
        raise


def _lines(outcome: Outcome) -> list[str]:
    """Return the outcome for people."""
    entry = outcome.entry
    assert entry.effect is not None
    assert entry.evidence is not None
    pairs = len(entry.gains)
    known = f" (judged {entry.time}; nothing was run)" if outcome.is_stored else ""
    between = (
        "unknown before six pairs"
        if entry.low is None or entry.high is None
        else f"{entry.low:+.4f} to {entry.high:+.4f}"
    )
    return [
        f"{entry.verdict}{known}",
        f"  {entry.metric} {entry.effect:+.4f}, 95% interval {between}",
        f"  {pairs} {'pair' if pairs == 1 else 'pairs'} · evidence {entry.evidence:,.2f} of {entry.threshold:,.0f}",
        *_next(entry),
    ]


def _next(entry: Entry) -> list[str]:
    """Return what to do, or what would be needed."""
    if entry.verdict == "keep":
        added = f" {entry.idea_text}" if entry.became != entry.base_identity else ""
        first = "" if added else f"merge {entry.idea_text}, then "
        return [f"  next: {first}gptexp judge --base {shlex.quote(entry.base_text + added)} --idea …"]
    if entry.needed is None:
        return ["  needed: no number of pairs at this effect"]
    return [f"  needed: about {entry.needed:,} pairs at this effect and spread (at most {entry.rules.most} here)"]


def _log(arguments: argparse.Namespace) -> int:
    """Print the ledger."""
    from gptexp.studies.ledger import LEDGER, read, unfinished

    path = arguments.logs / LEDGER
    entries = read(path)
    shown = [entry for entry in entries if entry.verdict] + unfinished(entries)
    if arguments.json:
        print(json.dumps([entry.as_plain() for entry in shown]))
        return 0
    if not shown:
        raise ConfigError(f"{path}: no idea has been judged; see gptexp judge --help")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for line in dict.fromkeys(entry.line for entry in shown):
        of_line = [entry for entry in shown if entry.line == line]
        rules = of_line[0].rules
        console.print(f"line {line} · {rules.control} {rules.alpha:.0%} · {of_line[0].metric}", soft_wrap=True)
        table = Table("t", "base", "idea", "pairs", "effect", "evidence", "of", "verdict", box=None)
        table.columns[2].overflow = "fold"
        for number in (0, 1, 3, 4, 5, 6):
            table.columns[number].justify = "right"
        for entry in of_line:
            table.add_row(*map(Text, _row(entry)))
        console.print(table)
    return 0


def _row(entry: Entry) -> list[str]:
    effect = "" if entry.effect is None else f"{entry.effect:+.4f}"
    evidence = "" if entry.evidence is None else f"{entry.evidence:,.2f}"
    pairs = str(len(entry.gains)) if entry.verdict else ""
    verdict = entry.verdict or "unfinished"
    idea, of = printable(entry.idea_text), f"{entry.threshold:,.0f}"
    return [str(entry.t), str(entry.base), idea, pairs, effect, evidence, of, verdict]


if __name__ == "__main__":
    main()
