"""report.html: one page with the table, the plots and the samples, which loads nothing from the network.

Names, settings and texts come from untrusted files: jinja2 escapes all of them, and the content security policy of
the page forbids scripts and remote addresses. Its data for `gptexp verify` are JSON, which a browser ignores.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from gptexp.report.columns import Column, better_side, columns, decimals, effect_columns, where_tables
from gptexp.report.comparison import Comparison
from gptexp.report.data_block import with_block
from gptexp.report.effects import main_effects
from gptexp.report.naming import differing, short_names, value_in
from gptexp.report.notes import notes, verdicts
from gptexp.report.reading import last_sample
from gptexp.util.text import printable, visible

WHOLE = ("curves.png", "where.png")  # plots as wide as the page
LONGEST_SAMPLE = 3000  # characters
CAPTIONS = {
    "curves.png": "The validation metric against steps, tokens, time and compute: mean, and lowest to highest seed.",
    "ablation.png": "The metric against the setting: mean with its 95% interval, and each seed as a circle.",
    "where.png": "The difference of the loss to the baseline in each bin of validation tokens, with its 95% interval.",
    "pareto.png": "The metric against training compute; the line joins the Pareto frontier.",
}


def page(c: Comparison, images: Mapping[str, bytes]) -> str:
    """Return the page as HTML. images: PNG files by name."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    template = environment.from_string(files("gptexp.report").joinpath("page.html").read_text(encoding="utf-8"))
    names = ", ".join(short_names(c.keys).values())
    html = template.render(
        title=f"{c.metric} by {names}" if names else c.metric,
        subtitle=f"{len(c.rows)} configurations, {len(c.runs)} runs; {better_side(c.metric)} is better",
        verdicts=[printable(line) for line in verdicts(c)],
        columns=columns(c),
        rows=list(_rows(c)),
        sections={
            "Main effects": [_small_table("", effect_columns(effect, decimals(c))) for effect in main_effects(c)],
            "Where the difference lies": [_small_table(*table) for table in where_tables(c)],
        },
        notes=[printable(line) for line in notes(c)],
        images=[_image(name, data) for name, data in images.items()],
        samples=list(_samples(c)),
        left_out=[{"folder": printable(str(run.folder)), "reason": printable(run.reason)} for run in c.left_out],
        differing=list(_differing(c)),
    )
    return with_block(html, c)


def _rows(c: Comparison) -> Iterator[dict[str, Any]]:
    for row, cells in zip(c.rows, _cells(columns(c)), strict=True):
        yield {"cells": cells, "is_baseline": row is c.baseline}


def _small_table(caption: str, table: Sequence[Column]) -> dict[str, Any]:
    return {"caption": printable(caption), "columns": table, "rows": _cells(table)}


def _cells(table: Sequence[Column]) -> list[list[dict[str, str]]]:
    """The cells of each row, with the name of their column for narrow screens."""
    return [
        [{"name": column.name, "kind": column.kind, "text": column.cells[index]} for column in table]
        for index in range(len(table[0].cells))
    ]


def _image(name: str, data: bytes) -> dict[str, str]:
    shape = "whole" if name in WHOLE else "half"
    return {"data": base64.b64encode(data).decode(), "text": CAPTIONS[name], "shape": shape}


def _samples(c: Comparison) -> Iterator[dict[str, Any]]:
    """The last sample of the run with the lowest seed of each row."""
    for row in c.rows:
        run = row.readings[0].run if row.readings else None
        text = last_sample(run.folder) if run else ""
        cut = text if len(text) <= LONGEST_SAMPLE else f"{text[:LONGEST_SAMPLE]} …"
        yield {"label": row.label, "seed": run.seed if run else None, "text": visible(cut)}


def _differing(c: Comparison) -> Iterator[str]:
    for key in differing([row.settings for row in c.rows]):
        values = "; ".join(f"{row.label}: {value_in(row.settings, key)}" for row in c.rows)
        yield printable(f"{key} · {values}")
