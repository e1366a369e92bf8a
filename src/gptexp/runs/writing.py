"""Run folders: finding one, opening one for writing, and what stands in it (no torch).

config.yaml, provenance.json, checkpoints/, metrics.csv, samples.md, events.out.tfevents.*, result.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gptexp.runs.finding import find_checkpoint
from gptexp.runs.layout import (
    CHECKPOINTS,
    CONFIG,
    LOCK,
    PROVENANCE,
    WRITTEN,
    has_checkpoint,
    run_folder,
)
from gptexp.runs.result import is_finished
from gptexp.util.errors import RunError
from gptexp.util.files import (
    require_no_link,
    sweep_leftovers,
    write_yaml,
)

# ---------------------------------------------------------------------------------- finding


# ---------------------------------------------------------------------------------- writing


@contextmanager
def open_run(folder: Path, *, resumes: str | None) -> Iterator[Path]:
    """Take a run folder for one process: made, locked, and refused if a run other than `resumes` is in it.

    Raises:
        RunError: finished, another run's, or in use.
    """
    for name in WRITTEN:
        require_no_link(folder / name)
    with locked(folder, LOCK, RunError(f"{folder}: another process is training in it")):
        _require_free(folder, resumes)
        sweep_leftovers(folder)
        sweep_leftovers(folder / CHECKPOINTS)
        yield folder


@contextmanager
def locked(folder: Path, name: str, error: Exception) -> Iterator[None]:
    """A folder, made where there is none, for one process; where nothing was written it goes again.

    The lock's file is removed only by who holds it, and a lock on a file that has been removed is none.

    Raises:
        error: another process holds it.
    """
    from filelock import FileLock, Timeout

    path = folder / name
    lock = FileLock(path)
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        require_no_link(path)
        with suppress(FileNotFoundError):  # the folder or the file was removed meanwhile
            path.touch()
            before = path.stat()
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise error from None
            if os.path.samestat(before, path.stat()):
                break
        lock.release()
    try:
        yield
    finally:
        _remove_if_empty(folder, name)
        lock.release()


def _require_free(folder: Path, resumes: str | None) -> None:
    """Refuse a folder that holds a run; what a run left that died before its first checkpoint is cleared away."""
    if is_finished(folder):
        raise RunError(f"{folder}: holds a finished run, which is never overwritten; choose another hydra.run.dir")
    own = resumes is not None and run_folder(find_checkpoint(resumes))
    if has_checkpoint(folder) and not (own and own.resolve() == folder.resolve()):
        raise RunError(f"{folder}: holds another run; continue it by resume={folder}, or choose another hydra.run.dir")
    if not own and (folder / PROVENANCE).exists():
        curves = (folder / "metrics.csv", folder / "samples.md", *folder.glob("events.out.tfevents.*"))
        for leftover in (*curves, folder / CHECKPOINTS / "best.ckpt"):  # best is linked before last stands
            leftover.unlink(missing_ok=True)


def _remove_if_empty(folder: Path, lock: str) -> None:
    """A run that was refused before it began leaves no folder behind."""
    with suppress(OSError):  # Windows removes no open file; a folder above it holds other runs
        if [path.name for path in folder.iterdir()] == [lock]:
            (folder / lock).unlink()
            folder.rmdir()
            folder.parent.rmdir()


def write_config(folder: Path, settings: dict[str, Any]) -> None:
    """config.yaml: resolved and complete."""
    write_yaml(folder / CONFIG, settings)
