"""Claiming a run folder for one process, and writing its settings (no torch)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gptexp.runs.finding import find_checkpoint
from gptexp.runs.layout import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    DIGESTS,
    EVENTS,
    LOCK,
    METRICS,
    PROVENANCE,
    SAMPLES,
    WRITTEN,
    has_checkpoint,
    run_folder,
)
from gptexp.runs.locks import PATIENCE
from gptexp.runs.result import is_finished
from gptexp.util.errors import RunError
from gptexp.util.files import require_no_link, sweep_leftovers
from gptexp.util.yaml_files import write_yaml


@contextmanager
def claim_run_folder(folder: Path, *, resumes: str | None) -> Iterator[Path]:
    """Create and lock a run folder for this process.

    resumes: the run that the process resumes; a folder that contains another run is refused.

    Raises:
        RunError: the folder contains a finished run or another run, or another process uses it.
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
    """Create a folder and hold a lock in it; a folder that stays empty is removed again.

    Only the holder of the lock removes its file, so a lock on a removed file is not valid and is taken again.

    Raises:
        error: another process holds the lock.
    """
    path = folder / name
    lock = FileLock(path)
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        require_no_link(path)
        with suppress(FileNotFoundError):  # another process removed the folder or the file in the meantime
            path.touch()
            before = path.stat()
            try:
                lock.acquire(timeout=PATIENCE)
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
    """Refuse a folder that contains another run; remove the files of a run that died before its first checkpoint."""
    if is_finished(folder):
        raise RunError(f"{folder}: contains a finished run, which is never overwritten; choose another hydra.run.dir")
    resumed = resumes is not None and run_folder(find_checkpoint(resumes))
    if has_checkpoint(folder) and not (resumed and resumed.resolve() == folder.resolve()):
        raise RunError(
            f"{folder}: contains another run; continue it with resume={folder}, or choose another hydra.run.dir"
        )
    if not resumed and (folder / PROVENANCE).exists():
        curves = (folder / METRICS, folder / SAMPLES, folder / DIGESTS, *folder.glob(f"{EVENTS}*"))
        for leftover in (*curves, folder / CHECKPOINTS / BEST):  # best.ckpt is written before last.ckpt
            leftover.unlink(missing_ok=True)


def _remove_if_empty(folder: Path, lock: str) -> None:
    with suppress(OSError):  # Windows can't remove an open file; the parent may contain other runs
        if [path.name for path in folder.iterdir()] == [lock]:
            (folder / lock).unlink()
            folder.rmdir()
            folder.parent.rmdir()


def write_config(folder: Path, settings: dict[str, Any]) -> None:
    """Write config.yaml, resolved and complete."""
    write_yaml(folder / CONFIG, settings)
