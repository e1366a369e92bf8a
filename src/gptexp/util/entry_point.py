"""What every entry point needs of its process: a console that can't fail, and modules from nowhere unexpected.

Nothing here imports more than the standard library.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from gptexp.util.threads import share_cores

BROKEN_PIPE = 141  # a shell's exit code for a program whose reader has gone

P = ParamSpec("P")


def entry_point(main: Callable[P, None]) -> Callable[P, None]:
    """Run a command's main function with a prepared console, and end quietly where the reader has gone."""

    @wraps(main)
    def start(*args: P.args, **kwargs: P.kwargs) -> None:
        if _is_a_command():
            _keep_children_apart()
        share_cores()
        _replace_unencodable()
        try:
            try:
                main(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # `… | head`, which is no error
            discard_output()
            sys.exit(BROKEN_PIPE)

    return start


def _replace_unencodable() -> None:
    """A console that isn't UTF-8 shows a question mark for what it can't show, instead of ending the program."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def discard_output() -> None:
    """Send what is still to be printed nowhere, so that the interpreter doesn't fail on it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def drop_current_directory() -> None:
    """Take away what `python -m` puts first on sys.path, as a console script does without it.

    A folder that someone else has filled may hold a yaml.py or a hydra_plugins, which would run.
    """
    if sys.path and sys.path[0] in ("", str(Path.cwd())) and not _lies_in_current_directory():
        del sys.path[0]


def _keep_children_apart() -> None:
    """The same for every Python that this process starts: ranks, jobs of a sweep, workers that load data."""
    if not _lies_in_current_directory():
        os.environ["PYTHONSAFEPATH"] = "1"


def _is_a_command() -> bool:
    """Whether this process is a command of ours, and not somebody's program or notebook that calls one."""
    program = sys.modules["__main__"]
    spec = getattr(program, "__spec__", None)
    name = spec.name if spec is not None else Path(getattr(program, "__file__", None) or "").name
    # On Windows a console script is an archive: gptexp.exe/__main__.py.
    return name.startswith("gptexp") or (name in ("__main__", "__main__.py") and _called_as().startswith("gptexp"))


def _called_as() -> str:
    return Path(sys.argv[0]).name if sys.argv else ""


def program_name(module: str) -> str:
    """Return what starts a command, as usage texts name it: `gptexp generate`, or `python -m gptexp.generate`."""
    return sys.argv[0] if _is_subcommand() else f"python -m {module}"


def program_words() -> list[str]:
    """Return the words that start this program again, without its arguments."""
    spec, python = getattr(sys.modules.get("__main__"), "__spec__", None), Path(sys.executable).name
    module = None if spec is None or spec.name == "__main__" else spec.name
    if _is_subcommand():
        return [*([python, "-m"] if module else []), *sys.argv[0].split()]
    return [python, "-m", module] if module else [python, sys.argv[0]]


def _is_subcommand() -> bool:
    """Return whether `gptexp` started a subcommand, which sets sys.argv[0] to `gptexp NAME`."""
    return bool(sys.argv) and sys.argv[0].startswith("gptexp ")


def _lies_in_current_directory() -> bool:
    """Whether this package itself is found in the current directory, as in an archive that isn't installed."""
    return Path(__file__).resolve().parents[2] == Path.cwd()
