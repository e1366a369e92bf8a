"""Made-up contents of the page of `gptexp inspect`, of any size, with the texts of a stranger."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gptexp.inspection.view import (
    AttentionView,
    DirectView,
    HeadView,
    LensView,
    NormGroup,
    NormsView,
    PageView,
    PlacesView,
    RunView,
    TokenView,
    packed,
)

EVIL = "<script>alert('x')</script>\"'><img src=http://evil.example/x onerror=alert(1)>"
HOSTILE = [
    EVIL,
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "$data ${script} {{ 7 }}",
    "\u202egnirts a\u202c",
    "שלום",
    "\\x00",
    "\x00",
    "\\xf0\\x9f",
    "\\x98\\x80",
    "\u200b",
    "a\nb\tc\r\n",
    "\u2028",
    "x" * 3000,
    " ",
    "",
    "猫坐在垫子上。",
    "👩‍🚀",
    "Z̵̧̛͙͎͉͕͓͍̄̓̀͐̈́a",
    "&lt;b&gt;",
    "'",
    '"',
    "__proto__",
]


def view_of(texts: Sequence[str], layers: int = 2, heads: int = 2, seed: int = 0, *, attention: bool = True) -> RunView:
    """A run with every part, or one without attention and layers as a bigram is."""
    draw = np.random.default_rng(seed)
    length = len(texts)
    tokens = [_token(i, text, texts, draw) for i, text in enumerate(texts)]
    losses = [token.loss for token in tokens if token.loss is not None]
    loss = sum(losses) / len(losses) if losses else None
    parts = [
        "token embedding",
        "position embedding",
        *(f"{kind} {i}" for i in range(layers) for kind in ("attention", "feed-forward")),
    ]
    return RunView(
        name="mini_gpt",
        settings=[("model.n_layer", str(layers)), ("model.n_head", str(heads)), ("data.path", EVIL)],
        notes=[f"A note with {EVIL}"],
        loss=loss,
        tokens=tokens,
        attention=_attention(layers, heads, length, loss, draw) if attention else None,
        lens=_lens(tokens, layers) if attention else None,
        direct=_direct(parts, length, draw) if attention else None,
        places=_places(length, draw),
        norms=_norms(layers) if attention else None,
    )


def page_of(*runs: RunView, title: str = "mini_gpt") -> PageView:
    return PageView(title=title, runs=list(runs))


def _token(i: int, text: str, texts: Sequence[str], draw: np.random.Generator) -> TokenView:
    size = len(text.encode(errors="replace"))
    if i == 0:
        return TokenView(text=text, bytes=size, loss=None, p=None, rank=None, top=[])
    loss = float(draw.gamma(1.6, 1.5))
    p = 2**-loss
    others = [
        (texts[int(draw.integers(len(texts)))], float(q))
        for q in sorted((1 - p) * draw.dirichlet([0.5] * 8), reverse=True)
    ]
    rank = 1 + sum(q > p for _, q in others)
    top = sorted([*others, (text, p)], key=lambda pair: -pair[1])[:5]
    return TokenView(text=text, bytes=size, loss=loss, p=p, rank=rank, top=top)


def _attention(layers: int, heads: int, length: int, loss: float | None, draw: np.random.Generator) -> AttentionView:
    back = np.arange(length)[:, None] - np.arange(length)[None, :]
    weights = np.empty((layers, heads, length, length))
    for layer in range(layers):
        for head in range(heads):
            score = -np.abs(back - draw.integers(0, 5)) * draw.gamma(1, 0.5) + draw.normal(0, 0.6, back.shape)
            score[:, 0] += draw.gamma(1, 3)
            score = np.where(back >= 0, np.exp(score), 0)
            weights[layer, head] = score / score.sum(-1, keepdims=True)
    table = [
        HeadView(
            layer=layer,
            head=head,
            entropy=float(-(w * np.log2(np.maximum(w, 1e-12))).sum(-1).mean()),
            distance=float((w * np.maximum(back, 0)).sum(-1).mean()),
            previous=float(np.diagonal(w, -1).mean()) if length > 1 else None,
            induction=None if head == 0 else float(draw.beta(1, 6)),
            first=float(w[:, 0].mean()),
            knockout=float(draw.gamma(0.4, 0.08) - 0.01) if loss else float("nan"),
        )
        for layer in range(layers)
        for head in range(heads)
        for w in [weights[layer, head]]
    ]
    return AttentionView(
        layers=layers, heads=heads, length=length, weights=packed(weights), table=table, knockout_tokens=length
    )


def _lens(tokens: Sequence[TokenView], layers: int) -> LensView:
    names = ["embedding", *(f"layer {layer}" for layer in range(layers))]
    shares = [1 - i / max(1, layers) for i in range(layers + 1)]
    loss = [[None if t.loss is None else t.loss + 3 * share for t in tokens] for share in shares]
    guess = [[None if not t.top else t.top[int(4 * share)][0] for t in tokens] for share in shares]
    return LensView(layers=names, likeliest=guess, loss=loss)


def _direct(parts: Sequence[str], length: int, draw: np.random.Generator) -> DirectView:
    effect = [[None, *map(float, draw.normal(0.4, 1.2, max(0, length - 1)))][:length] for _ in parts]
    return DirectView(parts=list(parts), effect=effect)


def _places(length: int, draw: np.random.Generator) -> PlacesView:
    loss = [2.6 + 2.2 * math.exp(-i / 9) + float(draw.normal(0, 0.1)) for i in range(length)]
    return PlacesView(loss=[*loss], error=[0.1] * length, count=[64] * length)


def _norms(layers: int) -> NormsView:
    steps = list(range(0, 1000, 50))
    groups = [
        NormGroup(
            name=name,
            weight=[5 + k + step / 400 for step in steps],
            gradient=[(0.1 + k / 9) / (1 + step / 100) for step in steps],
            update=[None if step == 0 else 0.01 / (1 + step / 300 + k) for step in steps],
        )
        for k, name in enumerate(["embeddings", *(f"layer {layer}" for layer in range(layers)), "head"])
    ]
    return NormsView(steps=steps, groups=groups)
