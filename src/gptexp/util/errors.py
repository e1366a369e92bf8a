"""Errors for the user, and how a command ends with one line."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptexp.util.entry_point import BROKEN_PIPE, discard_output
from gptexp.util.package import PACKAGE
from gptexp.util.signals import Interrupted
from gptexp.util.text import printable


class ConfigError(ValueError):
    """A setting that can't be: one line for the user, without a traceback."""


class RunError(ValueError):
    """A run that can't be found, read or written to: one line for the user."""


USER_ERROR = 2


BY_SIGNAL = 128  # a shell's convention: 130 for SIGINT, 143 for SIGTERM


@contextmanager
def one_line_errors(*, stopping_only: bool = False) -> Iterator[None]:
    """Errors that our own code raises for the user end the program in one line; bugs keep their traceback.

    GPTEXP_TRACEBACK=1 shows the traceback of both. stopping_only: errors pass, signals end the program.
    """
    warnings.showwarning = _one_line_warning
    try:
        yield
    except BrokenPipeError:  # `… | head`: the reader has gone, which is no error
        discard_output()
        sys.exit(BROKEN_PIPE)
    except (ValueError, OSError) as error:
        if (
            stopping_only
            or os.environ.get("GPTEXP_TRACEBACK")
            or not (_is_ours(error) or isinstance(error, ConfigError))
        ):
            raise
        fail(_message(error))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(BY_SIGNAL + stop.signum)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(BY_SIGNAL + signal.SIGINT)


def _one_line_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    """Our own warnings as a line for the user; those of libraries are for their developers."""
    if str(Path(filename).resolve()).startswith(str(PACKAGE)):
        print(f"notice: {printable(str(message))}", file=sys.stderr)


def fail(message: str) -> None:
    """End the program with one line on standard error, as plain text: names in it may be a stranger's."""
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(USER_ERROR)


def _message(error: Exception) -> str:
    """An OSError without its number: what failed, and on which file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _is_ours(error: BaseException) -> bool:
    """Whether the statement that raised stands in gptexp, so that the message was written for the user."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(PACKAGE)
    return bool(frames) and (str(Path(frames[-1].filename).resolve()).startswith(package) or isinstance(error, OSError))
