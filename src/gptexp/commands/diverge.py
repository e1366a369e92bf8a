"""`gptexp diverge`: the first step, tensor and module at which two runs that should agree part."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, command
from gptexp.util.text import printable

MOST_DIFFERENCES = 12
NOT_REPEATED = (
    "the difference comes from what a replay does not repeat: another version of the code (--code-b) or of a library, "
    "another machine, several processes, or compilation"
)


def parser() -> OptionParser:
    """Return the parser."""
    options = OptionParser(
        prog=program_name("gptexp.commands.diverge"),
        description="Find the first logged step and tensor at which two runs part, by the digests that "
        "trainer.digests=true records. Then repeat the steps since they last agreed and name the first module whose "
        "output differs.",
        epilog="Exit code 0: the runs agree; 1: they part; 2: they cannot be compared.",
    )
    options.add_argument("a", metavar="RUN_A", type=Path, help="run folder")
    options.add_argument("b", metavar="RUN_B", type=Path, help="run folder")
    options.add_argument("--no-replay", action="store_true", help="compare the digests only")
    code = "folder of the code that made RUN_B (its src/), if it is not this one; it is executed"
    options.add_argument("--code-b", metavar="FOLDER", type=Path, help=code)
    options.add_argument("--trust", action="store_true", help="allow what `gptexp verify --trust` allows")
    return options


@command(parser)
def main(arguments: argparse.Namespace) -> int:
    """Entry point of `gptexp diverge`."""
    agree = run(arguments.a, arguments.b, not arguments.no_replay, arguments.code_b, arguments.trust)
    return 0 if agree else 1


def run(first: Path, second: Path, replays: bool, code: Path | None, trust: bool) -> bool:
    """Compare, print, and return whether the runs agree."""
    from gptexp.studies.diverge import differences, first_difference, open_run, replay

    if code is not None and not (code / "gptexp" / "__init__.py").is_file():
        raise ValueError(f"--code-b={code}: has no gptexp in it; give the src folder of a checkout")
    a, b = open_run(first), open_run(second)
    different = differences(a, b)
    for name, in_a, in_b in different[:MOST_DIFFERENCES]:
        _say(f"{name}: {in_a} in A, {in_b} in B")
    if len(different) > MOST_DIFFERENCES:
        _say(f"… and {len(different) - MOST_DIFFERENCES} more differences")
    if not different:
        _say("settings, code, versions and machine are the same")
    parting, compared = first_difference(a.steps, b.steps)
    if parting is None:
        _say(f"the runs agree: all tensors of {compared} logged steps are bitwise equal")
        return True
    agreed = "no step before it" if parting.agreed is None else f"step {parting.agreed} is equal"
    place = "before the first step" if parting.step == 0 else f"at step {parting.step}"
    _say(f"the runs part {place}: {parting.tensor} differs ({parting.differing} of {parting.of} tensors; {agreed})")
    if replays and parting.can_replay:
        _say(f"replaying up to step {parting.step} …")
        cause = replay(a, b, parting, code=code, trust=trust)
        if cause is None:
            _say(f"the replays of both runs agree: {NOT_REPEATED}")
        else:
            values = "" if cause.a is None else f": for example {cause.a:.9g} in A, {cause.b:.9g} in B"
            _say(f"step {cause.step}: the first difference is the {cause.what}{values}")
    return False


def _say(line: str) -> None:
    print(printable(line), flush=True)


if __name__ == "__main__":
    main()
