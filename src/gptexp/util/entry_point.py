"""Preparation of the process for every entry point. Only the standard library is imported."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from gptexp.util.threads import share_cores

BROKEN_PIPE = 141  # exit code of a program that writes to a closed pipe, as shells report it

P = ParamSpec("P")


def entry_point(main: Callable[P, None]) -> Callable[P, None]:
    """Decorate a command's main function: prepare the process, and exit without an error if the pipe is closed."""

    @wraps(main)
    def start(*args: P.args, **kwargs: P.kwargs) -> None:
        if _is_command():
            _protect_child_processes()
        share_cores()
        _replace_unencodable()
        try:
            try:
                main(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # `… | head`, which is not an error
            discard_output()
            sys.exit(BROKEN_PIPE)

    return start


def _replace_unencodable() -> None:
    """Let a console that is not UTF-8 print a question mark for unsupported characters instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def discard_output() -> None:
    """Discard buffered output, so that the interpreter does not fail on it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def drop_current_directory() -> None:
    """Remove the current directory from sys.path, where `python -m` puts it first.

    An untrusted directory may contain a yaml.py or a hydra_plugins, which would be executed.
    """
    if sys.path and sys.path[0] in ("", str(Path.cwd())) and not _is_in_current_directory():
        del sys.path[0]


def _protect_child_processes() -> None:
    """Keep the current directory from the sys.path of child processes: ranks, jobs of a sweep, data workers."""
    if not _is_in_current_directory():
        os.environ["PYTHONSAFEPATH"] = "1"


def _is_command() -> bool:
    """Return whether this process is a command of gptexp and not a program or notebook that calls one."""
    program = sys.modules["__main__"]
    spec = getattr(program, "__spec__", None)
    name = spec.name if spec is not None else Path(getattr(program, "__file__", None) or "").name
    # On Windows a console script is an archive: gptexp.exe/__main__.py.
    return name.startswith("gptexp") or (name in ("__main__", "__main__.py") and _called_as().startswith("gptexp"))


def _called_as() -> str:
    return Path(sys.argv[0]).name if sys.argv else ""


def program_name(module: str) -> str:
    """Return the name of a command for usage texts: `gptexp generate`, or `python -m gptexp.generate`."""
    return sys.argv[0] if _is_subcommand() else f"python -m {module}"


def program_words() -> list[str]:
    """Return the command line that starts this program, without its arguments."""
    spec, python = getattr(sys.modules.get("__main__"), "__spec__", None), Path(sys.executable).name
    module = None if spec is None or spec.name == "__main__" else spec.name
    if _is_subcommand():
        return [*([python, "-m"] if module else []), *sys.argv[0].split()]
    return [python, "-m", module] if module else [python, sys.argv[0]]


def _is_subcommand() -> bool:
    """Return whether `gptexp` started a subcommand, which sets sys.argv[0] to `gptexp NAME`."""
    return bool(sys.argv) and sys.argv[0].startswith("gptexp ")


def _is_in_current_directory() -> bool:
    """Return whether this package is in the current directory, as in an archive that is not installed."""
    return Path(__file__).resolve().parents[2] == Path.cwd()
