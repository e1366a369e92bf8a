"""The same text under two runs, whose tokenizers may differ.

The probability of a stretch of text that begins and ends between tokens of both is the product over its tokens, for
every tokenizer. Therefore the bits of such stretches can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from gptexp.inspection.predictions import in_text
from gptexp.inspection.view import DifferenceView, SpanView, TokenView


def difference(text: bytes, first: Sequence[TokenView], second: Sequence[TokenView]) -> DifferenceView:
    """Return the shortest stretches of the text that begin and end between tokens of both.

    text: the bytes of the tokens of both; the tokens of one may go on after those of the other.
    """
    losses = _losses_by_end(first), _losses_by_end(second)
    ends = sorted(losses[0].keys() & losses[1].keys())
    spans, bounds = [], list(zip([0, *ends], ends, strict=False))
    for (start, end), piece in zip(bounds, in_text([text[start:end] for start, end in bounds]), strict=True):
        bits = [[loss for at, loss in run.items() if start < at <= end] for run in losses]
        a, b = (None, None) if None in bits[0] + bits[1] else (sum(filter(None, run)) for run in bits)
        spans.append(SpanView(text=piece, bytes=end - start, first=a, second=b))
    scored = [(s.bytes, s.first, s.second) for s in spans if s.first is not None and s.second is not None]
    sizes, *sums = map(sum, zip(*scored, strict=True)) if scored else (0,)
    return DifferenceView(spans=spans, bits_per_byte=(sums[0] / sizes, sums[1] / sizes) if scored else None)


def _losses_by_end(tokens: Sequence[TokenView]) -> dict[int, float | None]:
    """Return the loss of each token by the byte at which it ends; tokens without bytes are left out."""
    found, end = {}, 0
    for token in tokens:
        end += token.bytes
        if token.bytes:
            found[end] = token.loss
    return found
