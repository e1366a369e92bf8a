"""Byte-pair encoding against the algorithm of the paper (Sennrich et al. 2016, arXiv 1508.07909, section 3.2)."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from gptexp.config.tokenizer import CharConfig
from gptexp.tokenizers import load_tokenizer, train_tokenizer
from gptexp.tokenizers.byte_level import byte_symbols, in_order, joins_by_bytes
from gptexp.tokenizers.huggingface_export import files_of
from support.tokenizer_files import read


def merged(text: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding of one word as the paper describes it: the first merge of the list first, from the left."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    parts = list(text)
    while known := [pair for pair in pairwise(parts) if pair in ranks]:
        place = list(pairwise(parts)).index(min(known, key=ranks.__getitem__))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def drawn_merges(draw: random.Random, once: bool) -> list[tuple[str, str]]:
    """Random merges over two letters, which need not result from a text. once: each token has only one merge."""
    pieces, merges = ["a", "b"], list[tuple[str, str]]()
    for _ in range(draw.randint(3, 14)):
        pair = draw.choice(pieces), draw.choice(pieces)
        piece = "".join(pair)
        if pair not in merges and len(piece) <= 9 and not (once and piece in pieces):
            merges.append(pair)
            pieces.append(piece)
    return merges


@pytest.mark.parametrize("seed", range(40))
def test_any_list_of_merges_is_applied_in_its_order(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    merges = drawn_merges(draw, once=False)
    pieces = list(dict.fromkeys([*byte_symbols(), *map("".join, merges)]))
    draw.shuffle(pieces)
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8")
    ours = load_tokenizer(json.loads(json.dumps(read(tmp_path).state_dict())))
    assert ours.kind == "files"
    for _ in range(60):
        word = "".join(draw.choices("ab", k=draw.randint(1, 30)))
        assert [pieces[token] for token in ours.encode(word)] == merged(word, merges)
        assert ours.decode(ours.encode(word)) == word


def test_merges_that_tiktoken_applies_differently_are_detected() -> None:
    seen = {True: 0, False: 0}
    for seed in range(150):
        draw = random.Random(seed)
        merges = drawn_merges(draw, once=True)
        ids = {chr(value): value for value in range(256)}
        ids |= {left + right: i for i, (left, right) in enumerate(merges, 256)}
        pairs = [[ids[left], ids[right]] for left, right in merges]
        tokenizer = load_tokenizer({"kind": "bpe", "merges": pairs})
        words = [*map("".join, merges), *("".join(draw.choices("ab", k=k)) for k in range(2, 40))]
        same = all(tokenizer.encode(word).tolist() == [ids[part] for part in merged(word, merges)] for word in words)
        assert joins_by_bytes(in_order((left, right) for left, right in pairs)) == same
        seen[same] += 1
        if not same:
            with pytest.raises(ValueError, match=r"tokenizer\.kind=bpe: its merges cannot result from training"):
                files_of(tokenizer, 64)
    assert min(seen.values()) > 25


def test_a_tokenizer_that_is_not_byte_level_has_no_vocabulary_of_bytes() -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.kind=char: is not a byte-level"):
        train_tokenizer(CharConfig(), ["ab"], ["ab"]).vocabulary()
