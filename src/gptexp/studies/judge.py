"""Judge an idea against a base: paired runs on the same seeds, a sequential test, and an entry in the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from gptexp.runs.code_hash import all_code_sha256
from gptexp.studies import ledger
from gptexp.studies.ideas import Composed
from gptexp.studies.ledger import Entry
from gptexp.studies.online import Rules
from gptexp.studies.running import Line, line
from gptexp.studies.sequential import (
    CONTINUE,
    DISCARD,
    UNDECIDED,
    VERDICTS,
    decide,
    interval,
    log_evidence,
    pairs_needed,
)
from gptexp.util.errors import ConfigError

FOLDER = "judge"  # below logs/
BLOCK = 1000  # seeds of a base; its last ones are of the pilot runs
MOST_SEEDS = 900
PILOTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Idea:
    """What is judged.

    key: identity of its settings, or its commit. text: as typed. became: identity of a base that adopts it.
    gain: returns the score of the base minus the score of the idea on a seed, and runs what is missing.
    """

    key: str
    text: str
    became: str
    gain: Callable[[Line, Entry, Composed, int], float]


def settings_idea(idea: Composed, changes: str, shift: int = 0) -> Idea:
    """Return an idea that changes settings. shift is added to the seeds of its runs; only the calibration uses it."""

    def gain(line: Line, entry: Entry, base: Composed, seed: int) -> float:
        score = line.run(f"base{entry.base}", base.config, seed)
        return score - line.run(f"idea{entry.t}", idea.config, seed + shift)

    key = f"{idea.identity}+{shift}" if shift else idea.identity
    return Idea(key=key, text=changes, became=idea.identity, gain=gain)


class Given(TypedDict, total=False):
    """Rules as the command line gives them; without a value: as in the line, else the default."""

    control: str | None
    alpha: float | None
    ideas: int | None
    most: int | None
    margin: float | None


def rules_of(entries: list[Entry], given: Given) -> Rules:
    """Return the rules of a line, which its first idea fixes.

    Raises:
        ConfigError: another rule is given.
    """
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    rules = entries[0].rules if entries else replace(Rules(), **values)
    for name, value in values.items():
        if value != getattr(rules, name):
            raise ConfigError(
                f"{'--max-seeds' if name == 'most' else f'--{name}'}={value}: this line of bases was begun with "
                f"{getattr(rules, name)}, and a change would invalidate its error control; leave the option out, or "
                "use another --logs folder"
            )
    return rules


@dataclass(frozen=True, slots=True)
class Outcome:
    """The entry of a judged idea. is_stored: it had been judged before, and nothing was run."""

    entry: Entry
    is_stored: bool


Say = Callable[[str], None]


def judge(base: Composed, idea: Idea, given: Given, logs: Path, say: Say) -> Outcome:
    """Return the verdict on an idea; repeat the call to continue one that was interrupted.

    Raises:
        ConfigError: the rules are those of another line, or no further idea may be judged.
        RunError: a run failed, or the ledger is damaged.
    """
    path = logs / ledger.LEDGER
    name = ledger.line_of(ledger.read(path), base.identity) or base.identity
    with line(logs / FOLDER / name, name, base.config) as runs:
        entries = [entry for entry in ledger.read(path) if entry.line == name]
        entry = _entry(entries, name, base, idea, rules_of(entries, given))
        if stored := ledger.verdict_of(entries, entry):
            return Outcome(stored, is_stored=True)
        if entry.level <= 0:
            raise ConfigError(
                f"--ideas={entry.rules.ideas}: this line has judged that many ideas, and --control fwer allows no "
                "more; begin a line with another --logs folder"
            )
        _announce(entry, entries, say)
        if entry not in entries:
            ledger.append(path, entry := replace(entry, scale=entry.scale or _pilot(runs, base)))
        judged = _test(entry, base, idea, runs, say)
        ledger.append(path, judged)
    return Outcome(judged, is_stored=False)


def _entry(entries: list[Entry], name: str, base: Composed, idea: Idea, rules: Rules) -> Entry:
    """Return the entry with which the idea was started, or a new one; its scale is 0 if pilot runs must give it."""
    kept = [entry for entry in entries if entry.verdict == ledger.KEPT]
    same = next((e for e in entries if (e.base_identity, e.code) == (base.identity, all_code_sha256())), None)
    new = Entry(
        line=name,
        rules=rules,
        metric=base.config.objective.best_by,
        base=same.base if same else 1 + max((entry.base for entry in entries), default=-1),
        base_identity=base.identity,
        base_text=base.text,
        code=all_code_sha256(),
        idea=idea.key,
        idea_text=idea.text,
        became=idea.became,
        t=1 + sum(entry.verdict is None for entry in entries),
        kept=same.kept if same else len(kept),
        scale=same.scale if same else _scale_of(kept[-1].gains) if kept else entries[-1].scale if entries else 0.0,
    )
    return next((entry for entry in entries if entry.verdict is None and entry.is_same_idea(new)), new)


def _scale_of(gains: list[float]) -> float:
    """Return the spread of the gains of a kept idea, the expected scale of gains over the next base."""
    return float(np.std(gains, ddof=1)) or 1e-9


def _pilot(runs: Line, base: Composed) -> float:
    """Return the expected spread of a gain, from runs of the line's first base on seeds that no idea is judged on."""
    scores = [runs.run("base0", base.config, BLOCK - PILOTS + i) for i in range(PILOTS)]
    return math.sqrt(2) * float(np.std(scores, ddof=1)) or 1e-9


def seed_of(entry: Entry, pair: int) -> int:
    """Return the seed of a pair, from 0. No two bases of a line share seeds."""
    return BLOCK * entry.base + pair + 1


def _announce(entry: Entry, entries: list[Entry], say: Say) -> None:
    if not entries:
        say(f"new line {entry.line}: --base is neither a base nor a kept idea of an earlier line")
    elif entry.base > max(e.base for e in entries):
        known = entry.base_identity in {e.base_identity for e in entries}
        what = "with changed code" if known else "a kept idea"
        say(f"line {entry.line}: new base {entry.base}, {what}, on new seeds")
    say(
        f"line {entry.line} · base {entry.base} · idea {entry.t} · {entry.rules.control} {entry.rules.alpha:.0%} · "
        f"kept at evidence {entry.threshold:,.0f}"
    )


def _test(entry: Entry, base: Composed, idea: Idea, runs: Line, say: Say) -> Entry:
    """Run pairs until the test ends, and return the entry with its outcome."""
    gains: list[float] = []
    verdict = CONTINUE
    while verdict == CONTINUE:
        seed = seed_of(entry, len(gains))
        gains.append(idea.gain(runs, entry, base, seed))
        tested = np.array(gains) - entry.rules.margin
        found, _ = decide(tested[None], entry.scale, entry.level, entry.rules.most)
        verdict = int(found[0])
        evidence = math.exp(log_evidence(tested, entry.scale)[-1])
        say(f"pair {len(gains):2} · seed {seed} · difference {-gains[-1]:+.4f} · evidence {evidence:,.2f}")
    low, high = interval(-np.array(gains), entry.scale)
    if verdict == UNDECIDED and low >= -entry.rules.margin:
        verdict = DISCARD
    elif verdict == DISCARD and high < -entry.rules.margin:
        verdict = UNDECIDED  # better, if it were the only idea
    return replace(
        entry,
        time=ledger.now(),
        verdict=VERDICTS[verdict],
        gains=gains,
        evidence=evidence,
        effect=-float(np.mean(gains)),
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        needed=pairs_needed(tested, entry.scale, entry.level),
    )
