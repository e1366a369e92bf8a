"""Vocabularies that the tokenizers library trains, saved as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import GPT2Tokenizer as Reference

from support.runs import SENTENCES

HARD = [
    "Hello world",
    "it's we'll I'D don't THEY'RE 'tis '' 's",
    "emoji 👩‍👩‍👧‍👦🏳️‍🌈🇩🇪 👍🏽 🙂🙂🙂",
    "鲁迅說：「其實地上本沒有路，走的人多了，也便成了路。」 日本語 한국어",
    "السَّلامُ عَلَيْكُمْ ١٢٣ हिन्दी ไทย",
    "  a   b\t\tc\n\n\nd \n e\r\nf   \n   ",
    "\u00a0\u2003\u200b\u3000x\u2028y\u0085z\ufeff",
    "        if x == 0x1F:  # 12345678901234567890 __init__ <= >= !=",
    " " * 300 + "x" + " " * 77,
    "\n" * 65 + "=" * 129,
    "e\u0301 é ﬃ Å ǅ ß ſ \x00\x01\x7f",
    "".join(map(chr, [*range(1, 0x180), 0x10FFFF, 0xFFFD, 0xE000])),
    "",
]


def learned(size: int, text: str = "\n".join(HARD * 3 + SENTENCES * 9)) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab and merges by the tokenizers library, which puts <|endoftext|> in front."""
    from tokenizers import Tokenizer as Theirs
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = Theirs(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def saved(folder: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> Reference:
    reference = Reference(vocab=vocab, merges=merges)
    reference.save_pretrained(folder)
    return reference
