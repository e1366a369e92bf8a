"""`gptexp evaluate`: the score of a trained model on its corpus, a text or a published task."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gptexp.runs.finding import find_checkpoint
from gptexp.util.text import install_extra

if TYPE_CHECKING:
    from gptexp.objectives.lm import Score
    from gptexp.objectives.loading import Opened

Found = tuple[dict[str, Any], str]  # what --json prints, and the line without it


def run(arguments: argparse.Namespace) -> None:
    """Print the score that the command line requests."""
    _check(arguments)
    find_checkpoint(arguments.run, arguments.logs)  # a missing run is refused before torch is imported
    result, line = _evaluator(arguments)(arguments)
    print(json.dumps(_finite(result)) if arguments.json else line)


def _finite(value: Any) -> Any:
    """Return the result with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _evaluator(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], Found]:
    if arguments.text:
        return evaluate_text
    if arguments.tasks:
        return evaluate_by_harness
    return evaluate_task if arguments.lambada or arguments.hellaswag else evaluate


def _check(arguments: argparse.Namespace) -> None:
    """Check the options before the model is loaded.

    Raises:
        ValueError: the option and the remedy.
    """
    for flag, least in {"max_tokens": 2, "batch_size": 1, "stride": 1}.items():
        value = getattr(arguments, flag)
        if value is not None and value < least:
            raise ValueError(f"--{flag.replace('_', '-')}={value}: too small, give at least {least}")
    for flag in ("stride", "encoding"):
        if getattr(arguments, flag) is not None and not arguments.text:
            raise ValueError(f"--{flag}={getattr(arguments, flag)}: requires --text FILE")
    if arguments.allow_special and not arguments.text:
        raise ValueError("--allow-special: requires --text FILE")
    if arguments.include_path and not arguments.tasks:
        raise ValueError(f"--include-path={arguments.include_path}: requires --tasks NAMES")
    if arguments.include_path and not arguments.include_path.is_dir():
        raise ValueError(f"--include-path={arguments.include_path}: no such folder")
    if arguments.tasks and find_spec("lm_eval") is None:
        raise ValueError(f"--tasks={arguments.tasks}: needs lm-evaluation-harness: {install_extra('lm-eval')}")
    file = arguments.text or arguments.lambada or arguments.hellaswag or arguments.tasks
    if file and arguments.max_tokens is not None:
        raise ValueError(f"--max-tokens={arguments.max_tokens}: applies only to the corpus of the run, not to {file}")


def evaluate(arguments: argparse.Namespace) -> Found:
    """Score a part of the corpus that the settings of the run name."""
    from gptexp.evaluation.run_corpus import run_corpus
    from gptexp.evaluation.scoring import score_texts, total

    run = _opened(arguments)
    options = {name: getattr(arguments, name) for name in ("logs", "cache", "trust_data")}
    data = run_corpus(run, **options, instead="give a text with --text FILE")
    if data.fingerprint != run.checkpoint.data.get("fingerprint"):
        print("notice: the corpus has changed since the run was trained", file=sys.stderr)
    split = arguments.split or "val"
    sizes = {"limit": arguments.max_tokens, "batch": arguments.batch_size}
    with run.placement.context():
        scores = score_texts(run.model, run.tokenizer, data, split, block_size=run.block_size, **sizes)
    score = total(scores.values())
    parts = {name: one.bpb for name, one in scores.items() if name}
    result = {
        "split": split,
        "loss": score.loss,
        "bpb": score.bpb,
        "perplexity": score.perplexity,
        "nats": score.nats,
        "tokens": score.tokens,
        "bytes": score.bytes,
        "text_sha256": data.text_sha256 if split == "val" and arguments.max_tokens is None else None,
        "step": run.checkpoint.step,
        **({"bpb_of_parts": parts} if parts else {}),
    }
    line = (
        f"{split}/bpb {score.bpb:.4f} · {split}/loss {score.loss:.4f} · "
        f"perplexity {score.perplexity:,.2f} · {score.tokens:,} tokens · {score.bytes:,} bytes"
    )
    line += "".join(f" · {split}/bpb/{name} {bpb:.4f}" for name, bpb in parts.items())
    return result, line


def evaluate_text(arguments: argparse.Namespace) -> Found:
    """Score a text file with a sliding window; its first token is only context."""
    from gptexp.data.corpora._reading import Contents
    from gptexp.data.text_file import encoding_of, require_text, survey, tokens_of

    file, contents = arguments.text, Contents()
    require_text(file)
    encoding = encoding_of(file, arguments.encoding, contents)

    from gptexp.evaluation.scoring import score_stream

    run = _opened(arguments)
    sizes = {"stride": _stride(arguments.stride, run.block_size), "block_size": run.block_size}
    text = survey(file, run.tokenizer, encoding, contents, arguments.allow_special)
    tokens = tokens_of(file, run.tokenizer, encoding, contents, arguments.allow_special)
    with run.placement.context():
        score = score_stream(run.model, run.tokenizer, tokens, batch=arguments.batch_size, **sizes)
    if score.tokens == 0:
        raise ValueError(f"{file}: has no token to score except {run.tokenizer.eot_text}")
    result = {"text": str(file), **sizes, **_counts(score, text.words), "text_sha256": text.text_sha256}
    return result | {"step": run.checkpoint.step}, _line(result)


def _counts(score: Score, words: int) -> dict[str, Any]:
    """Return the score per token, word and byte.

    Perplexity per word is exp(nats / words), with the nats of all scored tokens and the words of the whole text as
    `str.split` counts them. GPT-2's tables have it too, after reversing changes that data sets made to their texts
    (section 3.1 of Radford et al. 2019); here the text is scored unchanged.
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
    per_word = f", {_short(found['word_perplexity'])} per word" if found["words"] else ""
    return (
        f"perplexity {_short(found['perplexity'])} per token{per_word} · {found['bpb']:.4f} bits per byte · "
        f"{found['tokens']:,} tokens · {found['words']:,} words · {found['bytes']:,} bytes · "
        f"stride {found['stride']} of {found['block_size']}"
    )


def _short(value: float) -> str:
    return f"{value:,.2f}" if value < 1e6 else f"{value:.2e}"


def _stride(given: int | None, block_size: int) -> int:
    if given is not None and given > block_size:
        raise ValueError(f"--stride={given}: must be from 1 to {block_size}, the model's block_size")
    return given or max(1, block_size // 2)


def evaluate_task(arguments: argparse.Namespace) -> Found:
    """Score LAMBADA or HellaSwag from a file in its public format."""
    from gptexp.data.text_file import require_text

    file = arguments.lambada or arguments.hellaswag
    require_text(file)

    from gptexp.evaluation.lambada_hellaswag import hellaswag, lambada

    run, task = _opened(arguments), lambada if arguments.lambada else hellaswag
    with run.placement.context():
        result = task(run.model, run.tokenizer, file, block_size=run.block_size, batch=arguments.batch_size)
    numbers = [f"{name.replace('_', ' ')} {value:,.4f}" for name, value in result.items() if isinstance(value, float)]
    line = f"{task.__name__} · {' · '.join(numbers)} · {result['examples']:,} examples"
    return {"task": task.__name__, "file": str(file), **result, "step": run.checkpoint.step}, line


def evaluate_by_harness(arguments: argparse.Namespace) -> Found:
    """Score tasks of lm-evaluation-harness, which downloads the data of its own tasks."""
    from gptexp.evaluation.harness import HarnessModel, evaluated

    options = {name: getattr(arguments, name) for name in ("run", "logs", "device", "precision", "batch_size")}
    return evaluated(HarnessModel(**options), arguments.tasks.split(","), arguments.include_path)


def _opened(arguments: argparse.Namespace) -> Opened:
    from gptexp.objectives.loading import open_run

    return open_run(arguments.run, arguments.logs, arguments.device, arguments.precision)
