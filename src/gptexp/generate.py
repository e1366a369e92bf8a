"""python -m gptexp.generate RUN --prompt "…": continue a prompt."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, add_device_options, command


def parser() -> OptionParser:
    """Options of the command; argparse and not Hydra, because a prompt may contain commas, quotes and brackets."""
    p = OptionParser(
        prog=program_name("gptexp.generate"),
        description="Generate text with a trained model: text to standard output, notices to standard error.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, `latest`, or gpt2 …")
    p.add_argument(
        "--prompt", action="append", help="text to continue (default: the start of a document); may be repeated"
    )
    p.add_argument("--allow-special", action="store_true", help="read <|endoftext|> in a prompt as the token")
    p.add_argument("--max-new-tokens", type=int, default=200, help="default: %(default)s")
    p.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token; default: %(default)s")
    p.add_argument("--top-k", type=int, default=50, help="sample from the k likeliest tokens; default: %(default)s")
    p.add_argument("--top-p", type=float, help="sample from the likeliest tokens that together reach this probability")
    p.add_argument("--stop", metavar="TEXT", action="append", help="stop before this text; may be repeated")
    p.add_argument("--num-samples", type=int, default=1, help="texts per prompt; default: %(default)s")
    p.add_argument("--seed", type=int, default=1, help="the same seed gives the same text; default: %(default)s")
    add_device_options(p)
    p.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    p.add_argument(
        "--backend", choices=["torch", "numpy"], default="torch", help="numpy: the slow reference; default: %(default)s"
    )
    p.add_argument(
        "--interactive", action="store_true", help="ask for prompts; Ctrl-C stops the text, Ctrl-D ends the program"
    )
    return p


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp generate`."""
    from gptexp.commands import generate

    generate.run(arguments)


if __name__ == "__main__":
    main()
