"""python -m gptexp.export RUN --out DIR: hand a run over to transformers, as a GPT-2 in Hugging Face's form."""

from __future__ import annotations

from pathlib import Path

from gptexp.util.entry_point import entry_point, program_name
from gptexp.util.errors import one_line_errors
from gptexp.util.options import OptionParser


def parser() -> OptionParser:
    p = OptionParser(
        prog=program_name("gptexp.export"),
        description="Write a run as a folder that transformers' GPT2LMHeadModel and AutoTokenizer load.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    p.add_argument("--format", choices=["hf"], default="hf", help="hf: Hugging Face's GPT-2; default: %(default)s")
    p.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder, or an empty one")
    p.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    return p


@entry_point
def main(argv: list[str] | None = None) -> None:
    """Entry point of `gptexp export`."""
    arguments = parser().parse_args(argv)
    with one_line_errors():
        from gptexp.commands import export

        export.run(arguments)


if __name__ == "__main__":
    main()
