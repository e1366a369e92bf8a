"""Vocabularies for the tests of tokenizers, and texts that are hard to split."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gptexp.tokenizers import Tokenizer, load_tokenizer
from gptexp.tokenizers.gpt2 import encoder_json, vocab_bpe
from gptexp.tokenizers.huggingface_files import read_state
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


def source_code(size: int) -> str:
    """The first `size` characters of Python's source code."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    return "".join(path.read_text(encoding="utf-8", errors="ignore") for path in files)[:size]


def learned(size: int, text: str = "\n".join(HARD * 3 + SENTENCES * 9)) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as the tokenizers library learns them; <|endoftext|> is the first token."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = Library(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def saved(folder: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """The tokenizer of transformers with these tokens, whose files are written to the folder."""
    from transformers import GPT2Tokenizer

    given: Any = merges  # pairs are accepted, but the annotation says strings
    reference = GPT2Tokenizer(vocab=vocab, merges=given)
    reference.save_pretrained(folder)
    return reference


def read(folder: Path, size: int | None = None) -> Tokenizer:
    """The tokenizer in a folder's files."""
    return load_tokenizer(read_state(folder, size))


def gpt2_files() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of OpenAI."""
    vocab = json.loads(encoder_json(vocab_bpe()))
    lines = vocab_bpe().decode("utf-8").split("\n")[1:-1]
    return vocab, [(left, right) for left, right in (line.split(" ") for line in lines)]
