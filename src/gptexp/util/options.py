"""The argument parser of commands with options, with one-line errors (no torch)."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from gptexp.util.entry_point import entry_point
from gptexp.util.errors import USER_ERROR, one_line_errors


class OptionParser(argparse.ArgumentParser):
    """argparse's parser without the usage text before each error."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"{unknown[0]}: {self._remedy(unknown[0])}")
        return parsed

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        self.exit(USER_ERROR, f"error: {message}; `{self.prog} --help` lists the options\n")

    def _remedy(self, word: str) -> str:
        if not word.startswith("-"):
            return "unexpected argument; quote text that contains spaces"
        names = {name.strip("-"): name for name in self._option_string_actions}
        near = get_close_matches(word.partition("=")[0].strip("-"), names, n=1, cutoff=0.7)
        return "no such option" + (f"; did you mean {names[near[0]]}?" if near else "")


def command(parser: Callable[[], OptionParser]) -> Callable[[Callable[[Any], int | None]], Callable[..., None]]:
    """Decorate what a command does with its parsed options, to be its main function with one-line errors.

    The result of the decorated function is the exit code; None to return.
    """

    def decorate(act: Callable[[Any], int | None]) -> Callable[..., None]:
        @wraps(act)
        def main(argv: list[str] | None = None) -> None:
            options = parser().parse_args(argv)
            with one_line_errors():
                code = act(options)
            if code is not None:
                sys.exit(code)

        return entry_point(main)

    return decorate


DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true")  # as Lightning names them


def positive_number(text: str) -> float:
    """Return the value of an option that must be a finite number above 0."""
    with suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text}: must be a number above 0, such as 1e18")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that compute with a trained model."""
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where the model computes; default: a GPU if there is one"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="32-true",
        help="auto: the fastest for the device and the model, as in training; default: %(default)s, which gives the "
        "same result to rounding on every machine",
    )


def add_encoding_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of commands with --text FILE."""
    parser.add_argument("--encoding", help="with --text; default: auto, which recognizes it as data.encoding=auto does")


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that read the corpus of a run."""
    cache, logs = Path("data/cache"), Path("logs")
    parser.add_argument("--cache", type=Path, default=cache, help="folder of token shards; default: %(default)s")
    parser.add_argument("--logs", type=Path, default=logs, help="where `latest` looks; default: %(default)s")
    parser.add_argument(
        "--trust-data",
        action="store_true",
        help="read the corpus that the settings of the run name, even if the run is outside --logs or the corpus is "
        "downloaded",
    )
