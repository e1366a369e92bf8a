"""ledger.jsonl: entries survive a kill while one is written, damage is named, and lines are found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gptexp.studies.ledger import Entry, append, line_of, read, unfinished, verdict_of
from gptexp.studies.online import Rules
from gptexp.util.errors import RunError

START = Entry(
    line="aaaa1111",
    rules=Rules(),
    metric="val/bpb",
    base=0,
    base_identity="aaaa1111",
    base_text="model=bigram",
    code="c0de",
    idea="bbbb2222",
    idea_text="optimizer.lr=0.1",
    became="bbbb2222",
    t=1,
    kept=0,
    scale=0.01,
)
KEPT = replace(START, verdict="keep", gains=[0.1, 0.2], evidence=9.0, effect=-0.15, low=None, high=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "ledger.jsonl"


def test_entries_are_read_as_they_were_appended(path: Path) -> None:
    assert read(path) == []
    append(path, START)
    append(path, KEPT)
    assert read(path) == [START, KEPT]
    stored = json.loads(path.read_text(encoding="utf-8").splitlines()[1])
    assert (stored["pairs"], stored["threshold"]) == (2, pytest.approx(5000))


def test_a_line_cut_by_a_kill_is_dropped_by_the_next_append(path: Path) -> None:
    append(path, START)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert read(path) == [START]
    append(path, KEPT)
    assert read(path) == [START, KEPT]


@pytest.mark.parametrize("bad", ["{}", "[]", "no json", '{"line": 3}', "null"])
def test_a_damaged_line_is_named_with_its_number(path: Path, bad: str) -> None:
    append(path, START)
    path.write_text(path.read_text(encoding="utf-8") + bad + "\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"ledger\.jsonl: line 2 is damaged .*backup"):
        read(path)


@pytest.mark.parametrize("change", [{"line": "../up"}, {"scale": -1.0}, {"t": 0}, {"t": "x"}])
def test_a_value_out_of_range_is_refused(path: Path, change: dict[str, object]) -> None:
    stored = {**START.as_plain(), **change}
    path.parent.mkdir()
    path.write_text(json.dumps(stored) + "\n", encoding="utf-8")
    with pytest.raises(RunError, match="line 1 is damaged"):
        read(path)


def test_a_link_in_place_of_the_ledger_is_not_written_through(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        append(path, START)
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_is_found_by_its_bases_and_by_kept_ideas() -> None:
    discarded = replace(KEPT, verdict="discard", idea="cccc3333", became="cccc3333")
    entries = [START, KEPT, discarded]
    assert line_of(entries, "aaaa1111") == line_of(entries, "bbbb2222") == "aaaa1111"
    assert line_of(entries, "cccc3333") is None


def test_an_idea_has_an_outcome_or_is_unfinished() -> None:
    other = replace(START, idea="dddd4444", t=2)
    assert verdict_of([START, KEPT, other], START) == KEPT
    assert verdict_of([START, KEPT, other], other) is None
    assert unfinished([START, KEPT, other]) == [other]
