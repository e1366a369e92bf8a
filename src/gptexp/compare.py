"""python -m gptexp.compare DIR… [--metric val/bpb] [--by KEY] [--baseline KEY=VALUE] [--at tokens]: what helped?"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from gptexp.cli import fail, one_line_errors
from gptexp.entry import entry_point
from gptexp.options import OptionParser
from gptexp.report import missing_packages
from gptexp.words import install_extra

METRIC = "val/bpb"
VECTOR = ("pdf", "svg")


def parser() -> OptionParser:
    p = OptionParser(
        prog="python -m gptexp.compare",
        description="Compare finished runs: configurations with intervals over seeds, differences to a baseline with "
        "corrected p-values, plots, and a page. What can't be compared is left out, with the reason.",
    )
    p.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="run folders, or folders that hold some")
    p.add_argument("--metric", default=METRIC, help="of the last step; default: %(default)s")
    p.add_argument("--by", metavar="KEY", action="append", default=[], help="setting to put first; may be repeated")
    p.add_argument(
        "--baseline",
        metavar="KEY=VALUE",
        action="append",
        help="what to compare to, several settings by commas or by repeating it; default: the first configuration, or "
        "that in which each other one changes a setting",
    )
    p.add_argument(
        "--at",
        choices=["tokens", "bytes", "flops", "seconds"],
        help="compare at an equal budget, the largest that all reached; default: each run's end",
    )
    p.add_argument(
        "--interval", choices=["t", "bootstrap"], default="t", help="of the mean over seeds; default: %(default)s"
    )
    p.add_argument(
        "--format",
        choices=["text", "latex", "markdown"],
        default="text",
        help="of the table that is printed; latex and markdown are written to a file as well; default: %(default)s",
    )
    p.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="for table, plots and page; default: DIR/report, and a folder in it for another metric or --at",
    )
    p.add_argument("--scaling", action="store_true", help="fit L(N, D) = E + A/N^alpha + B/D^beta instead")
    p.add_argument("--budget", metavar="FLOPS", type=_flops, help="with --scaling: the compute to be best at")
    return p


def _flops(text: str) -> float:
    with suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text}: must be a number of FLOPs above 0, such as 1e18")


@entry_point
def main(argv: list[str] | None = None) -> None:
    """The door."""
    arguments = parser().parse_args(argv)
    if missing := missing_packages():
        fail(f"compare needs {', '.join(missing)}: {install_extra('compare')}")
    with one_line_errors():
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
    from gptexp.files import require_no_link

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
    from gptexp.files import atomic_write

    for name, data in files.items():
        atomic_write(out / name, data)
    named = [name for name in files if not name.endswith(VECTOR)]
    print(f"\n{out}: {' · '.join(named)} · plots as {' and '.join(VECTOR)} too", file=console)


if __name__ == "__main__":
    main()
