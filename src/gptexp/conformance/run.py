"""Computes all checks: the inputs, the table, the report and the exit code."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from gptexp.conformance.check import Area, Check, Inputs, Need, Outcome, Status, run_check, why_skipped
from gptexp.conformance.table import markdown, print_area, summary
from gptexp.data.corpora.shakespeare import SHA256, URL
from gptexp.data.text_file import require_text
from gptexp.runs.finding import find_checkpoint
from gptexp.runs.provenance import code_version
from gptexp.util.errors import BY_SIGNAL
from gptexp.util.files import atomic_write
from gptexp.util.signals import Interrupted
from gptexp.util.text import clock


def run(arguments: argparse.Namespace) -> int:
    """Print the table, and return the exit code: 0, or 1 if a check failed, or that of a signal."""
    with TemporaryDirectory(prefix="gptexp-conformance-") as scratch:
        try:
            outcomes = conform(arguments, checked(arguments, Path(scratch)))
        except Interrupted as stop:  # not its message: the run cannot be resumed, because its folder is removed
            print("interrupted; no table was written", file=sys.stderr)
            return BY_SIGNAL + stop.signum
    return int(any(outcome.status is Status.failed for outcome in outcomes))


def checked(arguments: argparse.Namespace, scratch: Path) -> Inputs:
    """Check the files on the command line, and return the inputs of the checks.

    Raises:
        ValueError: a file is missing or has another content.
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
    if not path.expanduser().is_file():
        raise ValueError(f"--shakespeare={path}: no such file; get it from {URL}")
    unix = path.expanduser().read_bytes().replace(b"\r\n", b"\n")
    if hashlib.sha256(unix).hexdigest() != SHA256:
        raise ValueError(f"--shakespeare={path}: is not Tiny Shakespeare; get it from {URL}")


def _require_scored_file(flag: str, path: Path | None, weights: str | None) -> None:
    if path is None:
        return
    if weights is None:
        raise ValueError(f"--{flag}={path}: needs the weights of GPT-2; add --weights FOLDER")
    require_text(path)


def conform(arguments: argparse.Namespace, inputs: Inputs) -> list[Outcome]:
    """Compute all checks and print the table by area; write the report at the end if requested."""
    from gptexp.conformance.areas import AREAS  # imports torch

    console, started = Console(highlight=False), time.monotonic()
    report: list[tuple[Area, list[Outcome]]] = []
    for area in AREAS:
        report.append((area, [_announced(check, inputs) for check in area.checks]))
        print_area(console, *report[-1])
    every = [outcome for _, outcomes in report for outcome in outcomes]
    seconds = time.monotonic() - started
    results = [summary(every), clock(seconds)]
    if arguments.out is not None:
        atomic_write(arguments.out, markdown(report, facts(arguments, seconds)).encode())
        results.append(str(arguments.out))
    console.print("\n" + " · ".join(results), markup=False)
    return every


def _announced(check: Check, inputs: Inputs) -> Outcome:
    """Compute a check; print the name of one that trains on standard error first, because it takes long."""
    if Need.training in check.needs and not why_skipped(check, inputs):
        print(f"training: {check.name} …", file=sys.stderr)
    return run_check(check, inputs)


def facts(arguments: argparse.Namespace, seconds: float) -> dict[str, str]:
    """Return the head of the report: command, machine and versions, without paths."""
    from gptexp.machine.hardware import describe  # imports torch

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
    """Return the command line with placeholders instead of paths."""
    given = {
        "--fast": arguments.fast,
        "--shakespeare PATH": arguments.shakespeare is not None,
        "--weights FOLDER": arguments.weights is not None,
        "--wikitext FILE": arguments.wikitext is not None,
        "--lambada FILE": arguments.lambada is not None,
    }
    return " ".join(["python -m gptexp.conformance", *(option for option, used in given.items() if used)])
