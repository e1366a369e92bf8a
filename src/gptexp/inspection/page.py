"""The page of `gptexp inspect`: one self-contained HTML file around the JSON of view.py."""

from __future__ import annotations

from gptexp.inspection.view import PageView, to_json


def render(page: PageView) -> str:
    """Return the HTML of the page."""
    return f'<!doctype html>\n<script type="application/json" id="view">{to_json(page)}</script>\n'
