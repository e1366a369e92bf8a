"""`gptexp compare`: the table, plots and page of a comparison, or a scaling law."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from gptexp.report import missing_packages
from gptexp.util.errors import fail
from gptexp.util.files import atomic_write, require_no_link
from gptexp.util.text import install_extra

VECTOR = ("pdf", "svg")
METRIC = "val/bpb"  # the default of --metric


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison or the scaling law, and write its files."""
    if missing := missing_packages():
        fail(f"compare needs {', '.join(missing)}: {install_extra('compare')}")
    if arguments.budget is not None and not arguments.scaling:
        raise ValueError("--budget: only with --scaling")
    if arguments.format != "text" and arguments.scaling:
        raise ValueError(f"--format={arguments.format}: not supported with --scaling; leave it out")
    if arguments.activations and (arguments.scaling or arguments.where):
        raise ValueError("--activations: not supported with --scaling or --where; leave them out")
    _check_where(arguments)
    out = arguments.out or _report_folder(arguments.folders[0], _question_folder(arguments))
    if arguments.activations:
        check_coordinates(arguments, out)
    elif arguments.scaling:
        scale(arguments, out)
    else:
        compare(arguments, out)


def _check_where(arguments: argparse.Namespace) -> None:
    if arguments.where and arguments.scaling:
        raise ValueError("--where: not supported with --scaling; leave it out")
    if arguments.where and arguments.at:
        raise ValueError(
            f"--at={arguments.at}: not supported with --where, which scores the last checkpoints; leave it out"
        )
    for flag, value in (("--cache", arguments.cache), ("--trust-data", arguments.trust_data)):
        if value and not arguments.where:
            raise ValueError(f"{flag}: only with --where")


def _question_folder(arguments: argparse.Namespace) -> str:
    """A folder in the report's folder for another metric or --at, so that it overwrites no other report."""
    parts = [arguments.metric] if arguments.metric != METRIC else []
    parts += [f"at-{arguments.at}"] if arguments.at else []
    return re.sub(r"[^\w.-]+", "_", "-".join(parts)).strip(".")


def _report_folder(folder: Path, question: str | Path) -> Path:
    """The default folder of a report. The folder of the runs is untrusted, so links in it are refused."""
    out = folder / "report" / question
    for place in (out, *out.parents):
        if place == folder:
            break
        require_no_link(place)
    return out


def compare(arguments: argparse.Namespace, out: Path) -> None:
    """Print the comparison, and write its files."""
    # scipy and matplotlib are imported only after the checks of the arguments.
    from rich.console import Console

    from gptexp.report.comparison import Question, compare_folders
    from gptexp.report.latex_markdown import FORMATS
    from gptexp.report.page import page
    from gptexp.report.plots import plots
    from gptexp.report.table import print_comparison, to_csv, where_csv

    question = Question(
        metric=arguments.metric,
        by=tuple(arguments.by),
        baseline=arguments.baseline,
        at=arguments.at,
        method=arguments.interval,
    )
    comparison = compare_folders(arguments.folders, question)
    if arguments.where:
        from gptexp.commands.where import with_where

        comparison = with_where(comparison, arguments)
    files, console = {"comparison.csv": to_csv(comparison).encode()}, sys.stdout
    files |= {"where.csv": where_csv(comparison.where).encode()} if comparison.where else {}
    if arguments.format in FORMATS:
        name, convert = FORMATS[arguments.format]
        files[name] = convert(comparison).encode()
        print(files[name].decode(), end="")
        console = sys.stderr
    else:
        print_comparison(Console(highlight=False), comparison)
    drawn = plots(comparison, ("png", *VECTOR))
    images = {name: data for name, data in drawn.items() if name.endswith(".png")}
    write(out, {**files, **drawn, "report.html": page(comparison, images).encode()}, console)


def scale(arguments: argparse.Namespace, out: Path) -> None:
    """Fit a scaling law, print it, and write its files."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # five variables; more threads are slower
    from rich.console import Console

    from gptexp.report.scaling import fit_folders
    from gptexp.report.scaling_report import print_law, scaling_plots, to_json

    law = fit_folders(arguments.folders, arguments.metric)
    print_law(Console(highlight=False), law, arguments.budget)
    files = {"scaling.json": to_json(law, arguments.budget).encode(), **scaling_plots(law, ("png", *VECTOR))}
    write(out, files, sys.stdout)


def check_coordinates(arguments: argparse.Namespace, out: Path) -> None:
    """Print how the size of activations grows with the width, and write files."""
    from rich.console import Console

    from gptexp.report.activations import print_sizes, sizes_csv, sizes_of, sizes_plots

    found, left_out = sizes_of(arguments.folders)
    print_sizes(Console(highlight=False), found, left_out)
    write(out, {"activations.csv": sizes_csv(found).encode(), **sizes_plots(found, ("png", *VECTOR))}, sys.stdout)


def write(out: Path, files: Mapping[str, bytes], console: TextIO) -> None:
    """Write each file atomically, and print their names."""
    for name, data in files.items():
        atomic_write(out / name, data)
    names = [name for name in files if not name.endswith(VECTOR)]
    print(f"\n{out}: {' · '.join(names)} · plots also as {' and '.join(VECTOR)}", file=console)
