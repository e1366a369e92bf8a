"""The commit of a checkout and its uncommitted changes, as far as git can tell them; never an error (no torch)."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

PATIENCE = 10.0  # seconds for each question
DIFF_BYTES = 1_000_000  # of uncommitted changes; what is longer is cut, and the hash of the code stands for the rest
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set within a hook: they lead to another repository


def state(here: Path) -> dict[str, Any] | None:
    """Commit and diff of gptexp's checkout around a folder; None where it isn't one, or git doesn't answer."""
    try:
        top = Path(os.fsdecode(_ask(here, "rev-parse", "--show-toplevel").rstrip(b"\r\n")))
        if not (top / "src" / "gptexp").is_dir():
            return None  # installed inside somebody else's repository
        commit = _ask(here, "rev-parse", "HEAD").decode("ascii", "replace").strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "diff": _diff(here)}


def _diff(here: Path) -> str | None:
    """The uncommitted changes as text, whatever bytes they hold; None where git fails."""
    try:
        found = _ask(here, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    whole = len(found) <= DIFF_BYTES
    return found[:DIFF_BYTES].decode("utf-8", "replace") + ("" if whole else "\n… (cut: the changes are longer)\n")


def _ask(here: Path, *question: str) -> bytes:
    """What git prints, at most one byte more than a diff may have.

    Raises:
        OSError: no git.
        subprocess.SubprocessError: it fails, or takes too long.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    process = subprocess.Popen(
        ["git", "-C", str(here), *question],
        env={**kept, "GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    late = threading.Timer(PATIENCE, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        found = process.stdout.read(DIFF_BYTES + 1)
        if len(found) > DIFF_BYTES:
            process.kill()
            return found
        if code := process.wait():
            raise subprocess.CalledProcessError(code, process.args)
        return found
    finally:
        late.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
