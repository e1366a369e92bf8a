"""Losses by place, frequency and repetition equal those of independent computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gptexp.compose.composition import compose
from gptexp.data.prepare import prepare
from gptexp.data.shards import ShardWriter, TokenStore
from gptexp.evaluation import token_losses
from gptexp.evaluation.scoring import score_tokens
from gptexp.evaluation.token_losses import EVERY_TOKEN, binned_losses, by_frequency, by_place, by_repetition, repeated
from support.runs import TINY
from support.trained_runs import opened


def store_of(folder: Path, tokens: np.ndarray, vocab_size: int = 1000) -> TokenStore:
    with ShardWriter(folder, "val", vocab_size, shard_tokens=7) as writer:
        writer.write(tokens)
    return TokenStore(folder, writer.shards, writer.dtype)


def longest_repetition(row: list[int], end: int) -> int:
    """The length of the longest sequence that ends at `end` and occurred before, by trying each."""
    return max(
        (
            n
            for n in range(1, end + 1)
            for at in range(n - 1, end)
            if row[at - n + 1 : at + 1] == row[end - n + 1 : end + 1]
        ),
        default=0,
    )


def test_places_are_binned_by_powers_of_two(tmp_path: Path) -> None:
    split = by_place(128)
    assert split.labels == ["0", "1", "2–3", "4–7", "8–15", "16–31", "32–63", "64–127"]
    store = store_of(tmp_path, np.arange(300))
    assert split.of(store, 1, 9).tolist() == [0, 1, 2, 2, 3, 3, 3, 3]
    assert split.of(store, 32, 34).tolist() == [5, 6]  # tokens 32 and 33 are the places 31 and 32
    assert split.of(store, 128, 130).tolist() == [7, 0]
    assert by_place(48).labels[-1] == "32–47"
    assert by_place(1).labels == ["0"]


def test_frequencies_are_binned_by_decades(tmp_path: Path) -> None:
    train = np.repeat([0, 1, 2, 3], [8900, 1000, 90, 10])  # 89%, exactly 1 in 10, 0.9%, exactly 1 in 1,000
    split = by_frequency(store_of(tmp_path / "train", train), vocab_size=5)
    found = split.of(store_of(tmp_path / "val", np.arange(5)), 1, 5)
    assert [split.labels[k] for k in found] == ["1 in 10–100", "1 in 100–1k", "1 in 1k–10k", "never"]
    assert split.labels[split.of(store_of(tmp_path / "val", np.zeros(2, dtype=int)), 1, 2)[0]] == "over 1 in 10"


@pytest.mark.parametrize("vocab_size", [1, 2, 6])
def test_repetitions_equal_those_found_by_trying_each_sequence(vocab_size: int) -> None:
    windows = np.random.default_rng(vocab_size).integers(0, vocab_size, (4, 23))
    bounds = np.array([1, 2, 4, 8])
    for row, found in zip(windows.tolist(), repeated(windows).tolist(), strict=True):
        assert found == [int((bounds <= longest_repetition(row, end)).sum()) for end in range(len(row))]


@pytest.mark.parametrize("window", [1, 4, 10, 64])
def test_repetitions_do_not_depend_on_how_the_text_is_divided(tmp_path: Path, window: int) -> None:
    tokens = np.random.default_rng(0).integers(0, 3, 45)
    store, split = store_of(tmp_path, tokens), by_repetition(window)
    whole = split.of(store, 1, 45)
    for at in range(2, 45):
        assert [*split.of(store, 1, at), *split.of(store, at, 45)] == whole.tolist()
    windows = [tokens[s : s + window + 1] for s in range(0, 44, window)]
    assert whole.tolist() == [k for row in windows for k in repeated(row[None])[0, 1:].tolist()]


@pytest.mark.parametrize("chunk", [16, 64, 2**16])
@pytest.mark.parametrize("run", ["gpt", "bigram", "words"])
def test_binned_losses_add_up_to_the_score(runs: Path, run: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    monkeypatch.setattr(token_losses, "CHUNK", chunk)
    model, tokenizer = opened(run)
    data = prepare(compose([*TINY, "data.path=story.txt"]).data, tokenizer, Path("data/cache"))
    score = score_tokens(model, tokenizer, data.val, block_size=16)
    splits = [EVERY_TOKEN, by_place(32), by_frequency(data.train, tokenizer.vocab_size), by_repetition(32)]
    for found in binned_losses(model, tokenizer, data.val, splits, block_size=16).values():
        assert found.tokens.sum() == score.tokens
        assert found.nats.sum() == pytest.approx(score.nats, rel=1e-6)


def test_losses_by_place_are_those_of_single_forward_passes(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Place 16 to 31 of windows of 32 has the losses of every second window of 16."""
    monkeypatch.chdir(runs)
    model, tokenizer = opened("gpt")
    data = prepare(compose([*TINY, "data.path=story.txt"]).data, tokenizer, Path("data/cache"))
    tokens = torch.from_numpy(np.asarray(data.val.read(0, len(data.val))).astype(np.int64))
    nats = []
    with torch.no_grad():
        for at in range(1, len(tokens)):
            start = (at - 1) // 16 * 16
            nats.append(-torch.log_softmax(model(tokens[None, start:at])[0, -1], dim=-1)[tokens[at]].item())
    (found,) = binned_losses(model, tokenizer, data.val, [by_place(32)], block_size=16).values()
    places = np.arange(len(nats)) % 32
    expected = [sum(n for n, p in zip(nats, places, strict=True) if low <= p < high) for low, high in
                ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32))]  # fmt: skip
    assert found.nats.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_token_between_documents_is_context_only(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    model, tokenizer = opened("words")
    assert tokenizer.eot is not None
    tokens = np.array([5, 6, tokenizer.eot, 7, 5, 6, tokenizer.eot, 9, 9, 9])
    store = store_of(tmp_path, tokens, tokenizer.vocab_size)
    (found,) = binned_losses(model, tokenizer, store, [by_repetition(16)], block_size=16).values()
    assert found.tokens.sum() == 7
    assert found.nats.sum() == pytest.approx(score_tokens(model, tokenizer, store, block_size=16).nats, rel=1e-6)
