"""Tiny Shakespeare: its size, and the losses of counted probabilities, scored like a model in validation."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptexp.compose.composition import compose
from gptexp.config.model import BigramConfig
from gptexp.config.override_syntax import quote
from gptexp.conformance.check import Area, Check, Inputs, Need, Value
from gptexp.data.prepare import TextData, prepare
from gptexp.data.shards import TokenStore
from gptexp.evaluation.scoring import score_tokens
from gptexp.models.bigram import Bigram

NEEDS = frozenset({Need.text})
ROUNDED = 5e-5  # half of the fourth decimal of a published value
BLOCK = 256  # tokens per window; the loss of a table does not depend on it

CHAR_RNN = "karpathy/char-rnn, data/tinyshakespeare"
NANOGPT = "nanoGPT, data/shakespeare_char/prepare.py"
COUNTED = "counted on the text, without a model"


def prepared(inputs: Inputs) -> TextData:
    """Return the text as the package reads, splits and tokenizes it."""
    assert inputs.shakespeare is not None
    return _prepared(inputs.shakespeare, inputs.scratch)


@lru_cache(maxsize=1)
def _prepared(shakespeare: Path, scratch: Path) -> TextData:
    config = compose(["model=bigram", *data_overrides(shakespeare, scratch)])
    cache = Path(config.paths.cache)
    return prepare(config.data, config.tokenizer, cache, block_size=config.model.block_size)


def data_overrides(shakespeare: Path, scratch: Path) -> list[str]:
    """Return the overrides for the whole text by characters, with tokens and runs below `scratch`."""
    paths = [f"data.path={quote(str(shakespeare))}", f"paths.data={quote(str(scratch / 'data'))}"]
    return ["data=shakespeare", *paths, f"paths.logs={quote(str(scratch / 'logs'))}", "data.val_bytes=null"]


def table_loss(table: Tensor, data: TextData, store: TokenStore) -> float:
    """Return the nats per token of a table (V, V) of next-token logits over a whole store."""
    model = Bigram(BigramConfig(block_size=BLOCK), data.tokenizer.vocab_size)
    with torch.no_grad():
        model.wte.weight.copy_(table)
    return score_tokens(model, data.tokenizer, store, block_size=BLOCK).loss


def uniform(inputs: Inputs) -> float:
    """Return the loss of equal probabilities."""
    data = prepared(inputs)
    return table_loss(torch.zeros(data.tokenizer.vocab_size, data.tokenizer.vocab_size), data, data.val)


def unigram(inputs: Inputs) -> float:
    """Return the loss of the frequencies of the symbols in training, without context."""
    data = prepared(inputs)
    return table_loss(pair_counts(data).sum(0).log().expand(data.tokenizer.vocab_size, -1), data, data.val)


def bigram(part: str) -> Callable[[Inputs], float]:
    """Return a function that computes the loss of the pair frequencies in training, with add-one smoothing."""

    def compute(inputs: Inputs) -> float:
        data = prepared(inputs)
        return table_loss((pair_counts(data) + 1).log(), data, getattr(data, part))

    return compute


def pair_counts(data: TextData) -> Tensor:
    """Return how often symbol j follows symbol i in the training part: (V, V) float64."""
    size = data.tokenizer.vocab_size
    tokens = data.train.read(0, len(data.train)).astype(np.int64)
    counts = np.bincount(tokens[:-1] * size + tokens[1:], minlength=size * size)
    return torch.from_numpy(counts.reshape(size, size)).double()


def _check(name: str, published: Value, source: str, compute: Callable[[Inputs], Value]) -> Check:
    tolerance = ROUNDED if isinstance(published, float) else 0.0
    return Check(name=name, published=published, tolerance=tolerance, source=source, compute=compute, needs=NEEDS)


AREA = Area(
    title="Tiny Shakespeare",
    note="Losses in nats per character. Probabilities are counted on the training part and scored by the validation of "
    "the package, on every character except the first.",
    checks=(
        _check("characters", 1_115_394, CHAR_RNN, lambda i: len(prepared(i).train) + len(prepared(i).val)),
        _check("symbols", 65, NANOGPT, lambda i: prepared(i).tokenizer.vocab_size),
        _check(
            "training and validation part",
            (1_003_854, 111_540),
            NANOGPT,
            lambda i: (len(prepared(i).train), len(prepared(i).val)),
        ),
        _check("uniform, validation loss", 4.1744, "the logarithm of 65", uniform),
        _check("unigram, validation loss", 3.3473, COUNTED, unigram),
        _check("bigram, add-one smoothing, training loss", 2.4546, COUNTED, bigram("train")),
        _check("bigram, add-one smoothing, validation loss", 2.4819, COUNTED, bigram("val")),
    ),
)
