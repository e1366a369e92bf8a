"""What a model writes after prompts from held-out text, and how much of it is in the training text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from gptexp.config import NoveltyConfig
from gptexp.data.mixture import Texts
from gptexp.data.novelty import BREAK, Novelty, decoded, measure, text_of
from gptexp.generation.decoding import Generation, eval_mode, make_decoder, texts_that_fit
from gptexp.util.seeds import seed_generator

PROMPT = 64  # most tokens of a prompt
TOKENS = 2**18  # tokens of the training text that are decoded at once


def held_out_windows(data: Texts, config: NoveltyConfig, block_size: int, setting: str) -> list[np.ndarray]:
    """Return windows of a prompt and `config.tokens` more tokens, evenly spaced in each part of the validation text.

    Raises:
        ValueError: a part has too few tokens for a window; with `setting`, the name of the option `tokens`.
    """
    prompt, stores = min(PROMPT, block_size), list(data.stores("val").values())
    size, found = prompt + config.tokens, list[np.ndarray]()
    for i, store in enumerate(stores[: config.samples]):
        if len(store) < size:
            most = f"give at most {len(store) - prompt}" if len(store) > prompt else "give more text"
            raise ValueError(
                f"{setting}={config.tokens}: the validation text has {len(store):,} tokens, and a sample needs "
                f"{size:,} of them, {prompt} for its prompt; {most}"
            )
        count = len(range(i, config.samples, len(stores)))
        found += list(store.windows(np.linspace(0, len(store) - size, count).astype(np.int64), size))
    return found


def continued(model: nn.Module, windows: Sequence[np.ndarray], config: NoveltyConfig, seed: int) -> list[np.ndarray]:
    """Return the tokens that the model writes in place of those after each prompt; the ith with the seed `seed` + i.

    <|endoftext|> does not end a text, so that all are equally long.
    """
    texts: list[list[int]] = [[] for _ in windows]
    batch = texts_that_fit(model, max(map(len, windows), default=1))
    for first in range(0, len(windows), batch):
        prompts = [window[: -config.tokens].tolist() for window in windows[first : first + batch]]
        generation = Generation(
            make_decoder(model, prompts, config.tokens),
            [seed_generator(torch.Generator(), seed + first + i) for i in range(len(prompts))],
            max_new_tokens=config.tokens,
            temperature=config.temperature,
            top_k=config.top_k,
        )
        with eval_mode(model):
            for text, token in generation:
                texts[first + text].append(token)
    return [np.array(text, dtype=np.int64) for text in texts]


def compared(data: Texts, texts: Sequence[np.ndarray]) -> list[Novelty]:
    """Compare texts, given as tokens, with the training text, whose parts are joined."""
    return measure([text_of(data.tokenizer, tokens) for tokens in texts], training_text(data))


def training_text(data: Texts) -> Iterator[str]:
    """Yield the training text in pieces, with BREAK where a document or part ends."""
    for store in data.stores("train").values():
        yield from decoded(data.tokenizer, (store.read(i, i + TOKENS) for i in range(0, len(store), TOKENS)))
        yield BREAK
