"""The parser of commands with options: a mistake is answered in one line (no torch)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
