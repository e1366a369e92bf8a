"""Hydra command lines: checks before torch is imported, help and version."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gptexp import __version__
from gptexp.compose.composition import compose_raw, to_config
from gptexp.compose.help import help_text, topic_text
from gptexp.compose.hydra_versions import arguments_parser
from gptexp.compose.inheritance import check_against_source, with_source
from gptexp.compose.lengths import removed_lengths
from gptexp.compose.messages import without_dashes
from gptexp.compose.overrides import one_of_each, quoted
from gptexp.compose.presets import use_config_dir
from gptexp.config import Config, SweepConfig
from gptexp.config.override_syntax import key_of
from gptexp.util.errors import ConfigError, one_line_errors


def checked_arguments(arguments: list[str]) -> list[str]:
    """Return a checked Hydra command line in the form that Hydra requires.

    Ends the program with one line if an argument is wrong.
    """
    return checked_command(arguments)[0]


def checked_command(arguments: list[str]) -> tuple[list[str], Config | None]:
    """Return the same with the experiment; None if the command line only asks for information."""
    arguments = with_config_dir(arguments)
    answer_questions(arguments)
    config = None
    with one_line_errors():
        parsed = parsed_arguments(arguments)
        overrides = with_source(one_of_each([quoted(override) for override in parsed.overrides]))
        if not (parsed.info or parsed.hydra_help or parsed.shell_completion):
            composed = compose_raw(parsed.overrides)
            config = to_config(composed)
            overrides = [*overrides, *removed_lengths(composed.hydra.overrides.task, overrides)]
            _require_on_command_line(config, parsed.overrides)
            check(config)
            if config.sweep != SweepConfig(dry_run=config.sweep.dry_run):
                raise ConfigError("sweep: these settings need a sweep; add -m")
    flags = [argument for argument in arguments if argument not in parsed.overrides]
    return [*flags, *overrides], None if parsed.cfg else config


def with_config_dir(arguments: list[str]) -> list[str]:
    """Return the arguments without --config-dir, whose presets then belong to this process and its child processes."""
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            following = [] if equals else arguments[i + 1 : i + 2]
            with one_line_errors():
                use_config_dir(value or "".join(following))
            return with_config_dir([*arguments[:i], *arguments[i + 1 + len(following) :]])
    return arguments


def answer_questions(arguments: list[str]) -> None:
    """Print the help or the version and end the program, if the command line asks for one of them."""
    topics = _help_topics(arguments)
    if topics is not None:
        with one_line_errors():
            print("\n\n".join(map(topic_text, topics)) if topics else help_text())
        sys.exit(0)
    if "--version" in arguments:
        print(f"gptexp {__version__}")
        sys.exit(0)


def _help_topics(arguments: list[str]) -> list[str] | None:
    """Return the topics after --help; None without --help."""
    place = next((i for i, word in enumerate(arguments) if word.partition("=")[0] in ("--help", "-h")), None)
    if place is None:
        return None
    _, equals, first = arguments[place].partition("=")
    return [*([first] if equals else []), *(word for word in arguments[place + 1 :] if not word.startswith("-"))]


def parsed_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return Hydra's flags and the overrides, which may come in any order.

    Raises:
        ConfigError: naming an unknown flag and the setting that is probably meant.
    """
    parsed, unknown = arguments_parser().parse_known_intermixed_args(arguments)
    if unknown:
        following = arguments[arguments.index(unknown[0]) + 1 :]
        raise ConfigError(without_dashes(unknown[0], following[0] if following else None))
    return parsed


def _require_on_command_line(config: Config, overrides: list[str]) -> None:
    """Refuse a source that is set in conf/: its model and tokenizer must be known before the composition."""
    given = {key_of(quoted(override)) for override in overrides}
    for verb in ("resume", "init_from"):
        run = getattr(config, verb)
        if run is not None and not given & {"resume", "init_from"}:
            raise ConfigError(f"{verb}={run}: is set in conf/; give it on the command line, for example {verb}=latest")


def sweep_overrides(arguments: list[str]) -> list[str] | None:
    """Return the overrides of a sweep (-m); None if the command line is for one run or only asks for information."""
    arguments = with_config_dir(arguments)
    answer_questions(arguments)
    with one_line_errors():
        parsed = parsed_arguments(arguments)
    asks = parsed.info or parsed.cfg or parsed.hydra_help or parsed.shell_completion
    return parsed.overrides if parsed.multirun and not asks else None


def check(config: Config) -> None:
    """Check without torch that an experiment agrees with its source and that its text and tokenizer files exist.

    Raises:
        ValueError: naming the setting or the file, and the remedy.
    """
    # These import datasets' readers and tokenizers, which take 0.4 s.
    from gptexp.data.corpora import open_corpus
    from gptexp.tokenizers import check_tokenizer

    check_against_source(config)
    if config.resume is None and config.init_from is None:  # else the tokenizer is that of the source
        check_tokenizer(config.tokenizer)
    open_corpus(config.data, Path(config.paths.cache)).check()
