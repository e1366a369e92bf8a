"""python -m gptexp.predict RUN --text "…": predict the label of a text with a run of objective=classification."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, add_device_options, command


def parser() -> OptionParser:
    """Options of the command; argparse and not Hydra, because a text may contain commas, quotes and brackets."""
    p = OptionParser(
        prog=program_name("gptexp.predict"),
        description="Predict the labels of texts, with probabilities, with a run of objective=classification.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    p.add_argument("--text", action="append", default=[], help="text to label; may be repeated")
    p.add_argument("--file", metavar="FILE", help="texts to label: rows of csv, tsv, json(l) or parquet")
    p.add_argument("--encoding", help="of --file; default: utf-8")
    p.add_argument("--text-column", help="of --file; default: the column that the run was trained on")
    add_device_options(p)
    p.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    p.add_argument("--json", action="store_true", help="print one JSON object per text instead of a table")
    return p


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp predict`."""
    from gptexp.commands import predict

    predict.run(arguments)


if __name__ == "__main__":
    main()
