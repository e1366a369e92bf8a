"""python -m gptexp.replay BUNDLE: repeat a step whose loss or gradient was not finite, and name the first module."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, command

DESCRIPTION = (
    "Repeat a step whose loss or gradient was not finite, and name the first module that failed. "
    "Exit code 0: the failure was reproduced; 1: everything is finite; 2: the file cannot be used."
)


def parser() -> OptionParser:
    options = OptionParser(prog=program_name("gptexp.replay"), description=DESCRIPTION)
    options.add_argument("bundle", type=Path, metavar="BUNDLE", help="nonfinite-step-<k>.pt in a run folder")
    return options


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp replay`."""
    from gptexp.commands import replay

    replay.run(arguments)


if __name__ == "__main__":
    main()
