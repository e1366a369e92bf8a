"""Everything that the page of `gptexp inspect` shows of a run and a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptexp.data.mixture import Texts
from gptexp.evaluation.run_corpus import run_corpus
from gptexp.inspection.difference import difference
from gptexp.inspection.direct import direct_effects
from gptexp.inspection.heads import scores
from gptexp.inspection.knockouts import knock_outs
from gptexp.inspection.lens import lens
from gptexp.inspection.norms import logged_norms
from gptexp.inspection.opening import TOKENS, Request, retokenized, tokens_for
from gptexp.inspection.places import loss_by_place
from gptexp.inspection.predictions import targets_of, token_text, token_views
from gptexp.inspection.trace import Trace, trace
from gptexp.inspection.view import AttentionView, DirectView, HeadView, LensView, PageView, RunView, packed
from gptexp.models.flops import count_parameters
from gptexp.models.gpt import GPT
from gptexp.models.kernels.fastest import fastest_kernels
from gptexp.models.losses import IGNORED
from gptexp.objectives.loading import Opened, open_run
from gptexp.runs.layout import run_folder
from gptexp.tokenizers import Tokenizer
from gptexp.util.files import display_path
from gptexp.util.text import printable, quantity, typed_value

SHOWN = ("kind", "n_layer", "n_head", "n_kv_head", "n_embd", "block_size", "position", "norm", "activation", "window")


def inspect(names: Sequence[str], request: Request) -> PageView:
    """Return the page of one run, or of two on the same text.

    Raises:
        ValueError: a run that can't be opened, or a text that can't be read or encoded.
    """
    first, *others = [open_run(name, request.logs, request.device, request.precision) for name in names]
    corpus, notes = _corpus(first, request, needed=request.prompt is None and request.text is None)
    tokens, source = tokens_for(first, request, corpus)
    views = [run_view(first, tokens, corpus, [source, *notes])]
    for run in others:
        most = min(run.block_size, max(TOKENS, len(tokens)))
        text = retokenized(tokens, first.tokenizer, run.tokenizer, most)
        views.append(run_view(run, text, *_corpus(run, request, needed=False)))
    data = first.tokenizer.decode_bytes(tokens.tolist())
    return PageView(
        title=" and ".join(view.name for view in views),
        runs=views,
        difference=difference(data, views[0].tokens, views[1].tokens) if others else None,
    )


def _corpus(run: Opened, request: Request, *, needed: bool) -> tuple[Texts | None, list[str]]:
    """Return the corpus of a run, or None if it may not be read, and notes. ValueError: it is needed for the text."""
    try:
        options: dict[str, Any] = {"logs": request.logs, "cache": request.cache, "trust_data": request.trust_data}
        corpus = run_corpus(run, **options, instead="give a text with --text FILE or --prompt TEXT")
    except (ValueError, OSError) as error:
        if needed:
            raise
        return None, [f"No loss by place, which needs the validation text: {error}"]
    changed = corpus.fingerprint != run.checkpoint.data.get("fingerprint")
    return corpus, ["The corpus has changed since the run was trained."] if changed else []


def run_view(run: Opened, tokens: Tensor, corpus: Texts | None, notes: list[str]) -> RunView:
    """Return what the page shows of a run and of tokens (T,)."""
    with run.placement.context():
        return _view(run, tokens.to(run.placement.device), corpus, notes)


def _view(run: Opened, tokens: Tensor, corpus: Texts | None, notes: list[str]) -> RunView:
    targets, tokenizer = targets_of(tokens, run.tokenizer.eot), run.tokenizer
    with torch.no_grad(), fastest_kernels(run.model, tokens.device.type):
        traced = trace(run.model, tokens) if isinstance(run.model, GPT) else None
        logits = traced.logits if traced else run.model(tokens[None])[0]  # (T, V)
        attention = attention_view(traced, targets) if traced else None
    views = token_views(tokenizer, tokens, targets, logits)
    losses = [view.loss for view in views if view.loss is not None]
    if attention is None:
        notes = [*notes, "No attention, lens and direct effects: the model is no GPT."]
    elif attention.knockout_tokens < attention.length:
        notes = [*notes, f"Knock-outs: on the first {attention.knockout_tokens} tokens only; more would take minutes."]
    store = next(iter(corpus.stores("val").values())) if corpus else None
    folder = run_folder(run.path)
    return RunView(
        name=printable(display_path(folder) if folder else run.name),
        settings=_settings(run),
        notes=[printable(note) for note in notes],
        loss=sum(losses) / len(losses) if losses else None,
        tokens=views,
        attention=attention,
        lens=lens_view(traced, targets, tokenizer) if traced else None,
        direct=direct_view(traced) if traced else None,
        places=loss_by_place(run.model, tokenizer, store, run.block_size) if store else None,
        norms=logged_norms(folder) if folder else None,
    )


def attention_view(traced: Trace, targets: Tensor) -> AttentionView:
    """Return weights, scores and knock-outs of every head."""
    layers, heads = len(traced.layers), traced.model.config.n_head
    nats, used = knock_outs(traced, targets)
    table = []
    for index, layer in enumerate(traced.layers):
        columns = scores(layer.weights, traced.tokens)
        columns["knockout"] = nats[index] / math.log(2)
        for head in range(heads):
            row = {name: None if column is None else float(column[head]) for name, column in columns.items()}
            table.append(HeadView(layer=index, head=head, **row))
    weights = packed(torch.stack([layer.weights for layer in traced.layers]).float().cpu().numpy())
    return AttentionView(
        layers=layers,
        heads=heads,
        length=len(traced.tokens),
        weights=weights,
        table=table,
        knockout_tokens=used,
    )


def lens_view(traced: Trace, targets: Tensor, tokenizer: Tokenizer) -> LensView:
    """Return the logit lens, by the token that is predicted."""
    likeliest, nats = lens(traced, targets)
    bits, scored = (nats.cpu().double() / math.log(2)).tolist(), (targets != IGNORED).tolist()
    return LensView(
        layers=["embedding", *(f"layer {index}" for index in range(len(traced.layers)))],
        likeliest=[[None, *(token_text(tokenizer, token) for token in row)] for row in likeliest.tolist()],
        loss=[[None, *(b if known else None for b, known in zip(row, scored, strict=True))] for row in bits],
    )


def direct_view(traced: Trace) -> DirectView | None:
    """Return direct logit attribution, by the token that is predicted; None if the model has no sum of parts."""
    effects = direct_effects(traced)
    return DirectView(parts=[*effects], effect=[[None, *row.tolist()] for row in effects.values()]) if effects else None


def _settings(run: Opened) -> list[tuple[str, str]]:
    model, data = run.checkpoint.config["model"], run.checkpoint.config.get("data") or {}
    return [
        ("step", f"{run.checkpoint.step:,}"),
        ("parameters", quantity(count_parameters(run.model))),
        *((f"model.{name}", typed_value(model[name])) for name in SHOWN if model.get(name) is not None),
        ("tokenizer", f"{run.tokenizer.kind}, {run.tokenizer.vocab_size:,} tokens"),
        ("data", typed_value(data.get("kind", "unknown"))),
    ]
