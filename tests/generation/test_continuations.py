"""Prompts and held-out continuations come from the validation text, and generation repeats exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from gptexp.config import NoveltyConfig
from gptexp.data.mixture import Texts
from gptexp.data.shards import ShardWriter, TokenStore
from gptexp.generation.continuations import continued, held_out_windows
from support.small_gpt import V, build, small


def store(place: Path, count: int, first: int = 0) -> TokenStore:
    """The tokens first, first + 1 … of a vocabulary of 1,000."""
    with ShardWriter(place, f"val{first}", 1000) as writer:
        writer.write(np.arange(first, first + count))
    return TokenStore(place, writer.shards, writer.dtype)


@dataclass(frozen=True)
class Validation:
    """Data with nothing but a validation text, in parts."""

    parts: list[TokenStore]

    def stores(self, split: str) -> dict[str, TokenStore]:
        assert split == "val"
        return {str(i): part for i, part in enumerate(self.parts)}


def windows(parts: list[TokenStore], samples: int, tokens: int, block_size: int = 8) -> list[list[int]]:
    config = NoveltyConfig(samples=samples, tokens=tokens)
    found = held_out_windows(cast(Texts, Validation(parts)), config, block_size, "--tokens")
    return [window.tolist() for window in found]


def test_windows_are_evenly_spaced_from_the_first_to_the_last_token(tmp_path: Path) -> None:
    assert windows([store(tmp_path, 100)], 3, 10) == [list(range(a, a + 18)) for a in (0, 41, 82)]
    assert windows([store(tmp_path, 18)], 2, 10) == [list(range(18))] * 2


def test_a_prompt_has_at_most_64_tokens(tmp_path: Path) -> None:
    assert windows([store(tmp_path, 200)], 1, 36, block_size=512) == [list(range(100))]


def test_parts_of_a_mixture_get_windows_in_turn(tmp_path: Path) -> None:
    stores = [store(tmp_path, 60), store(tmp_path, 60, first=500)]
    assert [window[0] for window in windows(stores, 3, 10)] == [0, 42, 500]
    assert [window[0] for window in windows(stores, 1, 10)] == [0]


def test_a_short_validation_text_is_refused_with_the_largest_length(tmp_path: Path) -> None:
    message = "--tokens=13: the validation text has 20 tokens, and a sample needs 21 of them, 8 for its prompt; "
    with pytest.raises(ValueError, match=message + "give at most 12"):
        windows([store(tmp_path, 20)], 2, 13)
    with pytest.raises(ValueError, match="give more text"):
        windows([store(tmp_path, 8)], 2, 1)


def test_texts_continue_their_prompts_and_repeat_exactly() -> None:
    model, given = build(small()), [np.arange(25) % V, np.arange(3, 28) % V, np.arange(25) % V]
    config = NoveltyConfig(samples=3, tokens=20, temperature=1.0, top_k=None)
    texts = continued(model, given, config, 7)
    assert [len(text) for text in texts] == [20, 20, 20]
    assert [text.tolist() for text in continued(model, given, config, 7)] == [text.tolist() for text in texts]
    assert texts[0].tolist() != texts[2].tolist()  # each text has its own seed
    (greedy,) = continued(model, [np.arange(6)], NoveltyConfig(samples=1, tokens=1, temperature=0), 1)
    with torch.no_grad():
        assert greedy.tolist() == [int(model(torch.arange(5)[None])[0, -1].argmax())]


def test_a_text_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = build(small()), [np.arange(i, 16 + i) % V for i in range(3)]
    config = NoveltyConfig(samples=3, tokens=12, temperature=1.0, top_k=5)
    together = [text.tolist() for text in continued(model, given, config, 1)]
    monkeypatch.setattr("gptexp.generation.continuations.texts_that_fit", lambda *_: 2)
    assert [text.tolist() for text in continued(model, given, config, 1)] == together
