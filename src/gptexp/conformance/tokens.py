"""Worked examples of byte-pair encoding, and GPT-2's tokens of known strings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from gptexp.conformance.check import Area, Check, Inputs, Need

if TYPE_CHECKING:
    from gptexp.tokenizers import Tokenizer

MINBPE = "aaabdaaabac"
VOCABULARY = frozenset({Need.vocabulary})


def trained_bpe(_: Inputs) -> tuple[int, ...]:
    """Three merges learned from minbpe's text, and the text encoded with them."""
    from gptexp.config import BPEConfig
    from gptexp.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(BPEConfig(vocab_size=256 + 3 + 1), [MINBPE], [MINBPE])  # 1: <|endoftext|>
    return tuple(tokenizer.encode(MINBPE).tolist())


def gpt2_tokens(text: str) -> Callable[[Inputs], tuple[int, ...]]:
    return lambda _: tuple(_gpt2().encode(text).tolist())


def _gpt2() -> Tokenizer:
    from gptexp.config import GPT2TokenizerConfig
    from gptexp.tokenizers import train_tokenizer

    return train_tokenizer(GPT2TokenizerConfig())


def end_of_text(_: Inputs) -> int:
    eot = _gpt2().eot
    assert eot is not None
    return eot


def merges_hash(_: Inputs) -> str:
    """SHA-256 of the file that the vocabulary is read from."""
    from gptexp.tokenizers import gpt2

    return hashlib.sha256(gpt2.vocab_bpe()).hexdigest()


def ids_hash(_: Inputs) -> str:
    """SHA-256 of OpenAI's other file, made from the first one."""
    from gptexp.tokenizers import gpt2

    return hashlib.sha256(gpt2.encoder_json(gpt2.vocab_bpe())).hexdigest()


def _tokens(text: str, published: tuple[int, ...], source: str) -> Check:
    return Check(
        name=f"tokens of “{text}”",
        published=published,
        source=source,
        compute=gpt2_tokens(text),
        needs=VOCABULARY,
    )


AREA = Area(
    title="Tokens",
    note="Our byte-pair encoding splits a text into words first, as GPT-2 does; minbpe's example is one word, so the "
    "two agree. Bytes are 0 to 255, merges follow from 256. The rest is GPT-2's vocabulary.",
    checks=(
        Check(
            name=f"three merges on {MINBPE}",
            published=(258, 100, 258, 97, 99),
            source="minbpe, README",
            compute=trained_bpe,
        ),
        _tokens("hello world", (31373, 995), "tiktoken, core.py, Encoding.encode"),
        _tokens("hii there", (71, 4178, 612), "Karpathy, Let's build GPT"),
        _tokens(" Hello world", (18435, 995), "Hugging Face, GPT2TokenizerFast"),
        _tokens(
            "Not all heroes wear capes.", (3673, 477, 10281, 5806, 1451, 274, 13), "Mody, GPT in 60 Lines of NumPy"
        ),
        Check(
            name="<|endoftext|>",
            published=50_256,
            source="tiktoken, openai_public.py",
            compute=end_of_text,
            needs=VOCABULARY,
        ),
        Check(
            name="entries of the vocabulary",
            published=50_257,
            source="GPT-2 paper, section 2.3",
            compute=lambda _: _gpt2().vocab_size,
            needs=VOCABULARY,
        ),
        Check(
            name="SHA-256 of vocab.bpe",
            published="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            source="tiktoken, openai_public.py",
            compute=merges_hash,
            needs=VOCABULARY,
        ),
        Check(
            name="SHA-256 of encoder.json",
            published="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
            source="tiktoken, openai_public.py",
            compute=ids_hash,
            needs=VOCABULARY,
        ),
    ),
)
