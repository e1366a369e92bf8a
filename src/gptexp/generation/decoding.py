"""Decoding: generate several texts at once, token by token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gptexp.config.model import GPTConfig, ModelConfig
from gptexp.generation.few_rows import fast_linear
from gptexp.generation.sampling import require_valid, sample_token
from gptexp.generation.streaming import TextStream, UntilStop
from gptexp.machine.hardware import GIB, free_memory
from gptexp.models import reference
from gptexp.models.kv_cache import KVCache
from gptexp.models.placement import device_of
from gptexp.tokenizers import Tokenizer
from gptexp.util.seeds import seed_generator

Tokens = Sequence[int]
MOST_TEXTS, MOST_TEXTS_GPU = 32, 256  # that are generated together
CACHE, SHARE = 2 * GIB, 0.25  # most memory of their keys and values; on a GPU the share of what is free


class Decoder(ABC):
    """Sequences of tokens, and the logits of the next token of each."""

    def __init__(self, prompts: Sequence[Tokens]) -> None:
        self.sequences = [list(prompt) for prompt in prompts]

    @abstractmethod
    def next_logits(self) -> Tensor:
        """Return the logits (B, V) of the token after each sequence; called once per appended token."""

    def append(self, tokens: Tokens) -> None:
        """Append one token to each sequence."""
        for sequence, token in zip(self.sequences, tokens, strict=True):
            sequence.append(token)

    def keep(self, rows: list[int]) -> None:
        """Keep only these sequences."""
        self.sequences = [self.sequences[row] for row in rows]


# Inference mode is entered for each forward pass and not around a loop, because a generator that pauses inside it
# leaves its caller in inference mode.


class CachingModel(Protocol):
    """A model with a KV cache. at: positions (B,) whose logits are computed, as logits (B, 1, V)."""

    def new_cache(self, batch_size: int, size: int | None = None) -> KVCache: ...
    def __call__(self, tokens: Tensor, cache: KVCache, at: Tensor | None = None) -> Tensor: ...


class CachedDecoder(Decoder):
    """Decodes with a KV cache: a new token needs a forward pass over one token.

    The model sees at most the last block_size tokens. When the cache has block_size tokens, the last half of them (at
    least one) is encoded again at the positions from 0, so that learned positions mean the same as in training. This
    happens once per half window. The text of a sequence does not depend on the other sequences.
    """

    def __init__(self, model: nn.Module, prompts: Sequence[Tokens], max_new_tokens: int) -> None:
        super().__init__(prompts)
        self.model, self.block_size = cast(CachingModel, model), _config(model).block_size
        self.device = device_of(model)
        self.products = fast_linear(self.device)
        with torch.inference_mode():
            self.cache = self.model.new_cache(len(prompts), max(map(len, prompts)) + max_new_tokens)

    @torch.inference_mode()
    def next_logits(self) -> Tensor:
        with self.products:
            return self._next_logits()

    def _next_logits(self) -> Tensor:
        if not any(self.cache.lengths):
            return self._encode(self.cache, [sequence[-self.block_size :] for sequence in self.sequences])
        self._shorten_full_rows()
        return self.model(self._tensor([sequence[-1:] for sequence in self.sequences]), self.cache)[:, 0]

    def keep(self, rows: list[int]) -> None:
        super().keep(rows)
        with torch.inference_mode():
            self.cache.keep(rows)

    def _encode(self, cache: KVCache, windows: list[list[int]]) -> Tensor:
        """Encode windows into an empty cache; return the logits of the token after each, (B, V).

        Short windows are padded at the end, which no real token attends to; the next token replaces the first padding.
        """
        lengths = [len(window) for window in windows]
        padded = [window + [0] * (max(lengths) - len(window)) for window in windows]
        ends = self._tensor([lengths])[0] - 1
        logits = self.model(self._tensor(padded), cache, at=ends)[:, 0]
        cache.lengths = lengths
        return logits

    def _shorten_full_rows(self) -> None:
        """Where the cache has block_size tokens, encode the last half again, without the newest token."""
        full = [row for row, length in enumerate(self.cache.lengths) if length == self.block_size]
        if full:
            half = max(1, self.block_size // 2)
            anew = self.model.new_cache(len(full), half)
            if half > 1:
                self._encode(anew, [self.sequences[row][-half:-1] for row in full])
            self.cache.replace(full, anew)

    def _tensor(self, tokens: list[list[int]]) -> Tensor:
        return torch.tensor(tokens, dtype=torch.int64, device=self.device)


class RecomputingDecoder(Decoder):
    """Decodes without a cache: each token needs a forward pass over the last block_size tokens."""

    def __init__(self, model: nn.Module, prompts: Sequence[Tokens]) -> None:
        super().__init__(prompts)
        self.model, self.block_size = model, _config(model).block_size

    @torch.inference_mode()
    def next_logits(self) -> Tensor:
        windows = [sequence[-self.block_size :] for sequence in self.sequences]
        longest = max(map(len, windows))
        padded = [window + [0] * (longest - len(window)) for window in windows]
        logits: Tensor = self.model(torch.tensor(padded, dtype=torch.int64, device=device_of(self.model)))  # (B, T, V)
        return torch.stack([row[len(window) - 1] for row, window in zip(logits, windows, strict=True)])


class ReferenceDecoder(Decoder):
    """Decodes with gptexp.models.reference, in float32 and without a cache, in the windows of the cached decoder."""

    def __init__(self, model: nn.Module, prompts: Sequence[Tokens]) -> None:
        super().__init__(prompts)
        self.config = reference.require_gpt(_config(model))
        self.weights = {name: weight.detach().float().cpu().numpy() for name, weight in model.named_parameters()}
        self.starts = [max(0, len(prompt) - self.config.block_size) for prompt in prompts]

    def next_logits(self) -> Tensor:
        return torch.stack([self._after(row) for row in range(len(self.sequences))])

    def keep(self, rows: list[int]) -> None:
        super().keep(rows)
        self.starts = [self.starts[row] for row in rows]

    def _after(self, row: int) -> Tensor:
        sequence, block_size = self.sequences[row], self.config.block_size
        if len(sequence) - self.starts[row] > block_size:
            self.starts[row] = len(sequence) - max(1, block_size // 2)
        return torch.from_numpy(reference.logits(self.weights, self.config, sequence[self.starts[row] :])[-1])


def _config(model: nn.Module) -> ModelConfig:
    config = model.config
    assert isinstance(config, ModelConfig)
    return config


def make_decoder(model: nn.Module, prompts: Sequence[Tokens], max_new_tokens: int) -> Decoder:
    """Return the fastest decoder that a model supports. ValueError: a prompt without tokens."""
    if not prompts or not all(prompts):
        raise ValueError("the prompt has no tokens; give at least one")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens}: must be at least 0")
    if hasattr(model, "new_cache"):
        return CachedDecoder(model, prompts, max_new_tokens)
    return RecomputingDecoder(model, prompts)


def texts_that_fit(model: nn.Module, length: int) -> int:
    """Return how many texts of at most so many tokens are generated together; at least one.

    It follows from the memory of a GPU. Elsewhere it is the same on every machine.
    """
    config, cuda = _config(model), device_of(model).type == "cuda"
    most, memory = (MOST_TEXTS_GPU, int(SHARE * free_memory("cuda"))) if cuda else (MOST_TEXTS, CACHE)
    if not isinstance(config, GPTConfig):
        return most
    numbers = 2 * config.n_layer * config.kv_heads * config.head_dim * min(length, config.block_size)  # of one text
    return max(1, min(most, memory // (4 * numbers)))


class Generation:
    """Generates several texts at once: iterates over (index of the text, token).

    Args:
        generators: one for each text, so that a text does not depend on the others.
        stop_token: ends a text; it is not yielded.
        temperature, top_k, top_p: as for `sample_token`.
    """

    def __init__(
        self,
        decoder: Decoder,
        generators: Sequence[torch.Generator | None],
        *,
        max_new_tokens: int,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        stop_token: int | None = None,
    ) -> None:
        require_valid(temperature, top_k, top_p)
        self.decoder, self.generators = decoder, generators
        self.max_new_tokens, self.stop_token = max_new_tokens, stop_token
        self.choice = (temperature, top_k, top_p)
        self.live = list(range(len(generators)))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for _ in range(self.max_new_tokens):
            texts, logits = list(self.live), self.decoder.next_logits().cpu()  # all at once
            drawn = [
                sample_token(row, *self.choice, generator=self.generators[text])
                for text, row in zip(texts, logits, strict=True)
            ]
            for text, token in zip(texts, drawn, strict=True):
                if token == self.stop_token:
                    self.end(text)
                else:
                    yield text, token
            self.decoder.append(drawn)
            if len(self.live) < len(texts):
                self.decoder.keep([texts.index(text) for text in self.live])
            if not self.live:
                return

    def end(self, text: int) -> None:
        """Generate no more tokens of this text."""
        if text in self.live:
            self.live.remove(text)


def stream_tokens(
    model: nn.Module,
    prompt: Tokens,
    *,
    max_new_tokens: int,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> Iterator[int]:
    """Yield up to max_new_tokens that continue the prompt; `settings` as for `Generation`.

    The model is in eval mode from the first token to the end (or `close()`) of the iterator; then its mode is restored.
    Invalid arguments raise ValueError at the call.
    """
    decoder = make_decoder(model, [prompt], max_new_tokens)
    generation = Generation(decoder, [generator], max_new_tokens=max_new_tokens, **settings)

    def stream() -> Iterator[int]:
        with eval_mode(model):
            for _, token in generation:
                yield token

    return stream()


def stream_texts(
    decoder: Decoder,
    tokenizer: Tokenizer,
    seeds: Sequence[int],
    *,
    stops: Sequence[str] = (),
    plain: bool = True,
    **settings: Any,
) -> Iterator[tuple[int, str]]:
    """Yield (index of a text, a piece of it) of texts that are generated together, without the string that ends one.

    seeds: one for each text. stops: strings that end a text, as <|endoftext|> does. plain: as for `TextStream`.
    settings: as for `Generation`.
    """
    generators = [seed_generator(torch.Generator(), seed) for seed in seeds]
    generation = Generation(decoder, generators, stop_token=tokenizer.eot, **settings)
    streams = [(TextStream(tokenizer.decode_bytes, plain=plain), UntilStop(stops)) for _ in seeds]
    for text, token in generation:
        stream, until = streams[text]
        yield text, until.push(stream.push([token]))
        if until.found:
            generation.end(text)
    for text, (stream, until) in enumerate(streams):
        yield text, until.push(stream.finish()) + until.finish()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode, and restore the mode of each module afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
