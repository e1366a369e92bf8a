"""Writing text with a model: choosing tokens one by one, and making them safe to print."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Decoder = Callable[[list[int]], Tensor]  # all tokens so far -> logits (V,) of the next


def sample_token(
    logits: Tensor,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Draw one token from logits (V,); on the CPU and in float64, so that a seed means the same everywhere.

    Args:
        logits: finite or -inf, on any device.
        temperature: what logits are divided by; 0 takes the likeliest token and draws nothing.
        top_k: only the k likeliest tokens (arXiv 1805.04833); None: all.
        top_p: only the likeliest tokens whose probabilities first reach p together (nucleus sampling,
            arXiv 1904.09751), among what top_k left; None: all.
        generator: a CPU generator; None: torch's global one.

    Raises:
        ValueError: an argument out of range, or logits that make no distribution.
    """
    _require_valid(temperature, top_k, top_p)
    scores, tokens = logits.detach().to("cpu", torch.float64).sort(descending=True, stable=True)  # (V,), (V,)
    if not math.isfinite(scores.max().item()):
        raise ValueError("the model's logits are not finite; was it trained to the end without a NaN?")
    if temperature == 0:
        return int(tokens[0])
    scores = scores[:top_k]
    probabilities = torch.softmax((scores - scores[0]) / temperature, dim=0)
    if top_p is not None:
        before = probabilities.cumsum(0) - probabilities  # what likelier tokens have together; 0 for the first
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    return int(tokens[torch.multinomial(probabilities, 1, generator=generator)])


def stream_tokens(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    stop_token: int | None = None,
) -> Iterator[int]:
    """Yield up to max_new_tokens that continue the prompt; ends before stop_token, which isn't yielded.

    The model sees at most its last block_size tokens. With a KV cache the window moves in jumps: when
    block_size tokens are held, the last half of them (at least one) is encoded anew at the positions
    from 0, so a new token costs one pass over one token and now and then one over half a window.
    A model without `new_cache` reads the last block_size tokens each time.

    The model is in eval mode from the first token to the end (or `close()`) of the iterator, and then
    as it was. Arguments are as for `sample_token`; wrong ones raise ValueError at the call.
    """
    _require_valid(temperature, top_k, top_p)
    if not prompt:
        raise ValueError("the prompt has no tokens; give at least one")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens}: must be at least 0")

    def stream() -> Iterator[int]:
        history = list(prompt)
        with _eval_mode(model):
            next_logits = _cached(model) if hasattr(model, "new_cache") else _recomputed(model)
            for _ in range(max_new_tokens):
                token = sample_token(next_logits(history), temperature, top_k, top_p, generator)
                if token == stop_token:
                    return
                yield token
                history.append(token)

    return stream()


def _require_valid(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature}: must be at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: must be above 0, at most 1")


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


# Inference mode is entered for each pass, not around the loop: a generator that pauses inside it would
# leave its caller in inference mode.


def _cached(model: Any) -> Decoder:
    """Logits by way of a KV cache that holds the history's end."""
    block_size = model.config.block_size
    with torch.inference_mode():
        cache = model.new_cache(1)
    seen = 0  # tokens of the history that the cache has taken in

    @torch.inference_mode()
    def next_logits(history: list[int]) -> Tensor:
        nonlocal seen
        new = history[seen:][-block_size:]
        if cache.length + len(new) > block_size:
            cache.reset()
            new = history[-max(1, block_size // 2) :]
        seen = len(history)
        return model(_batch(model, new), cache)[0, -1]

    return next_logits


def _recomputed(model: Any) -> Decoder:
    @torch.inference_mode()
    def next_logits(history: list[int]) -> Tensor:
        return model(_batch(model, history[-model.config.block_size :]))[0, -1]

    return next_logits


def _batch(model: nn.Module, tokens: list[int]) -> Tensor:
    return torch.tensor([tokens], dtype=torch.int64, device=next(model.parameters()).device)


# Terminal control sequences (ECMA-48, section 5): CSI with parameters; strings (OSC, DCS, SOS, PM, APC) up
# to their terminator on the same line; other escapes of two or more characters. The lengths are bounded, so
# that a stream never holds text back for long.
_CSI = r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}"
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x1b\x07\x9c\n]{0,256}"
_SHORT = r"\x1b[ -/]{0,8}"
_LONG = rf"{_CSI}[@-~]|{_STRING}(?:\x07|\x9c|\x1b\\)"
_ESCAPE = re.compile(rf"{_LONG}|{_SHORT}[0-~]")
# The same, but where the text ends too early to tell: "ESC [" is short by itself and the start of a CSI.
_ESCAPE_OR_OPEN = re.compile(rf"{_LONG}|(?P<open>(?:{_CSI}|{_STRING}\x1b?|{_SHORT})\Z)|{_SHORT}[0-~]")
# C0 but newline and tab, DEL, C1, and the characters that reorder or isolate text (Unicode UAX 9).
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain_text(text: str) -> str:
    """Text without what could drive a terminal: escapes, control characters but newline and tab, bidi overrides."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


class TextStream:
    """Token by token to printable text: never half a character, never a terminal escape.

    What `push` and `finish` give, joined, is `plain_text` of all tokens' bytes decoded as UTF-8, with
    U+FFFD for bytes that are no UTF-8.

    Args:
        decode_bytes: the tokenizer's tokens -> bytes.
    """

    def __init__(self, decode_bytes: Callable[[list[int]], bytes]) -> None:
        self._decode_bytes = decode_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # the end of the text, while it may be the start of an escape

    def push(self, tokens: list[int]) -> str:
        """The text that these tokens complete; often "" within a character of several bytes."""
        return self._emit(self._utf8.decode(self._decode_bytes(tokens)), final=False)

    def finish(self) -> str:
        """What was held back; the stream is as new afterwards."""
        text = self._emit(self._utf8.decode(b"", final=True), final=True)
        self._utf8.reset()
        return text

    def _emit(self, text: str, final: bool) -> str:
        text = self._held + text
        cut = len(text) if final else _end_of_certain(text)
        self._held = text[cut:]
        return plain_text(text[:cut])


def _end_of_certain(text: str) -> int:
    """Where an escape begins that what follows may still complete; the text's end if there is none."""
    starts = (match.start() for match in _ESCAPE_OR_OPEN.finditer(text) if match["open"] is not None)
    return next(starts, len(text))
