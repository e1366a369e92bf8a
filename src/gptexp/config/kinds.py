"""Kinds of models, tokenizers, corpora and objectives that a user adds as a file of the package."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

from gptexp.config import KINDS
from gptexp.util.package import PACKAGE

# The packages of the implementations of each group's kinds.
PACKAGES = {
    "model": "gptexp.models",
    "tokenizer": "gptexp.tokenizers",
    "data": "gptexp.data.corpora",
    "objective": "gptexp.objectives",
}

SCHEMA_CLASS = re.compile(r"^(class )?Config\b", re.MULTILINE)


@cache
def discover_kinds() -> None:
    """Add to KINDS the files that a user added to these packages: each defines its schema as the class `Config`.

    Such a file is imported here. A model's file imports torch, so that commands start more slowly.
    """
    for group, package in PACKAGES.items():
        folder = PACKAGE.joinpath(*package.split(".")[1:])
        for path in sorted(folder.glob("[!_]*.py")):
            if path.stem not in KINDS[group] and SCHEMA_CLASS.search(path.read_text(encoding="utf-8")):
                KINDS[group][path.stem] = import_module(f"{package}.{path.stem}").Config
