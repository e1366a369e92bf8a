"""GPT-2 with its published weights, if they are given."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptexp.conformance.check import Area, Check, Inputs, Need
from gptexp.data.text_file import tokens_of
from gptexp.evaluation.lambada_hellaswag import lambada
from gptexp.evaluation.scoring import score_stream
from gptexp.generation.decoding import stream_tokens
from gptexp.models.flops import count_parameters
from gptexp.objectives.loading import load_model
from gptexp.runs.opening import open_checkpoint
from gptexp.tokenizers import Tokenizer

PROMPT = "Alan Turing theorized that computers would one day become"
CONTINUATION = " the most powerful machines on the planet."
NEW_TOKENS = 8

NEEDS = frozenset({Need.weights})


@lru_cache(maxsize=1)
def _loaded(weights: Path) -> tuple[Any, Tokenizer]:
    """The model and its tokenizer. Any: torch types the attributes of a module, such as config, as tensors."""
    return load_model(open_checkpoint(weights), weights)


def parameters(inputs: Inputs) -> int:
    """Return the number of parameters of the weights."""
    assert inputs.weights is not None
    return count_parameters(_loaded(inputs.weights)[0])


def greedy_text(inputs: Inputs) -> str:
    """Return the greedy continuation of PROMPT."""
    assert inputs.weights is not None
    model, tokenizer = _loaded(inputs.weights)
    prompt = tokenizer.encode(PROMPT).tolist()
    return tokenizer.decode(list(stream_tokens(model, prompt, max_new_tokens=NEW_TOKENS, temperature=0)))


def wikitext_perplexity(inputs: Inputs) -> float:
    """Return the perplexity per token, in adjacent windows of block_size, over the unchanged text of the file."""
    assert inputs.weights is not None
    assert inputs.wikitext is not None
    model, tokenizer = _loaded(inputs.weights)
    pieces, size = tokens_of(inputs.wikitext, tokenizer, "utf-8"), model.config.block_size
    return score_stream(model, tokenizer, pieces, block_size=size, stride=size).perplexity


@lru_cache(maxsize=1)
def _lambada(weights: Path, file: Path) -> dict[str, Any]:
    model, tokenizer = _loaded(weights)
    return lambada(model, tokenizer, file, block_size=model.config.block_size)


def lambada_score(name: str) -> Callable[[Inputs], float]:
    """Return a function that computes the accuracy or the perplexity of the last word."""

    def compute(inputs: Inputs) -> float:
        assert inputs.weights is not None
        assert inputs.lambada is not None
        return float(_lambada(inputs.weights, inputs.lambada)[name])

    return compute


AREA = Area(
    title="GPT-2's weights",
    note=f"--weights is a folder with GPT-2 124M. The prompt is “{PROMPT}”. The paper scored WikiText-2 after undoing "
    "the preprocessing of the data set by an unpublished recipe; here, as in the guide to perplexity of transformers "
    "(29.94), the text is scored unchanged. The published numbers for LAMBADA are of whole last words, predicted by "
    "greedy decoding; those of the paper (35.13 and 0.4599) exclude stop words.",
    checks=(
        Check(
            name="parameters",
            published=124_439_808,
            source="OpenAI's released weights",
            compute=parameters,
            needs=NEEDS,
        ),
        Check(
            name="greedy text",
            published=CONTINUATION,
            source="picoGPT, README",
            compute=greedy_text,
            needs=NEEDS,
        ),
        Check(
            name="WikiText-2, perplexity",
            published=29.41,
            tolerance=1.5,
            source="GPT-2 paper, table 3",
            compute=wikitext_perplexity,
            needs=NEEDS | {Need.wikitext},
        ),
        Check(
            name="LAMBADA, perplexity",
            published=40.06,
            tolerance=0.4,
            source="lm-evaluation-harness, lambada_openai (#2159)",
            compute=lambada_score("perplexity"),
            needs=NEEDS | {Need.lambada},
        ),
        Check(
            name="LAMBADA, accuracy",
            published=0.3256,
            tolerance=0.002,
            source="lm-evaluation-harness, lambada_openai (#2159)",
            compute=lambada_score("accuracy"),
            needs=NEEDS | {Need.lambada},
        ),
    ),
)
