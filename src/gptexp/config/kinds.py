"""Kinds of models, tokenizers, corpora and objectives that a user adds as a file of the package."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

from gptexp.config import KINDS
from gptexp.util.package import PACKAGE

# Where an implementation of a group's `kind` lives, and the files there that are none.
PACKAGES = {
    "model": "gptexp.models",
    "tokenizer": "gptexp.tokenizers",
    "data": "gptexp.data.corpora",
    "objective": "gptexp.objectives",
}


OWN_SCHEMA = re.compile(r"^(class )?Config\b", re.MULTILINE)


@cache
def discover_kinds() -> None:
    """A file that the user adds to a room brings its own schema, as the class `Config` beside the implementation.

    A file without that class holds parts of others. A new model's file imports torch, so only where there is one is
    torch imported this early.
    """
    for group, package in PACKAGES.items():
        folder = PACKAGE.joinpath(*package.split(".")[1:])
        for path in sorted(folder.glob("[!_]*.py")):
            if path.stem not in KINDS[group] and OWN_SCHEMA.search(path.read_text(encoding="utf-8")):
                KINDS[group][path.stem] = import_module(f"{package}.{path.stem}").Config
