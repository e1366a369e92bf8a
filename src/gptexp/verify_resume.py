"""python -m gptexp.verify_resume [--steps 40] [--kill-at 17] [overrides]: check that given settings resume exactly.

It trains once without interruption and once with a SIGKILL and a resume, and compares every logged value, batch,
weight and optimizer tensor bitwise.
"""

from __future__ import annotations

from gptexp.util.entry_point import entry_point, program_name
from gptexp.util.errors import one_line_errors
from gptexp.util.options import OptionParser


def parser() -> OptionParser:
    """Return the parser; unknown arguments are overrides of `gptexp train`."""
    options = OptionParser(
        prog=program_name("gptexp.verify_resume"),
        description="Train without interruption, and again with a kill and a resume; compare the runs bitwise.",
        epilog="Overrides are those of `gptexp train`, for example model.dropout=0.1 data.num_workers=2. "
        "Exit code 0: bitwise equal; 1: the runs differ, and the first difference is printed; 2: invalid settings.",
    )
    options.add_argument("--steps", type=int, default=40, help="optimizer steps to train (default: 40)")
    options.add_argument("--kill-at", type=int, default=17, help="the step that SIGKILL interrupts (default: 17)")
    options.add_argument("--keep", action="store_true", help="keep the run folders even if the runs are equal")
    return options


@entry_point
def main(argv: list[str] | None = None) -> None:
    """Entry point of `gptexp verify-resume`."""
    arguments, overrides = parser().parse_known_args(argv)
    with one_line_errors():
        from gptexp.commands import verify_resume

        verify_resume.run(arguments, overrides)


if __name__ == "__main__":
    main()
