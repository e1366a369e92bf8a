"""GPT-2 itself, where its weights are at hand."""

from __future__ import annotations

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
    from gptexp.checkpoint import open_run
    from gptexp.loading import load_model

    return load_model(open_run(weights), weights)


def parameters(inputs: Inputs) -> int:
    from gptexp.flops import count_parameters

    assert inputs.weights is not None
    return count_parameters(_loaded(inputs.weights)[0])


def greedy_text(inputs: Inputs) -> str:
    """What the model writes after PROMPT when it always takes the likeliest token."""
    from gptexp.decoding import stream_tokens

    assert inputs.weights is not None
    model, tokenizer = _loaded(inputs.weights)
    prompt = tokenizer.encode(PROMPT).tolist()
    return tokenizer.decode(list(stream_tokens(model, prompt, max_new_tokens=NEW_TOKENS, temperature=0)))


AREA = Area(
    title="GPT-2's weights",
    note=f"--weights is a folder with GPT-2 124M. The prompt is “{PROMPT}”.",
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
    ),
)
