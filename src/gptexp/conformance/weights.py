"""GPT-2 itself, where its weights are at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptexp.conformance.check import Area, Check, Inputs, Need

PROMPT = "Alan Turing theorized that computers would one day become"
CONTINUATION = " the most powerful machines on the planet."
NEW_TOKENS = 8

NEEDS = frozenset({Need.weights})


@lru_cache(maxsize=1)
def _loaded(weights: Path) -> tuple[Any, Any]:
    from gptexp.objectives.loading import load_model
    from gptexp.runs.opening import open_checkpoint

    return load_model(open_checkpoint(weights), weights)


def parameters(inputs: Inputs) -> int:
    from gptexp.models.flops import count_parameters

    assert inputs.weights is not None
    return count_parameters(_loaded(inputs.weights)[0])


def greedy_text(inputs: Inputs) -> str:
    """What the model writes after PROMPT when it always takes the likeliest token."""
    from gptexp.generation.decoding import stream_tokens

    assert inputs.weights is not None
    model, tokenizer = _loaded(inputs.weights)
    prompt = tokenizer.encode(PROMPT).tolist()
    return tokenizer.decode(list(stream_tokens(model, prompt, max_new_tokens=NEW_TOKENS, temperature=0)))


def wikitext_perplexity(inputs: Inputs) -> float:
    """A token, in windows of block_size side by side, over the text as it is in the file."""
    from gptexp.data.text_file import tokens_of
    from gptexp.evaluation.scoring import score_stream

    assert inputs.weights is not None
    assert inputs.wikitext is not None
    model, tokenizer = _loaded(inputs.weights)
    pieces, size = tokens_of(inputs.wikitext, tokenizer, "utf-8"), model.config.block_size
    return score_stream(model, tokenizer, pieces, block_size=size, stride=size).perplexity


@lru_cache(maxsize=1)
def _lambada(weights: Path, file: Path) -> dict[str, Any]:
    from gptexp.evaluation.lambada_hellaswag import lambada

    model, tokenizer = _loaded(weights)
    return lambada(model, tokenizer, file, block_size=model.config.block_size)


def lambada_score(name: str) -> Callable[[Inputs], float]:
    """name: accuracy or perplexity of the last word."""

    def compute(inputs: Inputs) -> float:
        assert inputs.weights is not None
        assert inputs.lambada is not None
        return _lambada(inputs.weights, inputs.lambada)[name]

    return compute


AREA = Area(
    title="GPT-2's weights",
    note=f"--weights is a folder with GPT-2 124M. The prompt is “{PROMPT}”. The paper scored WikiText-2 after undoing "
    "what that data set does to a text, by a recipe that wasn't published; here, as in transformers' guide to "
    "perplexity (29.94), the text is scored as it is. LAMBADA's published numbers are of whole last words, found by "
    "greedy decoding; the paper's own (35.13 and 0.4599) leave out stop words.",
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
