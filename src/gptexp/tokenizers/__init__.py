"""Text -> tokens -> text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gptexp.config.kinds import implementation
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.tokenizers.base import NoTokenError, Tokenizer, require_keys, utf8
from gptexp.tokenizers.byte_level import END_OF_TEXT

__all__ = [
    "END_OF_TEXT",
    "NoTokenError",
    "Tokenizer",
    "check_tokenizer",
    "load_tokenizer",
    "needs_training",
    "require_keys",
    "train_tokenizer",
    "utf8",
]


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
    found: type[Tokenizer] = implementation("tokenizer", kind)
    return found
