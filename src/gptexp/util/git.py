"""The commit and the uncommitted changes of a checkout. A failure of git is never an error (no torch)."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 10.0  # seconds for each call of git
DIFF_BYTES = 1_000_000  # longer changes are cut; the hash of the code covers the rest
REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside a hook: they name another repository


@dataclass(frozen=True)
class GitState:
    """commit: the full hash. diff: the uncommitted changes, empty without any; None if git failed."""

    commit: str
    diff: str | None


def git_state(folder: Path) -> GitState | None:
    """Return the state of the checkout of gptexp around a folder; None if there is none or git fails."""
    try:
        top = Path(os.fsdecode(git(folder, "rev-parse", "--show-toplevel").rstrip(b"\r\n")))
        if not (top / "src" / "gptexp").is_dir():
            return None  # gptexp is installed inside another repository
        commit = git(folder, "rev-parse", "HEAD").decode("ascii", "replace").strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return GitState(commit, _diff(folder))


def _diff(folder: Path) -> str | None:
    """Return the uncommitted changes as text, also of files that are not UTF-8; None if git fails."""
    try:
        found = git(folder, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    cut = "\n… (cut: the changes are longer)\n" if len(found) > DIFF_BYTES else ""
    return found[:DIFF_BYTES].decode("utf-8", "replace") + cut


def git(folder: Path, *arguments: str) -> bytes:
    """Return the output of git, at most DIFF_BYTES + 1 bytes.

    Raises:
        OSError: git is not installed.
        subprocess.SubprocessError: git fails or takes longer than PATIENCE.
    """
    kept = {name: value for name, value in os.environ.items() if name not in REDIRECTIONS}
    process = subprocess.Popen(
        ["git", "-C", str(folder), *arguments],
        env={**kept, "GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
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
        timer.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
