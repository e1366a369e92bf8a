"""What an idea is: the base with changed settings; budget, data and scoring must stay the same (no torch)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from gptexp.compose.commandline import check
from gptexp.compose.composition import compose
from gptexp.compose.overrides import quoted
from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.config.data import DEFAULT_WINDOWS
from gptexp.config.fingerprint import flatten, identity
from gptexp.config.length import LENGTHS
from gptexp.config.override_syntax import is_swept, key_of, parse
from gptexp.util.errors import ConfigError

PER_PARAMETER = "trainer.tokens_per_parameter"
BATCHES = ("data.global_batch_size", "data.global_batch_tokens", "data.micro_batch_size", "data.num_workers")
# Settings that neither a base nor an idea may have, with the reason.
JUDGES = {
    "seed": "gptexp judge chooses the seeds",
    "resume": "gptexp judge continues by itself when its command line is repeated",
    "sweep": "has no effect under gptexp judge",
    "prepare": "has no effect under gptexp judge",
    "hydra": "has no effect under gptexp judge",
}
# Settings that an idea must share with its base, by the start of the name, with what they decide.
SHARED = {
    **dict.fromkeys((f"trainer.{name}" for name in LENGTHS), "the length"),
    "trainer.val_every_steps": "the validation",
    "objective": "what is scored",
    "data": "the data",
    "paths": "the folders",
    "init_from": "the starting point",
}


@dataclass(frozen=True, slots=True)
class Composed:
    """A composed experiment. overrides: as typed, without duplicates. text: the same as a command line."""

    config: Config
    overrides: list[str]

    @property
    def text(self) -> str:
        return shlex.join(self.overrides)

    @property
    def identity(self) -> str:
        return identity(to_plain(self.config))


def base_of(text: str) -> Composed:
    """Return the experiment of --base.

    Raises:
        ConfigError: as `gptexp train` says it, or a setting that the judge decides itself.
    """
    composed = _composed(_words(text, "--base"))
    if flatten(to_plain(composed.config)).get(PER_PARAMETER) is not None:
        raise ConfigError(
            f"{PER_PARAMETER}: depends on the model, so budgets would differ; give trainer.max_steps, "
            "trainer.max_tokens, trainer.max_flops or trainer.max_time"
        )
    return composed


def idea_of(base: Composed, text: str) -> Composed:
    """Return the experiment of --idea: the base with changed settings.

    Raises:
        ConfigError: as `gptexp train` says it, or the idea changes a setting that must be shared, or none that matters.
    """
    words = _words(text, "--idea")
    for word in words:
        if (decides := _shared(key_of(quoted(word)))) is not None:
            raise ConfigError(f"{word}: an idea can't change {decides}; give the setting in --base")
    idea = _composed([*base.overrides, *words])
    require_equal_budget(to_plain(base.config), to_plain(idea.config))
    if idea.identity == base.identity:
        raise ConfigError(f"--idea={text}: changes no setting that affects the result")
    return idea


def _words(text: str, flag: str) -> list[str]:
    """Return the overrides in a text that is quoted like a shell command line."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{flag}={text}: {str(error).lower()}; quote it like a shell command line") from None
    if not words and flag == "--idea":
        raise ConfigError(f"{flag}: is empty; give settings, such as model.activation=relu2")
    for word in words:
        override = quoted(word)
        if is_swept(override):
            raise ConfigError(f"{word}: has several values; {flag} is one experiment")
        if reason := JUDGES.get(key_of(override).partition(".")[0]):
            raise ConfigError(f"{word}: {reason}; leave it out of {flag}")
    return words


def _composed(words: list[str]) -> Composed:
    """Compose; the last of two overrides of one setting counts."""
    overrides = list({parse(quoted(word)).get_key_element().lstrip("+"): word for word in words}.values())
    config = compose(overrides)
    try:
        check(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Composed(config, overrides)


def _shared(key: str) -> str | None:
    """Return what a setting decides that an idea must share with its base; None for other settings."""
    if key in BATCHES:
        return None
    return next((decides for start, decides in SHARED.items() if key == start or key.startswith(f"{start}.")), None)


def require_equal_budget(base: dict[str, Any], idea: dict[str, Any], who: str = "an idea") -> None:
    """Refuse another length, other data or another score; with a length in steps, also other tokens per step.

    Raises:
        ConfigError: naming the setting and both values.
    """
    was, now = flatten(base), flatten(idea)
    for key in {**was, **now}:
        if (decides := _shared(key)) is not None and was.get(key) != now.get(key):
            values = f"{was.get(key)} in the base, {now.get(key)} in the idea"
            raise ConfigError(f"{key}: {who} can't change {decides} ({values}); give the setting in --base")
    if was.get("trainer.max_steps") is not None and (before := _tokens(was)) != (after := _tokens(now)):
        changed = next((key for key in (*BATCHES[:2], "model.block_size") if was.get(key) != now.get(key)), BATCHES[0])
        raise ConfigError(
            f"{changed}: {who} can't change the tokens per step ({before:,} in the base, {after:,} in the idea) of a "
            "run whose length is in steps; give --base a length in tokens, FLOPs or time, such as trainer.max_tokens"
        )


def _tokens(flat: dict[str, Any]) -> int:
    """Return the tokens of a step."""
    tokens, windows = flat.get("data.global_batch_tokens"), flat.get("data.global_batch_size")
    return int(tokens or (windows or DEFAULT_WINDOWS) * flat["model.block_size"])
