"""python -m gptexp.verify_resume [--steps 40] [--kill-at 17] [overrides]: prove that *your* settings resume exactly.

Trains once straight through; trains again, kills itself with SIGKILL, resumes; then compares every logged
value, every batch, every weight and every tensor of the optimizer, bit by bit.
"""

from __future__ import annotations

from gptexp.util.entry_point import entry_point, program_name
from gptexp.util.errors import one_line_errors
from gptexp.util.options import OptionParser


def parser() -> OptionParser:
    """The command line; what it doesn't know are overrides of `python -m gptexp.train`."""
    made = OptionParser(
        prog=program_name("gptexp.verify_resume"),
        description="Train straight through, and again with a kill and a resume; compare the two bit by bit.",
        epilog="Overrides are those of `python -m gptexp.train`, for instance model.dropout=0.1 data.num_workers=2. "
        "Exit code 0: bitwise equal; 1: a difference, which is named; 2: the settings are wrong.",
    )
    made.add_argument("--steps", type=int, default=40, help="optimizer steps to train (default: 40)")
    made.add_argument("--kill-at", type=int, default=17, help="the step that SIGKILL ends (default: 17)")
    made.add_argument("--keep", action="store_true", help="keep the runs' folders even if they are equal")
    return made


@entry_point
def main(argv: list[str] | None = None) -> None:
    """Entry point of `gptexp verify-resume`."""
    arguments, overrides = parser().parse_known_args(argv)
    with one_line_errors():
        from gptexp.commands import verify_resume

        verify_resume.run(arguments, overrides)


if __name__ == "__main__":
    main()
