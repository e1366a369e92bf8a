"""Calibration of `gptexp judge`: simulated nights, useless ideas on real runs, and a real night.

    python benchmarks/judge_calibration.py [--nights 2000 --ideas 200]     # simulated, by the command's decision code
    python benchmarks/judge_calibration.py --useless 60                    # real runs; ideas differ only in the seeds
    python benchmarks/judge_calibration.py --night --ideas 10              # real runs; ten ideas on speedrun_cpu

A simulated night judges ideas one after another on one line. Ideas share the runs of the base; a kept idea becomes the
base, with new seeds. A score is a level plus noise, which is normal or Student's t with 2.5 degrees of freedom. Effects
are in standard deviations of the difference of one pair.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import record

from gptexp.studies.ideas import base_of, idea_of
from gptexp.studies.judge import PILOTS, Given, judge, settings_idea
from gptexp.studies.ledger import KEPT
from gptexp.studies.online import FDR, FWER, Rules
from gptexp.studies.running import line
from gptexp.studies.sequential import KEEP, decide

EFFECTS = (0.5, 1.0, 2.0)
NOISES = ("normal", "t2.5")
SHARES = (0.0, 0.1)  # of useful ideas
SHALLOW = 3  # pairs in which most useless ideas should end
Draw = Callable[[tuple[int, ...]], np.ndarray]


@dataclass(kw_only=True)
class Counts:
    """What is counted over all nights. Per-night arrays have one number for each night."""

    kept: np.ndarray
    false: np.ndarray
    runs: np.ndarray
    pairs: dict[float, list[np.ndarray]] = field(default_factory=dict)  # by effect; 0 is useless
    found: dict[float, list[np.ndarray]] = field(default_factory=dict)

    @property
    def fdr(self) -> tuple[float, float]:
        """Mean share of useless ideas among those kept, and its Monte-Carlo standard error."""
        return _mean(self.false / np.maximum(self.kept, 1))

    @property
    def fwer(self) -> tuple[float, float]:
        return _mean((self.false > 0).astype(float))


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def noise(kind: str, generator: np.random.Generator) -> Draw:
    """Return a function that draws noise of runs, such that a difference of two has a standard deviation of 1."""
    if kind == "normal":
        return lambda shape: generator.standard_normal(shape) / math.sqrt(2)
    df = float(kind.removeprefix("t"))
    return lambda shape: generator.standard_t(df, shape) / math.sqrt(2 * df / (df - 2))


def simulate(kind: str, control: Rules, useful: float, *, nights: int, ideas: int, most: int, seed: int = 0) -> Counts:
    """Simulate nights; a share `useful` of the ideas has an effect from EFFECTS."""
    generator = np.random.default_rng(seed)
    draw = noise(kind, generator)
    kept_before = np.zeros(nights, dtype=int)
    base, scale = draw((nights, most)), math.sqrt(2) * draw((nights, PILOTS)).std(-1, ddof=1)
    counts = Counts(kept=np.zeros(nights), false=np.zeros(nights), runs=np.full(nights, float(PILOTS)))
    longest = np.zeros(nights, dtype=int)
    for t in range(1, ideas + 1):
        effect = np.where(generator.random(nights) < useful, generator.choice(EFFECTS, nights), 0.0)
        gains = base - draw((nights, most)) + effect[:, None]
        level = np.array([control.level(t, int(kept)) for kept in range(t)])[kept_before]
        verdict, pairs = decide(gains, scale[:, None], level[:, None], most)
        kept = verdict == KEEP
        counts.runs += pairs + np.maximum(pairs - longest, 0)  # of the idea, and new ones of the base
        longest = np.where(kept, 0, np.maximum(longest, pairs))
        counts.kept += kept
        counts.false += kept & (effect == 0)
        for size in (0.0, *EFFECTS):
            counts.pairs.setdefault(size, []).append(pairs[effect == size])
            counts.found.setdefault(size, []).append(kept[effect == size])
        kept_before = kept_before + kept
        used = np.arange(most) < np.maximum(pairs, 2)[:, None]
        scale = np.where(kept, np.std(gains, axis=-1, ddof=1, where=used), scale)
        base = np.where(kept[:, None], draw((nights, most)), base)
    return counts


def simulated(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print a Markdown table with a row for each control, noise and share of useful ideas; return the rows."""
    power = " | ".join(f"{effect:g} sd" for effect in EFFECTS)
    print(f"| control | noise | useful | FDR | FWER | {power} | useless | ≤ {SHALLOW} | runs |")
    print("|---" * (8 + len(EFFECTS)) + "|")
    rows: list[dict[str, Any]] = []
    for kind, noise_of_runs, useful in product((FDR, FWER), NOISES, SHARES):
        control = Rules(control=kind, ideas=options.ideas)
        sizes = {"nights": options.nights, "ideas": options.ideas, "most": options.max_seeds}
        counts = simulate(noise_of_runs, control, useful, **sizes)
        rows.append({"control": kind, "noise": noise_of_runs, "useful": useful, **figures(counts)})
        print(f"| {' | '.join(_cells(rows[-1]))} |", flush=True)
    return rows


def figures(counts: Counts) -> dict[str, Any]:
    """Return the errors with their Monte-Carlo standard errors, power and mean pairs by effect, and the mean cost."""
    useless = np.concatenate(counts.pairs[0.0])
    kept, pairs = ({size: np.concatenate(rows) for size, rows in of.items()} for of in (counts.found, counts.pairs))
    return {
        "fdr": counts.fdr,
        "fwer": counts.fwer,
        "power": {f"{size:g}": float(kept[size].mean()) for size in EFFECTS if kept[size].size},
        "pairs": {f"{size:g}": float(pairs[size].mean()) for size in EFFECTS if pairs[size].size},
        "pairs_of_useless": float(useless.mean()),
        "shallow": float((useless <= SHALLOW).mean()),
        "runs": float(counts.runs.mean()),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    powers = [
        f"{row['power'][size]:.0%}, {row['pairs'][size]:.1f}" if size in row["power"] else "–"
        for size in map("{:g}".format, EFFECTS)
    ]
    errors = [f"{mean:.2%} ± {error:.2%}" for mean, error in (row["fdr"], row["fwer"])]
    useful = "none" if not row["useful"] else f"{row['useful']:.0%}"
    cost = [f"{row['pairs_of_useless']:.1f}", f"{row['shallow']:.0%}", f"{row['runs']:,.0f}"]
    return [row["control"], row["noise"], useful, *errors, *powers, *cost]


# ---------------------------------------------------------------------------------- real runs


SECOND = (  # an experiment that takes about a second
    "data=shakespeare model=mini_gpt model.n_layer=1 model.n_embd=32 model.n_head=2 model.block_size=32 trainer=cpu "
    "trainer.max_steps=60 trainer.val_every_steps=60 data.val_bytes=20000 callbacks.samples.tokens=0 "
    "logger.tensorboard=false optimizer=adamw optimizer.lr=1e-2"
)
NIGHT = (
    "model.activation=relu2 model.mlp_ratio=4",
    "optimizer.weight_decay=0",
    "optimizer.lr=7e-3",
    "optimizer.beta2=0.99",
    "schedule.warmup_steps=20",
    "model.n_layer=3",
    "trainer.gradient_clip=null",
    "optimizer.momentum=0.9",
    "model.dropout=0.05",
    "optimizer.muon_lr=1e-2",
)


def useless(count: int, logs: Path) -> list[dict[str, Any]]:
    """Judge ideas that differ from the base in nothing but the seeds of their runs."""
    base = base_of(SECOND)
    rows: list[dict[str, Any]] = []
    for k in range(1, count + 1):
        idea = settings_idea(base, f"other seeds {k}", shift=k * 10**6)
        rows.append(judge(base, idea, Given(), logs, print).entry.as_plain())
        print(rows[-1]["verdict"], flush=True)
    return rows


def night(logs: Path, given: Given) -> list[dict[str, Any]]:
    """Judge ten ideas, each against the base with all kept ideas; beside it, a greedy rule that looks at one seed."""
    start = "experiment=speedrun_cpu"
    judged = greedy = start
    rows: list[dict[str, Any]] = []
    best = _one_seed(start, logs)
    for idea in NIGHT:
        base = base_of(judged)
        entry = judge(base, settings_idea(idea_of(base, idea), idea), given, logs, print).entry
        judged += f" {idea}" * (entry.verdict == KEPT)
        score = _one_seed(f"{greedy} {idea}", logs)
        rows.append(
            {**entry.as_plain(), "greedy": "keep" if score < best else "discard", "greedy_difference": score - best}
        )
        greedy, best = (f"{greedy} {idea}", score) if score < best else (greedy, best)
        print(f"{idea}: {entry.verdict}; greedy: {rows[-1]['greedy']} ({score:.4f})", flush=True)
    return rows


def night_table(rows: list[dict[str, Any]]) -> str:
    """Return the ideas of a real night as a Markdown table."""
    lines = [
        "| idea | greedy: difference on one seed | greedy | pairs | effect, 95% interval | evidence of | verdict |",
        "|---|--:|---|--:|---|--:|---|",
    ]
    for row in rows:
        between = "" if row["low"] is None else f", {row['low']:+.4f} to {row['high']:+.4f}"
        evidence = f"{row['evidence']:,.1f} of {row['threshold']:,.0f}"
        cells = [f"`{row['idea_text']}`", f"{row['greedy_difference']:+.4f}", row["greedy"], str(row["pairs"])]
        cells += [f"{row['effect']:+.4f}{between}", evidence, row["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _one_seed(settings: str, logs: Path) -> float:
    """Return the score of an experiment with seed 1."""
    composed = base_of(settings)
    with line(logs / "greedy", "greedy", composed.config) as runs:
        return runs.run(composed.identity, composed.config, 1)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nights", type=int, default=2000, help="simulated nights (default: 2000)")
    p.add_argument("--ideas", type=int, default=200, help="ideas in a night (default: 200)")
    p.add_argument("--max-seeds", type=int, default=32, help="most pairs for one idea (default: 32)")
    p.add_argument("--useless", type=int, metavar="N", help="judge N ideas that differ only in seeds, on real runs")
    p.add_argument("--night", action="store_true", help="judge ten ideas on experiment=speedrun_cpu, on real runs")
    p.add_argument("--logs", type=Path, default=Path("logs/calibration"), help="of real runs; default: %(default)s")
    record.add_option(p, "judge_calibration")
    options = p.parse_args()
    if options.useless:
        record.save(options.json, useless(options.useless, options.logs))
    elif options.night:
        given = Given(ideas=options.ideas, most=options.max_seeds)
        rows = night(options.logs, given)
        print(night_table(rows))
        record.save(options.json, rows)
    else:
        record.save(options.json, simulated(options))


if __name__ == "__main__":
    main()
