"""Writing with a model: texts that grow side by side, a token at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gptexp.generation.sampling import require_valid, sample_token
from gptexp.models import reference

Tokens = Sequence[int]


class Decoder(ABC):
    """Sequences of tokens, and what a model says comes next in each."""

    def __init__(self, prompts: Sequence[Tokens]) -> None:
        self.sequences = [list(prompt) for prompt in prompts]

    @abstractmethod
    def next_logits(self) -> Tensor:
        """Logits (B, V) of the token after each sequence; called once for each token that is appended."""

    def append(self, tokens: Tokens) -> None:
        """One more token for each sequence."""
        for sequence, token in zip(self.sequences, tokens, strict=True):
            sequence.append(token)

    def keep(self, rows: list[int]) -> None:
        """Go on with these sequences only."""
        self.sequences = [self.sequences[row] for row in rows]


# Inference mode is entered for each pass, not around a loop: a generator that pauses inside it would
# leave its caller in inference mode.


class CachedDecoder(Decoder):
    """By way of a KV cache: a new token costs one pass over one token.

    The model sees at most its last block_size tokens, and its window moves in jumps: when block_size tokens
    are held, the last half of them (at least one) is encoded anew at the positions from 0. So learned
    positions mean what they meant in training, and such a pass comes once in half a window. A sequence's
    text doesn't depend on those beside it.
    """

    def __init__(self, model: Any, prompts: Sequence[Tokens], max_new_tokens: int) -> None:
        super().__init__(prompts)
        self.model, self.block_size = model, model.config.block_size
        with torch.inference_mode():
            self.cache = model.new_cache(len(prompts), max(map(len, prompts)) + max_new_tokens)

    @torch.inference_mode()
    def next_logits(self) -> Tensor:
        if not any(self.cache.lengths):
            return self._encode(self.cache, [sequence[-self.block_size :] for sequence in self.sequences])
        self._make_room()
        return self.model(_tensor(self.model, [sequence[-1:] for sequence in self.sequences]), self.cache)[:, 0]

    def keep(self, rows: list[int]) -> None:
        super().keep(rows)
        with torch.inference_mode():
            self.cache.keep(rows)

    def _encode(self, cache: Any, windows: list[list[int]]) -> Tensor:
        """Let an empty cache hold these windows; what follows each: (B, V).

        Short ones are padded at their end, where no real token looks; the next token takes the first pad's place.
        """
        lengths = [len(window) for window in windows]
        padded = [window + [0] * (max(lengths) - len(window)) for window in windows]
        ends = _tensor(self.model, [lengths])[0] - 1
        logits = self.model(_tensor(self.model, padded), cache, at=ends)[:, 0]
        cache.lengths = lengths
        return logits

    def _make_room(self) -> None:
        """Where block_size tokens are held, hold the last half, but for the newest token, which comes next."""
        full = [row for row, length in enumerate(self.cache.lengths) if length == self.block_size]
        if full:
            half = max(1, self.block_size // 2)
            anew = self.model.new_cache(len(full), half)
            if half > 1:
                self._encode(anew, [self.sequences[row][-half:-1] for row in full])
            self.cache.replace(full, anew)


class RecomputingDecoder(Decoder):
    """For models without a cache: each token costs a pass over the last block_size tokens."""

    def __init__(self, model: Any, prompts: Sequence[Tokens]) -> None:
        super().__init__(prompts)
        self.model = model

    @torch.inference_mode()
    def next_logits(self) -> Tensor:
        windows = [sequence[-self.model.config.block_size :] for sequence in self.sequences]
        longest = max(map(len, windows))
        padded = _tensor(self.model, [window + [0] * (longest - len(window)) for window in windows])
        ends = torch.tensor([len(window) - 1 for window in windows])
        return self.model(padded)[torch.arange(len(windows)), ends]


class ReferenceDecoder(Decoder):
    """By gptexp.models.reference, in float32 and without a cache; its window moves as the cached decoder's does."""

    def __init__(self, model: Any, prompts: Sequence[Tokens]) -> None:
        super().__init__(prompts)
        self.config = model.config
        reference.require_gpt(self.config)
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


def _tensor(model: nn.Module, tokens: list[list[int]]) -> Tensor:
    return torch.tensor(tokens, dtype=torch.int64, device=next(model.parameters()).device)


def make_decoder(model: nn.Module, prompts: Sequence[Tokens], max_new_tokens: int) -> Decoder:
    """The decoder that a model can have. ValueError: a prompt without tokens."""
    if not prompts or not all(prompts):
        raise ValueError("the prompt has no tokens; give at least one")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens}: must be at least 0")
    if hasattr(model, "new_cache"):
        return CachedDecoder(model, prompts, max_new_tokens)
    return RecomputingDecoder(model, prompts)


class Writing:
    """Tokens of several texts as they come: iterates over (text, token), a token of each text in turn.

    Args:
        generators: one for each text, so that a text is the same whatever is written beside it.
        stop_token: ends a text, and isn't given.
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
            texts, logits = list(self.live), self.decoder.next_logits()
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
        """No more tokens of this text are wanted."""
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
    """Yield up to max_new_tokens that continue the prompt; `settings` as for `Writing`.

    The model is in eval mode from the first token to the end (or `close()`) of the iterator, and then
    as it was. Wrong arguments raise ValueError at the call.
    """
    decoder = make_decoder(model, [prompt], max_new_tokens)
    writing = Writing(decoder, [generator], max_new_tokens=max_new_tokens, **settings)

    def stream() -> Iterator[int]:
        with eval_mode(model):
            for _, token in writing:
                yield token

    return stream()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode for a while, and each of its modules as it was afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
