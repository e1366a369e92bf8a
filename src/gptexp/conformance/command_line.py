"""python -m gptexp.conformance [--fast] [--shakespeare PATH] [--weights FOLDER …]: are the published numbers met?"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from gptexp.conformance.check import Area, Check, Inputs, Need, Outcome, Status, run, why_skipped
from gptexp.runs.finding import find_checkpoint
from gptexp.runs.provenance import code_version
from gptexp.util.entry_point import entry_point, program_name
from gptexp.util.errors import BY_SIGNAL, one_line_errors
from gptexp.util.options import OptionParser
from gptexp.util.signals import Interrupted
from gptexp.util.text import clock


def parser() -> OptionParser:
    p = OptionParser(
        prog=program_name("gptexp.conformance"),
        description="Compute published numbers again and compare: sizes, tokens, learning rates, counted losses, "
        "models trained anew. Prints a table, and writes it as Markdown where --out says.",
        epilog="With --shakespeare it trains eight models, which takes about eight minutes of one CPU core; "
        "with --fast it takes less than half a minute. "
        "Exit code 0: nothing failed; 1: a number lies outside its tolerance; 2: a file is missing or wrong.",
    )
    p.add_argument("--fast", action="store_true", help="leave out what trains a model or reads a file of yours")
    p.add_argument("--shakespeare", metavar="PATH", type=Path, help="a copy of Tiny Shakespeare (input.txt)")
    p.add_argument("--weights", metavar="FOLDER", help="a folder with the weights of GPT-2 124M")
    p.add_argument("--wikitext", metavar="FILE", type=Path, help="with --weights: WikiText-2's wiki.test.raw")
    p.add_argument("--lambada", metavar="FILE", type=Path, help="with --weights: OpenAI's lambada_test.jsonl")
    p.add_argument("--out", metavar="FILE", type=Path, help="write the table to this file too, as Markdown")
    return p


@entry_point
def main(argv: list[str] | None = None) -> None:
    """The door."""
    arguments = parser().parse_args(argv)
    with one_line_errors(), TemporaryDirectory(prefix="gptexp-conformance-") as scratch:
        try:
            outcomes = conform(arguments, checked(arguments, Path(scratch)))
        except Interrupted as stop:  # its own words tell to resume a run that goes away with the folder
            print("interrupted; no table was written", file=sys.stderr)
            sys.exit(BY_SIGNAL + stop.signum)
    sys.exit(any(outcome.status is Status.failed for outcome in outcomes))


def checked(arguments: argparse.Namespace, scratch: Path) -> Inputs:
    """What the checks may use.

    Raises:
        ValueError: the text or the weights aren't there, or aren't what they should be.
    """
    if arguments.out is not None and (arguments.out.is_dir() or not arguments.out.parent.is_dir()):
        raise ValueError(f"--out={arguments.out}: must be a file in a folder that exists")
    if arguments.shakespeare is not None:
        _require_shakespeare(arguments.shakespeare)
    for flag in ("wikitext", "lambada"):
        _require_scored_file(flag, getattr(arguments, flag), arguments.weights)
    return Inputs(
        scratch=scratch,
        fast=arguments.fast,
        shakespeare=None if arguments.shakespeare is None else arguments.shakespeare.expanduser().resolve(),
        weights=None if arguments.weights is None else find_checkpoint(arguments.weights),
        wikitext=arguments.wikitext,
        lambada=arguments.lambada,
    )


def _require_shakespeare(path: Path) -> None:
    from gptexp.data.corpora.shakespeare import SHA256, URL

    if not path.expanduser().is_file():
        raise ValueError(f"--shakespeare={path}: no such file; get it from {URL}")
    unix = path.expanduser().read_bytes().replace(b"\r\n", b"\n")
    if hashlib.sha256(unix).hexdigest() != SHA256:
        raise ValueError(f"--shakespeare={path}: isn't Tiny Shakespeare; get it from {URL}")


def _require_scored_file(flag: str, path: Path | None, weights: str | None) -> None:
    from gptexp.data.text_file import require_text

    if path is None:
        return
    if weights is None:
        raise ValueError(f"--{flag}={path}: is scored by GPT-2; give its --weights FOLDER too")
    require_text(path)


def conform(arguments: argparse.Namespace, inputs: Inputs) -> list[Outcome]:
    """Compute every check, print the table area by area, write the report at the end if one is asked for."""
    from rich.console import Console

    from gptexp.conformance.areas import AREAS
    from gptexp.conformance.table import markdown, print_area, summary
    from gptexp.util.files import atomic_write

    console, started = Console(highlight=False), time.monotonic()
    report: list[tuple[Area, list[Outcome]]] = []
    for area in AREAS:
        report.append((area, [_announced(check, inputs) for check in area.checks]))
        print_area(console, *report[-1])
    every = [outcome for _, outcomes in report for outcome in outcomes]
    seconds = time.monotonic() - started
    words = [summary(every), clock(seconds)]
    if arguments.out is not None:
        atomic_write(arguments.out, markdown(report, facts(arguments, seconds)).encode())
        words.append(str(arguments.out))
    console.print("\n" + " · ".join(words), markup=False)
    return every


def _announced(check: Check, inputs: Inputs) -> Outcome:
    """What takes long is named beforehand, on standard error."""
    if Need.training in check.needs and not why_skipped(check, inputs):
        print(f"training: {check.name} …", file=sys.stderr)
    return run(check, inputs)


def facts(arguments: argparse.Namespace, seconds: float) -> dict[str, str]:
    """What the head of the report says: how it was made, on what, with which versions. No paths."""
    from gptexp.machine.hardware import describe

    machine, code = describe("cpu"), code_version()
    git = code.git
    commit = "not a checkout" if git is None else git.commit[:10] + " and uncommitted changes" * bool(git.diff)
    return {
        "command": command(arguments),
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{machine['torch_threads']} threads; {clock(seconds)}",
        "versions": ", ".join(f"{name} {version}" for name, version in code.versions.items()),
        "commit": commit,
    }


def command(arguments: argparse.Namespace) -> str:
    """The command line, with words in place of the user's own paths."""
    given = {
        "--fast": arguments.fast,
        "--shakespeare PATH": arguments.shakespeare is not None,
        "--weights FOLDER": arguments.weights is not None,
        "--wikitext FILE": arguments.wikitext is not None,
        "--lambada FILE": arguments.lambada is not None,
    }
    return " ".join(["python -m gptexp.conformance", *(option for option, used in given.items() if used)])
