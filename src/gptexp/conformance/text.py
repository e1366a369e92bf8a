"""Tiny Shakespeare: its size, and the losses of what can be counted, scored as validation scores a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from gptexp.conformance.check import Area, Check, Inputs, Need

if TYPE_CHECKING:
    from torch import Tensor

    from gptexp.data.prepare import PreparedData
    from gptexp.data.shards import TokenStore

NEEDS = frozenset({Need.text})
ROUNDED = 5e-5  # half of a published value's fourth decimal
BLOCK = 256  # tokens a window; a table's loss doesn't depend on it

CHAR_RNN = "karpathy/char-rnn, data/tinyshakespeare"
NANOGPT = "nanoGPT, data/shakespeare_char/prepare.py"
COUNTED = "counted on the text; no model, so an exact oracle"


def prepared(inputs: Inputs) -> PreparedData:
    """The text as the package reads, splits and tokenises it."""
    assert inputs.shakespeare is not None
    return _prepared(inputs.shakespeare, inputs.scratch)


@lru_cache(maxsize=1)
def _prepared(shakespeare: Path, scratch: Path) -> PreparedData:
    from gptexp.compose.composition import compose
    from gptexp.data.prepare import prepare

    config = compose(["model=bigram", *data_overrides(shakespeare, scratch)])
    cache = Path(config.paths.cache)
    return prepare(config.data, config.tokenizer, cache, block_size=config.model.block_size)


def data_overrides(shakespeare: Path, scratch: Path) -> list[str]:
    """The whole text, character by character; tokens and runs go below `scratch`."""
    from gptexp.config.override_syntax import quote

    paths = [f"data.path={quote(str(shakespeare))}", f"paths.data={quote(str(scratch / 'data'))}"]
    return ["data=shakespeare", *paths, f"paths.logs={quote(str(scratch / 'logs'))}", "data.val_bytes=null"]


def table_loss(table: Tensor, data: PreparedData, store: TokenStore) -> float:
    """Nats a token of a table (V, V) of next-token logits, over a whole store."""
    import torch

    from gptexp.config import BigramConfig
    from gptexp.evaluation.scoring import score_tokens
    from gptexp.models.bigram import Bigram

    model = Bigram(BigramConfig(block_size=BLOCK), data.tokenizer.vocab_size)
    with torch.no_grad():
        model.wte.weight.copy_(table)
    return score_tokens(model, data.tokenizer, store, block_size=BLOCK).loss


def uniform(inputs: Inputs) -> float:
    """Every symbol is as likely as any other."""
    import torch

    data = prepared(inputs)
    return table_loss(torch.zeros(data.tokenizer.vocab_size, data.tokenizer.vocab_size), data, data.val)


def unigram(inputs: Inputs) -> float:
    """Symbols are as likely as they were in training, whatever stands before."""
    data = prepared(inputs)
    return table_loss(pair_counts(data).sum(0).log().expand(data.tokenizer.vocab_size, -1), data, data.val)


def bigram(part: str) -> Callable[[Inputs], float]:
    """Pairs are as likely as in training, each counted once more (add-one smoothing)."""

    def compute(inputs: Inputs) -> float:
        data = prepared(inputs)
        return table_loss((pair_counts(data) + 1).log(), data, getattr(data, part))

    return compute


def pair_counts(data: PreparedData) -> Tensor:
    """How often symbol j follows symbol i in the training part: (V, V) float64."""
    import numpy as np
    import torch

    size = data.tokenizer.vocab_size
    tokens = data.train.read(0, len(data.train)).astype(np.int64)
    counts = np.bincount(tokens[:-1] * size + tokens[1:], minlength=size * size)
    return torch.from_numpy(counts.reshape(size, size)).double()


def _check(
    name: str, published: int | float | tuple[int, ...], source: str, compute: Callable[..., int | float | tuple]
) -> Check:
    tolerance = ROUNDED if isinstance(published, float) else 0.0
    return Check(name=name, published=published, tolerance=tolerance, source=source, compute=compute, needs=NEEDS)


AREA = Area(
    title="Tiny Shakespeare",
    note="Losses in nats a character. Probabilities are counted on the training part and scored by the package's own "
    "validation, every character but the first.",
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
