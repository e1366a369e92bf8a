"""Information from git, which never stops a run."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from gptexp.util import git
from gptexp.util.files import write_json


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit that contains src/gptexp/code.py; tests are skipped without git."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    package = tmp_path / "src" / "gptexp"
    package.mkdir(parents=True)
    (package / "code.py").write_text("x = 1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        try:
            subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no git that makes a commit")
    return package


def test_changes_in_any_encoding_are_recorded(checkout: Path, tmp_path: Path) -> None:
    (checkout / "code.py").write_bytes(b"x = '\xff caf\xe9'\n")
    found = git.git_state(checkout)
    assert found is not None
    assert len(found.commit) == 40
    assert "+x = '\ufffd caf\ufffd'" in (found.diff or "")
    write_json(tmp_path / "provenance.json", {"git": asdict(found), "directory": os.fsdecode(b"\xff")})
    read = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))
    assert read == {"git": asdict(found), "directory": os.fsdecode(b"\xff")}


def test_a_long_diff_is_cut_and_an_external_diff_is_not_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "code.py").write_text("x = 1\n" * 3000)
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "touch owned")
    monkeypatch.setattr(git, "DIFF_BYTES", 1000)
    found = git.git_state(checkout)
    assert found is not None
    assert found.diff is not None
    assert found.diff.endswith("\n… (cut: the changes are longer)\n")
    assert 1000 < len(found.diff) < 1100


@pytest.mark.parametrize("script", ["exit 3", "printf '\\377\\376'; exit 0", "kill -9 $$", "echo nowhere", None])
def test_a_failing_or_missing_git_gives_no_output(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    (tmp_path / "bin").mkdir()
    if script is not None:
        (tmp_path / "bin/git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert git.git_state(checkout) is None


def test_a_hanging_git_is_killed(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text("#!/bin/sh\nexec sleep 100\n")
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(git, "PATIENCE", 0.1)
    assert git.git_state(checkout) is None


def test_a_failed_diff_keeps_the_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = git.git

    def fails(here: Path, *question: str) -> bytes:
        if question[0] == "diff":
            raise subprocess.CalledProcessError(128, "git")
        return ask(here, *question)

    monkeypatch.setattr(git, "git", fails)
    found = git.git_state(checkout)
    assert found is not None
    assert (len(found.commit), found.diff) == (40, None)
