"""A look at a lock says whether a process holds it, changes nothing, and never stops a process that takes it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from gptexp.runs.locks import PATIENCE, is_locked
from gptexp.runs.writing import claim_run_folder, locked
from gptexp.util.errors import RunError


def test_a_claimed_folder_is_locked_until_it_is_released(tmp_path: Path) -> None:
    lock = tmp_path / "run/.lock"
    assert not is_locked(lock)
    with claim_run_folder(tmp_path / "run", resumes=None):
        (tmp_path / "run/config.yaml").touch()
        assert is_locked(lock)
        assert is_locked(lock)
    assert not is_locked(lock)


def test_a_look_at_a_lock_changes_no_file(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.write_text("kept")
    before = lock.stat()
    assert not is_locked(lock)
    assert lock.read_text() == "kept"
    assert lock.stat().st_mtime_ns == before.st_mtime_ns
    assert not is_locked(tmp_path / "absent/.lock")
    assert sorted(tmp_path.iterdir()) == [lock]


@pytest.mark.skipif(sys.platform == "win32", reason="locks of Windows are never shared")
def test_a_process_that_takes_the_lock_waits_for_a_look_at_it(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / ".lock").touch()
    descriptor = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    looking = threading.Timer(PATIENCE / 4, os.close, [descriptor])
    looking.start()
    with locked(tmp_path, ".lock", RunError("taken")):
        assert is_locked(tmp_path / ".lock")
    looking.join()


def test_a_link_and_a_pipe_as_lock_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ".lock").symlink_to(tmp_path / "file")
    assert not is_locked(tmp_path / ".lock")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert not is_locked(tmp_path / "pipe")
