"""python -m gptexp.evaluate RUN: score a trained model on its corpus, on any text, or on a published task."""

from __future__ import annotations

from pathlib import Path

from gptexp.util.entry_point import entry_point
from gptexp.util.errors import one_line_errors
from gptexp.util.options import OptionParser


def parser() -> OptionParser:
    p = OptionParser(
        prog="python -m gptexp.evaluate",
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

<<<<<<< HEAD
        evaluate.run(arguments)
=======

def _evaluator(arguments: argparse.Namespace) -> Any:
    if arguments.text:
        return evaluate_text
    return evaluate_task if arguments.lambada or arguments.hellaswag else evaluate


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what can be refused before the model is loaded.

    Raises:
        ValueError: naming the option and the remedy.
    """
    for flag, least in {"max_tokens": 2, "batch_size": 1, "stride": 1}.items():
        value = getattr(arguments, flag)
        if value is not None and value < least:
            raise ValueError(f"--{flag.replace('_', '-')}={value}: too small, give at least {least}")
    for flag in ("stride", "encoding"):
        if getattr(arguments, flag) is not None and not arguments.text:
            raise ValueError(f"--{flag}={getattr(arguments, flag)}: goes with --text FILE")
    if arguments.allow_special and not arguments.text:
        raise ValueError("--allow-special: goes with --text FILE")
    file = arguments.text or arguments.lambada or arguments.hellaswag
    if file and arguments.max_tokens is not None:
        raise ValueError(f"--max-tokens={arguments.max_tokens}: goes with the run's own corpus, not with {file}")
    if arguments.encoding is not None:
        require_encoding("--encoding", arguments.encoding)


def evaluate(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Load the checkpoint, open its corpus by its own settings, score; what is found, and a line that says it."""
    from gptexp.runs import find_checkpoint

    path = find_checkpoint(arguments.run, arguments.logs)

    from gptexp.data.prepare import prepare
    from gptexp.schemas import from_plain
    from gptexp.scoring import score_tokens

    checkpoint, model, tokenizer = _loaded(path)
    if not checkpoint.config.get("data"):  # Hugging Face's: weights without a corpus
        raise ValueError(f"{arguments.run}: has no corpus of its own to be scored on; give a text by --text FILE")
    corpus = from_plain("data", checkpoint.config.get("data"))
    _require_trusted(arguments, path, checkpoint.config["data"])
    data = prepare(corpus, tokenizer, arguments.cache, block_size=_block_size(checkpoint))
    if data.fingerprint != checkpoint.data.get("fingerprint"):
        print("notice: this is not the text that the run was trained on", file=sys.stderr)
    split = arguments.split or "val"
    score = score_tokens(
        model,
        tokenizer,
        data.val if split == "val" else data.train,
        block_size=_block_size(checkpoint),
        limit=arguments.max_tokens,
        batch=arguments.batch_size,
    )
    result = {
        "split": split,
        "loss": score.loss,
        "bpb": score.bpb,
        "perplexity": score.perplexity,
        "nats": score.nats,
        "tokens": score.tokens,
        "bytes": score.bytes,
        "text_sha256": data.text_sha256 if split == "val" and arguments.max_tokens is None else None,
        "step": checkpoint.step,
    }
    line = (
        f"{split}/bpb {score.bpb:.4f} · {split}/loss {score.loss:.4f} · "
        f"perplexity {score.perplexity:,.2f} · {score.tokens:,} tokens · {score.bytes:,} bytes"
    )
    return result, line


def _require_trusted(arguments: argparse.Namespace, path: Path, data: dict[str, Any]) -> None:
    """A checkpoint from elsewhere may name any file of this machine, or any address."""
    from gptexp.trust import from_network, is_own, named

    if arguments.trust_data:
        return
    if not is_own(path, arguments.logs):
        why = f"lies outside --logs {arguments.logs}"
    elif from_network(data):
        why = "was trained on a corpus from the network"
    else:
        return
    raise ValueError(
        f"{arguments.run}: {why}, and the settings in {path} name what to read ({named(data)}); add --trust-data if "
        "that may be read, or give a text by --text FILE"
    )


def evaluate_text(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Score a text file with a sliding window; its first token is context only."""
    from gptexp.data.corpora._reading import Contents
    from gptexp.runs import find_checkpoint
    from gptexp.textfile import require_text, survey, tokens_of

    path, file, encoding = find_checkpoint(arguments.run, arguments.logs), arguments.text, arguments.encoding or "utf-8"
    require_text(file)

    from gptexp.scoring import score_stream

    checkpoint, model, tokenizer = _loaded(path)
    sizes = {"stride": _stride(arguments.stride, _block_size(checkpoint)), "block_size": _block_size(checkpoint)}
    contents = Contents()
    text = survey(file, tokenizer, encoding, contents, arguments.allow_special)
    tokens = tokens_of(file, tokenizer, encoding, contents, arguments.allow_special)
    score = score_stream(model, tokenizer, tokens, batch=arguments.batch_size, **sizes)
    if score.tokens == 0:
        raise ValueError(f"{file}: has nothing to score but {tokenizer.eot_text}")
    result = {"text": str(file), **sizes, **_counts(score, text.words), "text_sha256": text.text_sha256}
    return result | {"step": checkpoint.step}, _line(result)


def _counts(score: Any, words: int) -> dict[str, Any]:
    """The score by token, word and byte.

    Perplexity a word is exp(nats / words): nats of all scored tokens, words the runs of characters between white
    space in the whole text, as `str.split` counts them. GPT-2's own tables are made so, after undoing what data
    sets of their time did to a text (section 3.1 of Radford et al. 2019); here the text is scored as it is.
    """
    by_word = type(score)(score.nats, words, score.bytes) if words else None
    return {
        "loss": score.loss,
        "bpb": score.bpb,
        "perplexity": score.perplexity,
        "word_perplexity": by_word.perplexity if by_word else None,
        "nats": score.nats,
        "tokens": score.tokens,
        "words": words,
        "bytes": score.bytes,
    }


def _line(found: dict[str, Any]) -> str:
    a_word = f", {_short(found['word_perplexity'])} a word" if found["words"] else ""
    return (
        f"perplexity {_short(found['perplexity'])} a token{a_word} · {found['bpb']:.4f} bits a byte · "
        f"{found['tokens']:,} tokens · {found['words']:,} words · {found['bytes']:,} bytes · "
        f"stride {found['stride']} of {found['block_size']}"
    )


def _short(value: float) -> str:
    return f"{value:,.2f}" if value < 1e6 else f"{value:.2e}"


def _stride(given: int | None, block_size: int) -> int:
    if given is not None and given > block_size:
        raise ValueError(f"--stride={given}: must be from 1 to {block_size}, the model's block_size")
    return given or max(1, block_size // 2)


def evaluate_task(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """LAMBADA or HellaSwag from a file in its public format."""
    from gptexp.runs import find_checkpoint
    from gptexp.textfile import require_text

    path = find_checkpoint(arguments.run, arguments.logs)
    file = arguments.lambada or arguments.hellaswag
    require_text(file)

    from gptexp.tasks import hellaswag, lambada

    checkpoint, model, tokenizer = _loaded(path)
    task = lambada if arguments.lambada else hellaswag
    result = task(model, tokenizer, file, block_size=_block_size(checkpoint), batch=arguments.batch_size)
    numbers = [f"{name.replace('_', ' ')} {value:,.4f}" for name, value in result.items() if isinstance(value, float)]
    line = f"{task.__name__} · {' · '.join(numbers)} · {result['examples']:,} examples"
    return {"task": task.__name__, "file": str(file), **result, "step": checkpoint.step}, line


def _loaded(path: Path) -> tuple[Any, Any, Any]:
    """Checkpoint, model and tokenizer; torch is imported no earlier than here."""
    from gptexp.checkpoint import open_run
    from gptexp.loading import load_model

    checkpoint = open_run(path)
    return checkpoint, *load_model(checkpoint, path)


def _block_size(checkpoint: Any) -> int:
    return int(checkpoint.config["model"]["block_size"])
>>>>>>> origin/main


if __name__ == "__main__":
    main()
