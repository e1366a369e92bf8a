"""Corpora. Each kind is a file with a class named `Corpus`.

To add a corpus, add a file here and a preset in conf/data/. Files whose names begin with an underscore are shared code.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from gptexp.config.data import DataConfig
from gptexp.data.corpora.base import CorpusBase, StreamBase

__all__ = ["CorpusBase", "StreamBase", "kinds", "open_corpus"]


def kinds() -> list[str]:
    """Names of the corpora: the files of this folder, except shared code."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in names if name != "base" and not name.startswith("_")]


def open_corpus(config: DataConfig, cache: Path) -> CorpusBase:
    """Return the corpus that a config describes; nothing is read yet. cache: folder for files that it downloads."""
    if config.kind not in kinds():
        raise ValueError(f"data.kind={config.kind}: choose one of {', '.join(kinds())}")
    corpus: CorpusBase = importlib.import_module(f"{__name__}.{config.kind}").Corpus(config, cache)
    return corpus
