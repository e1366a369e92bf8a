"""Where a difference lies: the loss of two configurations in bins of validation tokens, paired by seed.

`evaluation.token_losses` computes a `BinnedLoss` of each run; `located` pairs them. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from gptexp.report import statistics
from gptexp.report.statistics import Difference


@dataclass(frozen=True, eq=False)
class BinnedLoss:
    """The loss of one run in the bins of one split.

    title: of the split, for example `place in 128`. labels, tokens, nats: of each bin, (K,); nats are sums.
    """

    title: str
    labels: Sequence[str]
    tokens: NDArray[np.int64]
    nats: NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """A part of the validation tokens. baseline, loss: nats per token, means over the seeds. share: of all tokens."""

    label: str
    tokens: int
    share: float
    baseline: float
    loss: float
    difference: Difference

    @property
    def contribution(self) -> float:
        """The part of the difference of all tokens that this bin explains."""
        return self.share * self.difference.mean


@dataclass(frozen=True)
class Split:
    """The bins of one split that have tokens."""

    title: str
    bins: list[Bin]


@dataclass(frozen=True)
class Located:
    """Where one configuration differs from the baseline. window: the larger block_size of both, smaller: the other.

    total: all tokens as one bin. deviation: the largest difference between a loss here and that in result.json.
    """

    label: str
    baseline: str
    window: int
    smaller: int
    splits: list[Split]
    total: Bin
    deviation: float


@dataclass(frozen=True)
class Where:
    """What `compare --where` adds. absent: why runs or configurations are not included."""

    located: list[Located]
    absent: list[str]


Losses = Mapping[int, Sequence[BinnedLoss]]  # by seed


def splits_of(losses: Losses, baseline: Losses) -> tuple[list[Split], Bin]:
    """Return the splits that both have, and all tokens as one bin.

    If at least two seeds are shared, only these count, so that every number belongs to the same runs.
    """
    shared = losses.keys() & baseline.keys()
    if len(shared) > 1 or (shared and min(len(losses), len(baseline)) == 1):
        losses, baseline = ({seed: both[seed] for seed in sorted(shared)} for both in (losses, baseline))
    ours, theirs = ({seed: {b.title: b for b in run} for seed, run in side.items()} for side in (losses, baseline))
    names = [binned.title for binned in next(iter(losses.values()))]
    splits = [
        Split(name, list(_bins({s: run[name] for s, run in ours.items()}, {s: run[name] for s, run in theirs.items()})))
        for name in names
    ]
    (total,) = _bins(_summed(losses), _summed(baseline))
    return splits, total


def _summed(losses: Losses) -> dict[int, BinnedLoss]:
    """All tokens of each run as one bin; every split has them all."""
    return {
        seed: BinnedLoss("", ("all",), run[0].tokens.sum(keepdims=True), run[0].nats.sum(keepdims=True))
        for seed, run in losses.items()
    }


def _bins(losses: Mapping[int, BinnedLoss], baseline: Mapping[int, BinnedLoss]) -> Iterator[Bin]:
    one = next(iter(losses.values()))
    for k, (label, tokens) in enumerate(zip(one.labels, one.tokens.tolist(), strict=True)):
        if tokens:
            ours = {seed: float(run.nats[k]) / tokens for seed, run in losses.items()}
            theirs = {seed: float(run.nats[k]) / tokens for seed, run in baseline.items()}
            found = statistics.difference(ours, theirs)
            share = tokens / int(one.tokens.sum())
            yield Bin(label, tokens, share, fmean(theirs.values()), fmean(ours.values()), found)
