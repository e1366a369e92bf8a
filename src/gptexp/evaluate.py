"""python -m gptexp.evaluate RUN: score a trained model on its corpus, any text, or a published task."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, add_corpus_options, add_device_options, add_encoding_option, command


def parser() -> OptionParser:
    p = OptionParser(
        prog=program_name("gptexp.evaluate"),
        description="Score a run: nats per token, bits per byte and perplexity. By default, the "
        "validation part of its corpus is scored. Words are separated by white space.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--split", choices=["val", "train"], help="part of its corpus; default: val")
    what.add_argument("--text", type=Path, metavar="FILE", help="any text, scored with a sliding window")
    what.add_argument("--lambada", type=Path, metavar="FILE", help="jsonl with `text`: predict the last word")
    what.add_argument("--hellaswag", type=Path, metavar="FILE", help="HellaSwag's jsonl: choose the ending")
    what.add_argument("--tasks", metavar="NAMES", help="tasks of lm-evaluation-harness, with commas between them")
    p.add_argument("--include-path", metavar="FOLDER", type=Path, help="with --tasks: own tasks, which are code")
    p.add_argument("--stride", type=int, help="with --text: new tokens per window; default: half of block_size")
    add_encoding_option(p)
    p.add_argument(
        "--allow-special",
        action="store_true",
        help="with --text: read <|endoftext|> as the token between documents, which is not scored",
    )
    p.add_argument("--max-tokens", type=int, help="score at most this many tokens of its corpus")
    p.add_argument("--batch-size", type=int, help="windows per forward pass; default: as many as fit")
    add_device_options(p)
    add_corpus_options(p)
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a line")
    return p


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp evaluate`."""
    from gptexp.commands import evaluate

    evaluate.run(arguments)


if __name__ == "__main__":
    main()
