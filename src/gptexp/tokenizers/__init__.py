"""Text -> tokens -> text. Each kind is a file with a class named `Implementation`.

To add a kind, add a file here and a preset in conf/tokenizer/. A file without `Implementation` holds shared code.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gptexp.config.tokenizer import TokenizerConfig
from gptexp.tokenizers.base import Tokenizer, require_keys, utf8
from gptexp.tokenizers.byte_level import END_OF_TEXT

__all__ = [
    "END_OF_TEXT",
    "Tokenizer",
    "check_tokenizer",
    "kinds",
    "load_tokenizer",
    "needs_training",
    "require_keys",
    "train_tokenizer",
    "utf8",
]

IMPLEMENTATION = re.compile(r"^(class )?Implementation\b", re.MULTILINE)


def kinds() -> list[str]:
    """Names of the tokenizers: the files of this folder that define `Implementation`."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return [file.stem for file in files if IMPLEMENTATION.search(file.read_text(encoding="utf-8"))]


def needs_training(config: TokenizerConfig) -> bool:
    """Whether this tokenizer depends on the text."""
    return _implementation(config.kind).trained


def check_tokenizer(config: TokenizerConfig) -> None:
    """Refuse a config whose tokenizer cannot be made. ValueError: what is missing, and the remedy."""
    _implementation(config.kind).check(config)


def train_tokenizer(
    config: TokenizerConfig, train_text: Iterable[str] = (), whole_text: Iterable[str] = ()
) -> Tokenizer:
    """Make the tokenizer that a config describes.

    Both texts are iterables of pieces. Only the kinds that need them read them: char takes its alphabet from
    whole_text, bpe learns its merges from train_text.
    """
    return _implementation(config.kind).train(config, train_text, whole_text)


def load_tokenizer(state: object) -> Tokenizer:
    """Rebuild a tokenizer from its `state_dict()`. ValueError: the state is not one that `state_dict` returns."""
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"a saved tokenizer is a dictionary with text keys, not {type(state).__name__}")
    return _implementation(state.get("kind")).from_state_dict(state)


def _implementation(kind: object) -> type[Tokenizer]:
    if not isinstance(kind, str) or kind not in kinds():
        raise ValueError(f"tokenizer.kind={kind}: choose one of {', '.join(kinds())}")
    implementation: type[Tokenizer] = importlib.import_module(f"{__name__}.{kind}").Implementation
    return implementation
