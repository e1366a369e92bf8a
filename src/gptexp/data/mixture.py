"""Mixtures: several corpora by one tokenizer, and the order that gives each its share of the windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gptexp.config import DataConfig, MixtureConfig
from gptexp.config.conversion import errors_of_part
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.data.apportionment import Apportionment
from gptexp.data.cache import TOKENIZER, digest, lock, read_tokenizer, request_digest, write_tokenizer
from gptexp.data.corpora.mixture import MixtureCorpus
from gptexp.data.make_shards import train_text, whole_text
from gptexp.data.order import WindowOrder
from gptexp.data.prepare import TextData, prepare, source_of
from gptexp.data.prepared import DataFacts
from gptexp.data.shards import TokenStore
from gptexp.data.split import first_bytes
from gptexp.tokenizers import Tokenizer, needs_training, train_tokenizer

LEARNED = 100_000_000  # most bytes that a tokenizer is trained on, if its settings do not say


class MixtureOrder:
    """Start positions of the training windows of a mixture, by sample of the run, in the parts' tokens joined.

    Sample k is the jth window of a part: `shares` gives part and j, and the order of that part alone gives the window.
    All three are pure functions of (seed, k) with random access.
    """

    def __init__(self, orders: Sequence[WindowOrder], shares: Apportionment) -> None:
        self.orders, self.shares = list(orders), shares
        self.block_size, self.seed = orders[0].block_size, orders[0].seed
        self._offsets = np.cumsum([0] + [order.n_tokens for order in orders])

    def starts(self, first: int, count: int) -> np.ndarray:
        """Return the starts of samples first … first + count - 1, (count,) int64."""
        parts, numbers = self.shares.parts(first, count)
        result = np.empty(count, dtype=np.int64)
        for i, order in enumerate(self.orders):
            rows = np.flatnonzero(parts == i)
            if len(rows):
                result[rows] = order.starts(int(numbers[rows[0]]), len(rows)) + self._offsets[i]
        return result

    def epochs(self, samples: int) -> list[float]:
        """Return how often each part has been used after so many samples."""
        counts = self.shares.counts(samples)
        return [count / order.windows_per_epoch for count, order in zip(counts, self.orders, strict=True)]

    def first_repeated(self) -> tuple[int, int]:
        """Return the first sample that uses a window of its part again, and that part."""
        total = self.shares.total
        most = [order.windows_per_epoch for order in self.orders]

        def repeats(samples: int) -> bool:
            return any(count > limit for count, limit in zip(self.shares.counts(samples), most, strict=True))

        pairs = zip(most, self.shares.weights, strict=True)
        # A count is at most one below its share.
        low, high = 0, min((limit + 2) * total // weight for limit, weight in pairs) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if repeats(middle) else (middle, high)
        return low, int(self.shares.parts(low, 1)[0][0])


class MixedTokens:
    """The tokens of several stores as one sequence; a window that passes the end of a store continues at its start."""

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        self.stores = list(stores)
        self._ends = np.cumsum([0] + [len(store) for store in stores])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return the windows at `starts`, (len(starts), length) int64."""
        result = np.empty((len(starts), length), dtype=np.int64)
        places = np.searchsorted(self._ends, starts, side="right") - 1
        for i in np.unique(places):
            rows = np.flatnonzero(places == i)
            result[rows] = self.stores[i].windows(starts[rows] - self._ends[i], length)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureData:
    """Corpora by one tokenizer: a `PreparedData`. parts: by name. weights: of the parts, in their order.

    The fingerprints do not depend on the weights: with other weights, the tokens and the validation text are the same.
    """

    tokenizer: Tokenizer
    parts: dict[str, TextData]
    weights: list[float]
    folder: Path

    @property
    def train(self) -> MixedTokens:
        return MixedTokens([part.train for part in self.parts.values()])

    @property
    def val(self) -> MixedTokens:
        return MixedTokens([part.val for part in self.parts.values()])

    @property
    def fingerprint(self) -> str:
        return digest({name: part.fingerprint for name, part in self.parts.items()})

    @property
    def text_sha256(self) -> str:
        return digest({name: part.text_sha256 for name, part in self.parts.items()})

    @property
    def val_text_bytes(self) -> int:
        return sum(part.val_text_bytes for part in self.parts.values())

    @property
    def shares(self) -> list[float]:
        """The share of each part in the windows; their sum is 1."""
        return [weight / math.fsum(self.weights) for weight in self.weights]

    @property
    def bytes_per_token(self) -> float:
        """Bytes per training token, each part by its share of the windows."""
        parts = zip(self.shares, self.parts.values(), strict=True)
        return math.fsum(share * part.bytes_per_token for share, part in parts)

    @property
    def facts(self) -> DataFacts:
        return DataFacts(fingerprint=self.fingerprint, text_sha256=self.text_sha256)

    def stores(self, split: str) -> dict[str, TokenStore]:
        """Return the tokens of a split, train or val, of each part."""
        return {name: part.stores(split)[""] for name, part in self.parts.items()}

    def order(self, block_size: int, seed: int) -> MixtureOrder:
        """Return the order of the training windows."""
        orders = [part.order(block_size, seed) for part in self.parts.values()]
        return MixtureOrder(orders, Apportionment.of(self.weights))


Texts = TextData | MixtureData


def prepare_texts(
    data: DataConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    cache: Path,
    progress: bool = True,
    *,
    block_size: int = 1,
) -> Texts:
    """Open the token shards of a corpus or of all parts of a mixture. Arguments and errors as of `prepare`."""
    if isinstance(data, MixtureConfig):
        return prepare_mixture(data, tokenizer, cache, progress, block_size=block_size)
    return prepare(data, tokenizer, cache, progress, block_size=block_size)


def prepare_mixture(
    mixture: MixtureConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    cache: Path,
    progress: bool = True,
    *,
    block_size: int = 1,
) -> MixtureData:
    """Open the token shards of every part, after making those that are not in the cache. Arguments as of `prepare`.

    A part has the folder that its corpus has alone with the same tokenizer.

    Raises:
        ValueError: naming the part, as `prepare`.
        OSError: the disk is full.
    """
    corpus = MixtureCorpus(mixture, cache)
    corpus.check()
    if not isinstance(tokenizer, Tokenizer):
        trained = needs_training(tokenizer)
        tokenizer = _trained_tokenizer(corpus, tokenizer, cache) if trained else train_tokenizer(tokenizer)
    parts = {}
    for name, part in corpus.configs.items():
        with errors_of_part(name):
            parts[name] = prepare(part, tokenizer, cache, progress, block_size=block_size)
    return MixtureData(tokenizer=tokenizer, parts=parts, weights=list(mixture.weights.values()), folder=cache)


def _trained_tokenizer(corpus: MixtureCorpus, config: TokenizerConfig, cache: Path) -> Tokenizer:
    """Return the tokenizer of all parts, after training it if it is not in the cache.

    Each part counts equally, whatever the weights: runs with other weights have the same tokens.
    """
    sources = [source_of(corpus.configs[name], part) for name, part in corpus.parts.items()]
    folder = cache / f"mixture-{config.kind}-{request_digest(digest(sources), config)[:12]}"
    with lock(folder):
        if not (folder / TOKENIZER).exists():
            pairs = [(part, corpus.configs[name]) for name, part in corpus.parts.items()]
            texts = [partial(train_text, part, settings) for part, settings in pairs]
            learned = balanced(texts, getattr(config, "train_bytes", LEARNED))
            whole = (text for part, settings in pairs for text in whole_text(part, settings))
            made = train_tokenizer(config, learned, whole)
            corpus.require_unchanged()
            folder.mkdir(parents=True, exist_ok=True)
            write_tokenizer(folder, made)
    return read_tokenizer(folder)


def balanced(texts: Sequence[Callable[[], Iterator[str]]], limit: int) -> Iterator[str]:
    """Yield the beginning of each text, then shorter ones again until all have equally many bytes; at most `limit`."""
    given = [0] * len(texts)
    for i, text in enumerate(texts):
        for piece in _beginning(text(), limit // len(texts)):
            given[i] += len(piece.encode())
            yield piece
    for text, had in zip(texts, given, strict=True):
        missing = max(given) - had if had else 0
        while missing >= 4:  # fewer bytes may be less than a character
            for piece in _beginning(text(), missing):
                missing -= len(piece.encode())
                yield piece


def _beginning(pieces: Iterator[str], limit: int) -> Iterator[str]:
    for piece in pieces:
        cut = first_bytes(piece, limit)
        limit -= len(cut.encode())
        if cut:
            yield cut
        if len(cut) < len(piece):
            return
