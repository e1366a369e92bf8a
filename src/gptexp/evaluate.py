"""python -m gptexp.evaluate RUN [--split val]: score a trained model on its corpus."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gptexp.cli import one_line_errors


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m gptexp.evaluate",
        description="Score a run on its own corpus: nats a token, bits a byte, perplexity; computed in float32.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    p.add_argument("--split", choices=["val", "train"], default="val", help="default: %(default)s")
    p.add_argument("--max-tokens", type=int, help="score at most so many tokens")
    p.add_argument("--batch-size", type=int, help="windows a forward pass; default: what fits")
    p.add_argument(
        "--cache", type=Path, default=Path("data/cache"), help="folder of token shards; default: %(default)s"
    )
    p.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a line")
    return p


def main(argv: list[str] | None = None) -> None:
    """The door."""
    arguments = parser().parse_args(argv)
    with one_line_errors():
        for flag in ("max_tokens", "batch_size"):
            value = getattr(arguments, flag)
            if value is not None and value < (2 if flag == "max_tokens" else 1):
                raise ValueError(f"--{flag.replace('_', '-')}={value}: too small")
        result = evaluate(arguments)
        if arguments.json:
            print(json.dumps(result))
        else:
            print(
                f"{arguments.split}/bpb {result['bpb']:.4f} · {arguments.split}/loss {result['loss']:.4f} · "
                f"perplexity {result['perplexity']:,.2f} · {result['tokens']:,} tokens · {result['bytes']:,} bytes"
            )


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the checkpoint, open its corpus by its own settings, score."""
    from gptexp.runs import find_checkpoint

    path = find_checkpoint(arguments.run, arguments.logs)

    from gptexp.checkpoint import open_run
    from gptexp.data.prepare import prepare
    from gptexp.loading import load_model
    from gptexp.schemas import from_plain
    from gptexp.scoring import score_tokens

    checkpoint = open_run(path)
    if not checkpoint.config.get("data"):  # Hugging Face's: weights without a corpus
        raise ValueError(f"{arguments.run}: has no corpus of its own to be scored on; fine-tune it (init_from=) on one")
    model, tokenizer = load_model(checkpoint, path)
    data = prepare(from_plain("data", checkpoint.config.get("data")), tokenizer, arguments.cache)
    if data.fingerprint != checkpoint.data.get("fingerprint"):
        print("notice: this is not the text that the run was trained on", file=sys.stderr)
    store = data.val if arguments.split == "val" else data.train
    score = score_tokens(
        model,
        tokenizer,
        store,
        block_size=_block_size(checkpoint),
        limit=arguments.max_tokens,
        batch=arguments.batch_size,
    )
    return {
        "split": arguments.split,
        "loss": score.loss,
        "bpb": score.bpb,
        "perplexity": score.perplexity,
        "nats": score.nats,
        "tokens": score.tokens,
        "bytes": score.bytes,
        "text_sha256": data.text_sha256 if arguments.split == "val" and arguments.max_tokens is None else None,
        "step": checkpoint.step,
    }


def _block_size(checkpoint: Any) -> int:
    return int(checkpoint.config["model"]["block_size"])


if __name__ == "__main__":
    main()
