"""The content of the page of `gptexp inspect` as plain data, and its JSON.

Letters: T tokens of the text, L layers, H heads of each layer. Layers, heads and tokens are counted from 0. Losses are
in bits. Predictions are listed at the token that they predict, so the first token has none; attention is listed at the
token that attends.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass

import numpy as np

DIGITS = 5  # significant digits of the numbers in the JSON


@dataclass(frozen=True)
class TokenView:
    """A token of the text, and the prediction of it from the tokens before.

    text: to display; line breaks and tabs are kept, other control characters and bytes that are only a part of a
    character are escapes such as \\xe4. bytes: of UTF-8; 0 for <|endoftext|>. loss: -log2 p; None: not scored, as the
    first token and <|endoftext|>. p: probability of the token; rank: 1 if it was the likeliest; None for the first
    token. top: the likeliest tokens and their probabilities, at most 5, the likeliest first. reading: the token in the
    running text if it has a part of a character (`in_text`), else None.
    """

    text: str
    bytes: int
    loss: float | None
    p: float | None
    rank: int | None
    top: list[tuple[str, float]]
    reading: str | None = None


@dataclass(frozen=True, kw_only=True)
class HeadView:
    """An attention head. The scores are defined in heads.py; None if the text has no such token.

    entropy: bits. distance: tokens. previous, induction, first: attention, from 0 to 1. knockout: by how many bits the
    mean loss of the scored tokens is larger while the output of this head is zero; None: no token is scored.
    """

    layer: int
    head: int
    entropy: float | None
    distance: float | None
    previous: float | None
    induction: float | None
    first: float | None
    knockout: float | None


@dataclass(frozen=True, kw_only=True)
class AttentionView:
    """The attention of every head. length: T. weights: by `packed`. table: L * H heads, those of layer 0 first.

    knockout_tokens: of the beginning of the text, from which `HeadView.knockout` is computed.
    """

    layers: int
    heads: int
    length: int
    weights: str
    table: list[HeadView]
    knockout_tokens: int


@dataclass(frozen=True, kw_only=True)
class LensView:
    """What the model would predict if it ended after the embedding or after a layer (lens.py).

    layers: L + 1 names; the last layer is the model. likeliest: text of the likeliest token, (L + 1, T); None for the
    first token. loss: of the true token, (L + 1, T); None where `TokenView.loss` is.
    """

    layers: list[str]
    likeliest: list[list[str | None]]
    loss: list[list[float | None]]


@dataclass(frozen=True, kw_only=True)
class DirectView:
    """What each part adds to the logit of the true token above the mean of all logits (direct.py).

    parts: P names. effect: (P, T), None for the first token.
    """

    parts: list[str]
    effect: list[list[float | None]]


@dataclass(frozen=True, kw_only=True)
class PlacesView:
    """The loss by place in the window, over windows of the validation text; entry i has i + 1 tokens before it.

    loss: mean. error: its standard error. count: windows in which this place was scored; without
    one loss is None (or NaN, which becomes null), without two error is.
    """

    loss: list[float | None]
    error: list[float | None]
    count: list[int]


@dataclass(frozen=True)
class NormGroup:
    """The norms of a group of parameters at each of the steps; None where none was logged."""

    name: str
    weight: list[float | None]
    gradient: list[float | None]
    update: list[float | None]


@dataclass(frozen=True, kw_only=True)
class NormsView:
    """Norms that the run logged while it was trained."""

    steps: list[int]
    groups: list[NormGroup]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A model and its view of the text. None: the model or its run folder has no such thing; `notes` say why.

    settings: names and values to show. loss: mean of the scored tokens of the text.
    """

    name: str
    settings: list[tuple[str, str]]
    notes: list[str]
    loss: float | None
    tokens: list[TokenView]
    attention: AttentionView | None = None
    lens: LensView | None = None
    direct: DirectView | None = None
    places: PlacesView | None = None
    norms: NormsView | None = None


@dataclass(frozen=True, kw_only=True)
class SpanView:
    """A shortest stretch of text that begins and ends between tokens of both runs; with equal tokenizers, a token.

    first, second: bits of each run; None: not scored by both.
    """

    text: str
    bytes: int
    first: float | None
    second: float | None


@dataclass(frozen=True, kw_only=True)
class DifferenceView:
    """The text under both runs. bits_per_byte: of each, over the spans that both score; None if there are none."""

    spans: list[SpanView]
    bits_per_byte: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class PageView:
    """The whole page: one run, or two and their difference. version: of this format."""

    version: int = 1
    title: str
    runs: list[RunView]
    difference: DifferenceView | None = None


def packed(weights: np.ndarray) -> str:
    """Return attention weights (L, H, T, T) as base64 of bytes round(255 * sqrt(w)).

    Only the lower triangle is kept, with its diagonal: row after row, head after head, layer after layer. The root
    keeps small weights visible; the error of a weight w is at most about sqrt(w) / 255.
    """
    rows, columns = np.tril_indices(weights.shape[-1])
    return base64.b64encode(np.rint(255 * np.sqrt(weights[..., rows, columns])).astype(np.uint8).tobytes()).decode()


def to_json(page: PageView) -> str:
    """Return the page as one line of JSON. It contains no <, so it can't end the <script> that embeds it."""
    text = json.dumps(_rounded(asdict(page)), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _rounded(value: object) -> object:
    """Round the numbers; those that are not finite become null."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return value
