"""The parser of commands with options: a mistake is answered in one line (no torch)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, NoReturn

WRONG = 2  # the exit code of a mistake on the command line


class OptionParser(argparse.ArgumentParser):
    """argparse's parser without its usage, of up to ten lines, before each error."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"{unknown[0]}: {self._remedy(unknown[0])}")
        return parsed

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        self.exit(WRONG, f"error: {message}; `{self.prog} --help` lists what it takes\n")

    def _remedy(self, word: str) -> str:
        if not word.startswith("-"):
            return "one argument too many; a text with spaces needs quotes"
        names = {name.strip("-"): name for name in self._option_string_actions}
        near = get_close_matches(word.partition("=")[0].strip("-"), names, n=1, cutoff=0.7)
        return "no such option" + (f"; did you mean {names[near[0]]}?" if near else "")


def positive_number(text: str) -> float:
    """The value of an option that must be a finite number above 0."""
    with suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text}: must be a number above 0, such as 1e18")
