"""`gptexp conformance`: computes published numbers again and prints a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, command


def parser() -> OptionParser:
    p = OptionParser(
        prog=program_name("gptexp.conformance"),
        description="Compute published numbers again and compare: sizes, tokens, learning rates, counted losses and "
        "trained models. Prints a table; --out also writes it as Markdown.",
        epilog="With --shakespeare it trains eight models, which takes about eight minutes of one CPU core; "
        "with --fast it takes less than half a minute. "
        "Exit code 0: no check failed; 1: a number is outside its tolerance; 2: a file is missing or wrong.",
    )
    p.add_argument("--fast", action="store_true", help="skip checks that train a model or read a given file")
    p.add_argument("--shakespeare", metavar="PATH", type=Path, help="a copy of Tiny Shakespeare (input.txt)")
    p.add_argument("--weights", metavar="FOLDER", help="a folder with the weights of GPT-2 124M")
    p.add_argument("--wikitext", metavar="FILE", type=Path, help="with --weights: WikiText-2's wiki.test.raw")
    p.add_argument("--lambada", metavar="FILE", type=Path, help="with --weights: OpenAI's lambada_test.jsonl")
    p.add_argument("--out", metavar="FILE", type=Path, help="also write the table to this file, as Markdown")
    return p


@command(parser)
def main(arguments: argparse.Namespace) -> int:
    """Entry point of `gptexp conformance`."""
    from gptexp.conformance.run import run

    return run(arguments)
