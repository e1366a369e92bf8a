"""report.html: one page that holds everything, and asks nothing of the network.

Names, settings and texts come from files that anybody may have written: jinja2 escapes all of them, and the page's
own policy forbids scripts and foreign addresses besides.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from gptexp.report.cells import better_side, columns, decimals, effect_columns
from gptexp.report.comparison import Comparison
from gptexp.report.effects import Effect, main_effects
from gptexp.report.naming import differing, short_names, value_in
from gptexp.report.notes import notes, verdicts
from gptexp.report.reading import last_sample
from gptexp.util.text import printable

LONGEST_SAMPLE = 3000  # characters
CAPTIONS = {
    "curves.png": "The validation metric against steps, tokens, time and compute: mean, and lowest to highest seed.",
    "ablation.png": "The metric against the setting: mean with its 95% interval, and each seed as a circle.",
    "pareto.png": "The metric against training compute; the line joins what no other configuration beats in both.",
}


def page(c: Comparison, images: Mapping[str, bytes]) -> str:
    """The page, as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    template = environment.from_string(files("gptexp.report").joinpath("page.html").read_text(encoding="utf-8"))
    names = ", ".join(short_names(c.keys).values())
    return template.render(
        title=f"{c.metric} by {names}" if names else c.metric,
        subtitle=f"{len(c.rows)} configurations, {len(c.runs)} runs; {better_side(c.metric)} is better",
        verdicts=[printable(line) for line in verdicts(c)],
        columns=columns(c),
        rows=list(_rows(c)),
        effects=[_effect(effect, decimals(c)) for effect in main_effects(c)],
        notes=[printable(line) for line in notes(c)],
        images=[_image(name, data) for name, data in images.items()],
        samples=list(_samples(c)),
        left_out=[{"folder": printable(str(lost.folder)), "reason": printable(lost.reason)} for lost in c.left_out],
        differing=list(_differing(c)),
    )


def _rows(c: Comparison) -> Iterator[dict[str, Any]]:
    shown = columns(c)
    for index, row in enumerate(c.rows):
        cells = [{"name": column.name, "kind": column.kind, "text": column.cells[index]} for column in shown]
        yield {"cells": cells, "is_baseline": row is c.baseline}


def _effect(effect: Effect, places: int) -> dict[str, Any]:
    shown = effect_columns(effect, places)
    rows = [
        [{"name": column.name, "kind": column.kind, "text": column.cells[index]} for column in shown]
        for index in range(len(effect.levels))
    ]
    return {"columns": shown, "rows": rows}


def _image(name: str, data: bytes) -> dict[str, str]:
    shape = "whole" if name == "curves.png" else "half"
    return {"data": base64.b64encode(data).decode(), "text": CAPTIONS[name], "shape": shape}


def _samples(c: Comparison) -> Iterator[dict[str, Any]]:
    """What the run of the lowest seed wrote last."""
    for row in c.rows:
        run = row.readings[0].run if row.readings else None
        text = last_sample(run.folder) if run else ""
        cut = text if len(text) <= LONGEST_SAMPLE else f"{text[:LONGEST_SAMPLE]} …"
        yield {"label": row.label, "seed": run.seed if run else None, "text": _visible(cut)}


def _visible(text: str) -> str:
    """Line breaks and tabs stay; other control characters, right-to-left marks among them, are shown as escapes."""
    return "".join(character if character in "\n\t" else printable(character) for character in text)


def _differing(c: Comparison) -> Iterator[str]:
    for key in differing([row.settings for row in c.rows]):
        values = "; ".join(f"{row.label}: {value_in(row.settings, key)}" for row in c.rows)
        yield printable(f"{key} · {values}")
