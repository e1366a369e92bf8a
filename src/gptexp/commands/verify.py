"""`gptexp verify`: train runs of a report, a sweep or a run folder again, and compare all numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gptexp.util.entry_point import program_name
from gptexp.util.errors import RunError, fail
from gptexp.util.options import OptionParser, command
from gptexp.util.text import install_extra, printable

if TYPE_CHECKING:
    from gptexp.studies.verify import Outcome

BITWISE = "bitwise identical"


def parser() -> OptionParser:
    """Return the parser."""
    options = OptionParser(
        prog=program_name("gptexp.commands.verify"),
        description="Check a page of gptexp compare against its data, and train one run again (the cheapest) in a "
        "temporary folder to compare its numbers. A sweep or a run folder works too.",
        epilog="Exit code 0: the numbers hold, bitwise or to rounding; 1: a number differs, which is named; 2: the run "
        "cannot be trained again.",
    )
    options.add_argument("path", metavar="PAGE|RUN|SWEEP", type=Path, help="report.html, run folder or sweep folder")
    options.add_argument("--row", metavar="NAME", help="row of the table, or run of the sweep; default: the cheapest")
    options.add_argument("--all", action="store_true", help="train all runs again, or with --row all seeds of the row")
    trust = "allow plug-ins, downloads and files outside the current directory, which the settings of a page name"
    options.add_argument("--trust", action="store_true", help=trust)
    return options


@command(parser)
def main(arguments: argparse.Namespace) -> int:
    """Entry point of `gptexp verify`."""
    return 0 if run(arguments.path, arguments.row, arguments.all, arguments.trust) else 1


def run(path: Path, row: str | None, everything: bool, trust: bool) -> bool:
    """Verify and print; return whether all numbers hold."""
    if not path.exists():
        raise RunError(f"{path}: no such page, run or sweep")
    from gptexp.report import missing_packages

    if missing := missing_packages():
        fail(f"verify needs {', '.join(missing)}: {install_extra('compare')}")
    from gptexp.report.data_block import PageChanged
    from gptexp.studies.verify import choose, read_claims, verify

    try:
        claims = read_claims(path)
    except PageChanged as change:
        print(printable(f"not as reported: {change}"))
        return False
    if path.is_file():
        print(printable(f"{path}: its tables, texts and plots are those of its data"))
    chosen, holds = choose(claims, row, everything), True
    for number, claim in enumerate(chosen, 1):
        count = f" ({number} of {len(chosen)})" if len(chosen) > 1 else ""
        print(printable(f"{claim.name}{count}: training {claim.run.result.steps:,} steps again"), flush=True)
        outcome = verify(claim, trust=trust, say=lambda line: print(printable(f"  notice: {line}"), flush=True))
        print(printable(f"  {verdict(outcome)}"), flush=True)
        holds &= outcome.holds
    if len(chosen) < len(claims):
        print(f"{len(chosen)} of {len(claims)} runs trained again; --all trains all of them")
    return holds


def verdict(outcome: Outcome) -> str:
    """Return the outcome as text."""
    if not outcome.number:
        return f"{BITWISE}: {outcome.compared} numbers"
    values = f"{outcome.number} is {_shown(outcome.recorded)} as recorded and {_shown(outcome.now)} now"
    size = f"relative difference {outcome.difference:.1e}"
    if outcome.holds:
        return f"equal to rounding: largest {size}, at most {outcome.allowed:.1e} is allowed; {values}"
    if not outcome.allowed:
        return f"not equal: {values} ({size}), although code, versions and kind of machine are the same"
    return f"not equal: {values}; {size}, but rounding explains at most {outcome.allowed:.1e}"


def _shown(value: float | None) -> str:
    return "nothing" if value is None else repr(value)


if __name__ == "__main__":
    main()
