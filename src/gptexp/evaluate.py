"""python -m gptexp.evaluate RUN: score a trained model on its corpus, on any text, or on a published task."""

from __future__ import annotations

from pathlib import Path

from gptexp.util.entry_point import entry_point, program_name
from gptexp.util.errors import one_line_errors
from gptexp.util.options import OptionParser


def parser() -> OptionParser:
    p = OptionParser(
        prog=program_name("gptexp.evaluate"),
        description="Score a run: nats a token, bits a byte, perplexity; computed in float32. By default on the "
        "validation part of its own corpus. Words are what white space separates.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--split", choices=["val", "train"], help="of its own corpus; default: val")
    what.add_argument("--text", type=Path, metavar="FILE", help="any text, with a sliding window")
    what.add_argument("--lambada", type=Path, metavar="FILE", help="jsonl with `text`: predict the last word")
    what.add_argument("--hellaswag", type=Path, metavar="FILE", help="HellaSwag's own jsonl: choose the ending")
    p.add_argument("--stride", type=int, help="with --text: new tokens a window; default: half of block_size")
    p.add_argument("--encoding", help="with --text; default: utf-8")
    p.add_argument(
        "--allow-special",
        action="store_true",
        help="with --text: <|endoftext|> in it is the token between documents, which isn't scored, not ordinary text",
    )
    p.add_argument("--max-tokens", type=int, help="of its own corpus, score at most so many tokens")
    p.add_argument("--batch-size", type=int, help="windows a forward pass; default: what fits")
    p.add_argument(
        "--cache", type=Path, default=Path("data/cache"), help="folder of token shards; default: %(default)s"
    )
    p.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    p.add_argument(
        "--trust-data",
        action="store_true",
        help="read the corpus that the run's settings name, although the run lies outside --logs, or the corpus is "
        "fetched from the network",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a line")
    return p


@entry_point
def main(argv: list[str] | None = None) -> None:
    """Entry point of `gptexp evaluate`."""
    arguments = parser().parse_args(argv)
    with one_line_errors():
        from gptexp.commands import evaluate

        evaluate.run(arguments)


if __name__ == "__main__":
    main()
