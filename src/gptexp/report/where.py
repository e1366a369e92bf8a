"""Where a difference lies: the loss of two configurations in bins of validation tokens, paired by seed.

`evaluation.token_losses` computes a `BinnedLoss` of each run; `paired` pairs them. Nothing here imports torch.
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
    """The loss of one run in K bins. labels, tokens, nats: of each bin; nats are sums."""

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
class Located:
    """Where one configuration differs from the baseline. window: the larger block_size of both, smaller: the other.

    splits: by name, the bins that have tokens. total: all tokens. deviation: the largest difference between a loss
    here and that in result.json.
    """

    label: str
    baseline: str
    window: int
    smaller: int
    splits: dict[str, list[Bin]]
    total: Bin
    deviation: float


@dataclass(frozen=True)
class Where:
    """What `compare --where` adds. absent: why runs or configurations are not included."""

    located: list[Located]
    absent: list[str]


ALL = "all"  # the split that has one bin, all tokens
Losses = Mapping[int, Mapping[str, BinnedLoss]]  # by seed and split


def paired(losses: Losses, baseline: Losses) -> dict[str, list[Bin]]:
    """Return the bins of each split.

    If at least two seeds are shared, only these count, so that every number belongs to the same runs.
    """
    shared = losses.keys() & baseline.keys()
    if len(shared) > 1 or (shared and min(len(losses), len(baseline)) == 1):
        losses, baseline = ({seed: both[seed] for seed in sorted(shared)} for both in (losses, baseline))
    ours, theirs = ([*side.items()] for side in (losses, baseline))
    return {
        name: list(_bins({seed: run[name] for seed, run in ours}, {seed: run[name] for seed, run in theirs}))
        for name in ours[0][1]
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
