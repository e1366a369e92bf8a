"""`gptexp compare`: the table, plots and page of a comparison."""

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
from gptexp.util.text import install_extra

VECTOR = ("pdf", "svg")

METRIC = "val/bpb"  # what a comparison is about unless it is asked for another


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison or the scaling law, and write its files."""
    if missing := missing_packages():
        fail(f"compare needs {', '.join(missing)}: {install_extra('compare')}")
    if arguments.budget is not None and not arguments.scaling:
        raise ValueError("--budget: goes with --scaling")
    if arguments.format != "text" and arguments.scaling:
        raise ValueError("--format: of the table of a comparison; leave it out with --scaling")
    out = arguments.out or _own_report(arguments.folders[0], _question_folder(arguments))
    if arguments.scaling:
        scale(arguments, out)
    else:
        compare(arguments, out)


def _question_folder(arguments: argparse.Namespace) -> str:
    """Where in the report's folder a question has its files: another one overwrites none."""
    parts = [arguments.metric] if arguments.metric != METRIC else []
    parts += [f"at-{arguments.at}"] if arguments.at else []
    return re.sub(r"[^\w.-]+", "_", "-".join(parts)).strip(".")


def _own_report(folder: Path, question: str | Path) -> Path:
    """Where the report goes unless it is said; the runs' folder may be a stranger's."""
    from gptexp.util.files import require_no_link

    out = folder / "report" / question
    for place in (out, *out.parents):
        if place == folder:
            break
        require_no_link(place)
    return out


def compare(arguments: argparse.Namespace, out: Path) -> None:
    """Print the comparison, and write its files."""
    from rich.console import Console

    from gptexp.report.comparison import Question, compare_folders
    from gptexp.report.markup import FORMATS
    from gptexp.report.table import print_comparison

    question = Question(
        metric=arguments.metric,
        by=tuple(arguments.by),
        baseline=arguments.baseline,
        at=arguments.at,
        method=arguments.interval,
    )
    comparison = compare_folders(arguments.folders, question)
    text = FORMATS[arguments.format][1](comparison) if arguments.format in FORMATS else None
    if text is None:
        print_comparison(Console(highlight=False), comparison)
    else:
        print(text, end="")

    from gptexp.report.page import page
    from gptexp.report.plots import plots
    from gptexp.report.tables import to_csv

    drawn = plots(comparison, ("png", *VECTOR))
    images = {name: data for name, data in drawn.items() if name.endswith(".png")}
    files = {"comparison.csv": to_csv(comparison).encode(), **drawn}
    if text is not None:
        files[FORMATS[arguments.format][0]] = text.encode()
    write(out, {**files, "report.html": page(comparison, images).encode()}, sys.stdout if text is None else sys.stderr)


def scale(arguments: argparse.Namespace, out: Path) -> None:
    """Fit a scaling law, print it, and write its files."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # five variables: threads only wait for each other
    from rich.console import Console

    from gptexp.report.scaling import fit_folders
    from gptexp.report.scaling_plot import scaling_plots
    from gptexp.report.scaling_text import print_law, to_json

    law = fit_folders(arguments.folders, arguments.metric)
    print_law(Console(highlight=False), law, arguments.budget)
    files = {"scaling.json": to_json(law, arguments.budget).encode(), **scaling_plots(law, ("png", *VECTOR))}
    write(out, files, sys.stdout)


def write(out: Path, files: Mapping[str, bytes], console: TextIO) -> None:
    """Each file whole or absent; then where they are."""
    from gptexp.util.files import atomic_write

    for name, data in files.items():
        atomic_write(out / name, data)
    named = [name for name in files if not name.endswith(VECTOR)]
    print(f"\n{out}: {' · '.join(named)} · plots as {' and '.join(VECTOR)} too", file=console)
