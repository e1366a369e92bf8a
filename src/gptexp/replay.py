"""python -m gptexp.replay BUNDLE: run a step again whose loss or gradient was no number, and say where it began."""

from __future__ import annotations

from pathlib import Path

from gptexp.util.entry_point import entry_point, program_name
from gptexp.util.errors import one_line_errors
from gptexp.util.options import OptionParser

USAGE = "A run that stops at a loss or gradient that is no number leaves nonfinite-step-<k>.pt in its folder."


def parser() -> OptionParser:
    made = OptionParser(prog=program_name("gptexp.replay"), description=USAGE)
    made.add_argument("bundle", type=Path, metavar="BUNDLE", help="the file")
    return made


@entry_point
def main(argv: list[str] | None = None) -> None:
    """Entry point of `gptexp replay`."""
    arguments = parser().parse_args(argv)
    with one_line_errors():
        from gptexp.commands import replay

        replay.run(arguments)


if __name__ == "__main__":
    main()
