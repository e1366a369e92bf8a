"""python -m gptexp.predict RUN --text "…": the label of a text, by a run of objective=classification."""

from __future__ import annotations

from pathlib import Path

from gptexp.util.entry_point import entry_point, program_name
from gptexp.util.errors import one_line_errors
from gptexp.util.options import OptionParser


def parser() -> OptionParser:
    """The command line; plain argparse, because a text may be full of commas, quotes and brackets."""
    p = OptionParser(
        prog=program_name("gptexp.predict"),
        description="Say the label of texts, with probabilities, by a run of objective=classification.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    p.add_argument("--text", action="append", default=[], help="a text; may be given several times")
    p.add_argument("--file", metavar="FILE", help="texts to label: csv, tsv, json(l) or parquet, a row each")
    p.add_argument("--encoding", help="of --file; default: utf-8")
    p.add_argument("--text-column", help="of --file; default: the one that the run learned from")
    p.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    p.add_argument("--json", action="store_true", help="print a JSON object a text instead of a table")
    return p


@entry_point
def main(argv: list[str] | None = None) -> None:
    """Entry point of `gptexp predict`."""
    arguments = parser().parse_args(argv)
    with one_line_errors():
        from gptexp.commands import predict

        predict.run(arguments)


if __name__ == "__main__":
    main()
