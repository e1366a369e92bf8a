"""The page of `gptexp inspect`: one HTML file with its styles, its program and its data, which loads nothing.

Texts of strangers are in the data only. These are JSON, which a browser does not execute; the program of the page turns
them into text nodes. The content security policy of the page allows this program and these styles by their checksums,
and nothing else: no other script, no network, and no text that becomes HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files
from string import Template

from gptexp.inspection.view import PageView, to_json
from gptexp.util.text import printable

# In this order: each uses those before it.
SCRIPTS = ("base.js", "text.js", "attention.js", "heads.js", "grids.js", "charts.js", "main.js")
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)


def render(page: PageView) -> str:
    """Return the HTML of the page."""
    style = _template("style.css")
    script = f'(() => {{\n"use strict";\n{"".join(map(_template, SCRIPTS))}}})();\n'
    policy = POLICY.format(script=_checksum(script), style=_checksum(style))
    return Template(_template("page.html")).substitute(
        title=html.escape(printable(page.title)), policy=policy, style=style, script=script, data=to_json(page)
    )


def _template(name: str) -> str:
    return files("gptexp.inspection").joinpath("template", name).read_text(encoding="utf-8")


def _checksum(text: str) -> str:
    """Return the checksum by which a content security policy allows an element with this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
