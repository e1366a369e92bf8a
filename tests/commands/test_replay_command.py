"""`gptexp replay`: output of an untrusted bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptexp import replay as replay_entry_point
from gptexp.commands import replay as replay_command


def test_replay_prints_the_strings_of_a_bundle_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = {"what": "step 2\x1b[2J", "seed": 1, "precision": "32-true\x1b]0;x\x07"}
    monkeypatch.setattr(replay_command, "read_bundle", lambda _: bundle)
    monkeypatch.setattr(replay_command, "replay", lambda _: "h\x1b[31m is the first module")
    with pytest.raises(SystemExit):
        replay_entry_point.main([str(tmp_path / "b.pt")])
    assert "\x1b" not in capsys.readouterr().out
