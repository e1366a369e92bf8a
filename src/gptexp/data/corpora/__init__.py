"""Corpora: the texts that a run learns from. Files whose names begin with an underscore are shared code."""

from __future__ import annotations

from pathlib import Path

from gptexp.config.data import DataConfig
from gptexp.config.kinds import implementation
from gptexp.data.corpora.base import CorpusBase, StreamBase

__all__ = ["CorpusBase", "StreamBase", "open_corpus"]


def open_corpus(config: DataConfig, cache: Path) -> CorpusBase:
    """Return the corpus that a config describes; nothing is read yet. cache: folder for files that it downloads."""
    corpus: CorpusBase = implementation("data", config.kind)(config, cache)
    return corpus
