"""judge: base runs are shared, nothing is judged twice, a kept idea continues the line, rules are fixed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from gptexp.studies import judge as judging
from gptexp.studies import ledger
from gptexp.studies.ideas import base_of, idea_of
from gptexp.studies.judge import Given, Outcome, judge, seed_of, settings_idea
from gptexp.studies.online import Rules
from gptexp.studies.running import Line
from gptexp.util.errors import ConfigError
from support.runs import TINY, story

BASE = " ".join([*TINY, "model=bigram", "data.path=story.txt", "optimizer.lr=0.01"])
LOGS = Path("logs")
BETTER, USELESS, WORSE = "optimizer.lr=0.02", "optimizer.beta1=0.8", "optimizer.lr=0.5"
LEVELS = {0.02: 1.9, 0.5: 2.5}  # scores by learning rate; others have 2

Scores = Callable[[str, Any, int], float]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "story.txt").write_text(story(120), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace training by scores with noise; return the list of (name, seed) of all runs."""
    done: list[tuple[str, int]] = []

    def run(line: Line, name: str, config: Any, seed: int) -> float:
        done.append((name, seed))
        noise = np.random.default_rng([seed, *name.encode()]).standard_normal()
        return float(LEVELS.get(config.lr, 2.0) + 0.01 * noise)

    monkeypatch.setattr(Line, "run", run)
    return done


def ask(idea: str, base: str = BASE, said: list[str] | None = None, **rules: Any) -> Outcome:
    composed = base_of(base)
    say = (said if said is not None else []).append
    return judge(composed, settings_idea(idea_of(composed, idea), idea), cast("Given", rules), LOGS, say)


def test_a_clear_improvement_is_kept_with_its_effect_and_interval(runs: list[tuple[str, int]]) -> None:
    entry = ask(BETTER).entry
    assert (entry.verdict, entry.t, entry.base, len(entry.gains)) == ("keep", 1, 0, 13)
    assert entry.evidence is not None
    assert entry.evidence >= entry.threshold == pytest.approx(5000)
    assert entry.effect == pytest.approx(-0.1, abs=0.01)
    assert entry.low is not None
    assert entry.high is not None
    assert -0.13 < entry.low < -0.1 < entry.high < -0.08
    assert set(runs) == {
        *(("base0", seed) for seed in (996, 997, 998, 999)),
        *((name, seed) for name in ("base0", "idea1") for seed in range(1, 14)),
    }


def test_a_worse_idea_is_discarded_after_one_pair(runs: list[tuple[str, int]]) -> None:
    entry = ask(WORSE).entry
    assert (entry.verdict, len(entry.gains), entry.low) == ("discard", 1, None)
    assert entry.needed is None


def test_pilot_runs_are_of_the_first_idea_only_and_base_seeds_are_shared(runs: list[tuple[str, int]]) -> None:
    ask(WORSE)
    first = len(runs)
    entry = ask(USELESS).entry
    assert entry.t == 2
    assert runs[:4] == [("base0", seed) for seed in (996, 997, 998, 999)]
    assert {seed for _, seed in runs[first:]} == set(range(1, len(entry.gains) + 1))


def test_a_judged_idea_is_answered_from_the_ledger(runs: list[tuple[str, int]]) -> None:
    first = ask(BETTER)
    count = len(runs)
    again = ask(BETTER)
    assert (first.is_stored, again.is_stored, len(runs)) == (False, True, count)
    assert again.entry == first.entry


def test_a_kept_idea_becomes_the_base_on_new_seeds(runs: list[tuple[str, int]]) -> None:
    line = ask(BETTER).entry.line
    said: list[str] = []
    entry = ask(USELESS, f"{BASE} {BETTER}", said).entry
    assert (entry.line, entry.base, entry.kept, entry.t) == (line, 1, 1, 2)
    assert entry.threshold == pytest.approx(2500)
    assert seed_of(entry, 0) == 1001
    assert ("base1", 1001) in runs
    assert ("base1", 1) not in runs
    assert said[0] == f"line {line}: new base 1, a kept idea, on new seeds"
    assert entry.scale == pytest.approx(0.01 * 2**0.5, rel=0.6)


def test_an_unrelated_base_begins_a_line_and_says_so(runs: list[tuple[str, int]]) -> None:
    ask(WORSE)
    said: list[str] = []
    entry = ask(USELESS, f"{BASE} {WORSE}", said).entry
    assert entry.t == 1
    assert said[0].startswith(f"new line {entry.line}: --base is neither")


def test_changed_code_is_a_new_base_of_the_same_line(
    runs: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(WORSE).entry
    monkeypatch.setattr(judging, "all_code_sha256", lambda: "other")
    said: list[str] = []
    entry = ask(WORSE, said=said).entry
    assert (entry.line, entry.base, entry.t) == (first.line, 1, 2)
    assert "with changed code" in said[0]


def test_an_interrupted_idea_keeps_its_number_and_level(
    runs: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Line.run

    def interrupted(line: Line, name: str, config: Any, seed: int) -> float:
        if seed == 5:
            raise KeyboardInterrupt
        return whole(line, name, config, seed)

    with monkeypatch.context() as patch:
        patch.setattr(Line, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask(BETTER)
    assert ask(WORSE).entry.t == 2
    entry = ask(BETTER).entry
    assert (entry.t, entry.verdict) == (1, "keep")
    assert [e.t for e in ledger.read(LOGS / ledger.LEDGER)] == [1, 2, 2, 1]


def test_an_improvement_below_the_margin_is_not_kept(runs: list[tuple[str, int]]) -> None:
    assert ask(BETTER, margin=0.2).entry.verdict == "discard"


def test_the_first_idea_fixes_the_rules_of_its_line(runs: list[tuple[str, int]]) -> None:
    ask(WORSE, most=20, control="fwer", ideas=5)
    assert ask(USELESS).entry.rules == Rules(control="fwer", ideas=5, most=20)
    with pytest.raises(ConfigError, match=r"--max-seeds=32: .* begun with 20"):
        ask(BETTER, most=32)
    with pytest.raises(ConfigError, match=r"--margin=0\.1: .* begun with 0\.0"):
        ask(BETTER, margin=0.1)


def test_fwer_allows_no_more_ideas_than_planned(runs: list[tuple[str, int]]) -> None:
    for rate in ("0.5", "0.6"):
        ask(f"optimizer.lr={rate}", control="fwer", ideas=2)
    with pytest.raises(ConfigError, match=r"--ideas=2: this line has judged that many"):
        ask(BETTER)
    assert ask("optimizer.lr=0.5").is_stored


def test_a_changed_text_is_refused(runs: list[tuple[str, int]], place: Path) -> None:
    ask(WORSE)
    (place / "story.txt").write_text(story(121), encoding="utf-8")
    with pytest.raises(ConfigError, match="the text of data=text has changed"):
        ask(USELESS)


def test_promising_but_unproven_is_undecided_with_the_pairs_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(line: Line, name: str, config: Any, seed: int) -> float:
        spread = 0.001 * (-1) ** seed if seed > 990 else 0.0
        return 2.0 + spread - (0.0 if name == "base0" else 0.1 if seed < 7 else -0.0001)

    monkeypatch.setattr(Line, "run", run)
    entry = ask(USELESS, most=7, ideas=3).entry
    assert entry.threshold == pytest.approx(75)
    assert (entry.verdict, len(entry.gains)) == ("undecided", 7)
    assert entry.needed is not None
    assert entry.needed == 7


def test_a_base_that_no_seed_changes_is_judged_by_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "run", lambda line, name, config, seed: LEVELS.get(config.lr, 2.0))
    assert ask(BETTER).entry.verdict == "keep"
    assert ask(USELESS).entry.verdict == "discard"
