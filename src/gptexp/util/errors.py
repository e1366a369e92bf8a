"""Errors for the user, which end a command with one line."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gptexp.util.entry_point import BROKEN_PIPE, discard_output
from gptexp.util.package import is_own
from gptexp.util.signals import Interrupted
from gptexp.util.text import printable


class ConfigError(ValueError):
    """An invalid setting. The user sees one line without a traceback."""


class RunError(ValueError):
    """A run that does not exist or can't be read or written. The user sees one line."""


USER_ERROR = 2  # exit code
BY_SIGNAL = 128  # a shell's convention: 130 for SIGINT, 143 for SIGTERM


@contextmanager
def one_line_errors(*, signals_only: bool = False) -> Iterator[None]:
    """End the program with one line for errors that gptexp raises for the user; bugs keep their traceback.

    The environment variable GPTEXP_TRACEBACK=1 shows the traceback of both.
    signals_only: let errors pass and handle only signals.
    """
    warnings.showwarning = _one_line_warning
    try:
        yield
    except BrokenPipeError:  # `… | head`, which is not an error
        discard_output()
        sys.exit(BROKEN_PIPE)
    except (ValueError, OSError) as error:
        if signals_only or os.environ.get("GPTEXP_TRACEBACK") or not _is_for_user(error):
            raise
        fail(_message(error))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(BY_SIGNAL + stop.signum)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(BY_SIGNAL + signal.SIGINT)


def _one_line_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    """Print the warnings of gptexp and its extensions in one line and drop those of libraries."""
    if is_own(filename):
        print(f"notice: {printable(str(message))}", file=sys.stderr)


def fail(message: str) -> None:
    """End the program with one line on standard error; the message may contain untrusted names."""
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(USER_ERROR)


def _message(error: Exception) -> str:
    """Return the message of an error; of an OSError, the file and the cause without the number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _is_for_user(error: BaseException) -> bool:
    """Return whether gptexp or an extension raised the error, so that its message is written for the user."""
    if isinstance(error, ConfigError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and (is_own(frames[-1].filename) or isinstance(error, OSError))
