"""Settings of `gptexp prepare`, which do not change what it writes."""

from __future__ import annotations

from dataclasses import dataclass

from gptexp.config.rules import require_at_least


@dataclass(kw_only=True, slots=True)
class PrepareConfig:
    """How `gptexp prepare` divides its work. No setting here changes the tokens."""

    parts: int = 1
    """Number of parts of the corpus that jobs of hydra/launcher tokenize on a core each. 1: this process does it."""

    def __post_init__(self) -> None:
        require_at_least(1, "prepare", self, "parts")
