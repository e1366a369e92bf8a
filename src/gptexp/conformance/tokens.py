"""Worked examples of byte-pair encoding, and the GPT-2 tokens of known strings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from gptexp.config.tokenizer import BPEConfig, GPT2TokenizerConfig
from gptexp.conformance.check import Area, Check, Inputs, Need
from gptexp.tokenizers import Tokenizer, gpt2, train_tokenizer

MINBPE = "aaabdaaabac"
VOCABULARY = frozenset({Need.vocabulary})


def trained_bpe(_: Inputs) -> tuple[int, ...]:
    """Train three merges on the text of minbpe, and return the text encoded with them."""
    tokenizer = train_tokenizer(BPEConfig(vocab_size=256 + 3 + 1), [MINBPE], [MINBPE])  # 1: <|endoftext|>
    return tuple(tokenizer.encode(MINBPE).tolist())


def gpt2_tokens(text: str) -> Callable[[Inputs], tuple[int, ...]]:
    return lambda _: tuple(_gpt2().encode(text).tolist())


def _gpt2() -> Tokenizer:
    return train_tokenizer(GPT2TokenizerConfig())


def end_of_text(_: Inputs) -> int:
    eot = _gpt2().eot
    assert eot is not None
    return eot


def merges_hash(_: Inputs) -> str:
    """Return the SHA-256 of the file with the merges."""
    return hashlib.sha256(gpt2.vocab_bpe()).hexdigest()


def ids_hash(_: Inputs) -> str:
    """Return the SHA-256 of OpenAI's other file, which is computed from the merges."""
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
    note="The byte-pair encoding splits a text into words first, as GPT-2 does. The example of minbpe is one word, so "
    "both agree. Bytes are 0 to 255, and merges begin at 256. The other rows are the vocabulary of GPT-2.",
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
