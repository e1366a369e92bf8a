"""Which part each sample of a mixture belongs to: after every sample, each part has its share to within one sample.

With shares λ_i of sum 1, the nth sample of part i comes after ⌊(n-1)/λ_i⌋ and at most at ⌈n/λ_i⌉, so that its count
after K samples is above λ_i K - 1 and below λ_i K + 1. Such a sequence exists (Tijdeman, "The chairman assignment
problem", Discrete Mathematics 32, 1980; even for 1 - 1/(2n-2) instead of 1). Taking the sample with the earliest
deadline finds one, because the periods are intervals (Steiner & Yeomans, "Level schedules for mixed-model, just-in-time
processes", Management Science 39, 1993), but it would have to count from the first sample.

Therefore the counts after each block of samples are computed from the shares alone, and the block between two of them
is filled by earliest deadline. By Hall's theorem this succeeds if, at each border, (F) for every h the samples due
within h after it fit into h, and (B) those that can only have been taken in the last h before it fit into h. A part's
count at a border is ⌊λ_i K⌋ or one more. (B) limits how many of the parts released in the last h have one more, for
nested sets of parts, so the admissible choices are the independent sets of a laminar matroid. The greedy choice by
deadline has in every prefix of that order as many members as any independent set. The counts of Tijdeman's sequence
fulfil (F) and (B), and (F) asks only for enough members in prefixes, so the greedy choice fulfils both. A block is as
long as the longest period, so no count decreases from one border to the next.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

BLOCK = 1024  # least samples of a block
LARGEST_PERIOD = 100_000  # no share is smaller than its inverse


@dataclass(frozen=True)
class Apportionment:
    """The parts of all samples, with random access. weights: of the parts, whole numbers; only their ratios matter."""

    weights: tuple[int, ...]

    @classmethod
    def of(cls, weights: Sequence[float]) -> Apportionment:
        """Return the apportionment by weights, each taken as the decimal number that it is written as."""
        exact = [Fraction(repr(float(weight))) for weight in weights]
        scale = math.lcm(*(weight.denominator for weight in exact))
        whole = [int(weight * scale) for weight in exact]
        return cls(tuple(weight // math.gcd(*whole) for weight in whole))

    @property
    def total(self) -> int:
        return sum(self.weights)

    @property
    def period(self) -> int:
        """The longest distance of two samples of one part, if they were evenly spaced."""
        return -(-self.total // min(self.weights))

    @property
    def block(self) -> int:
        """The number of samples that are computed together."""
        return max(BLOCK, self.period)

    def counts(self, k: int) -> list[int]:
        """Return how many of the first k samples belong to each part."""
        nth, within = divmod(k, self.block)
        parts, _ = _block(self, nth)
        taken = np.bincount(parts[:within], minlength=len(self.weights))
        return [before + int(more) for before, more in zip(_border(self, nth), taken, strict=True)]

    def parts(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the parts of samples first … first + count - 1, (count,), and their numbers in them, (count,)."""
        found = [_block(self, nth) for nth in range(first // self.block, (first + max(count, 1) - 1) // self.block + 1)]
        begin = first % self.block
        parts, numbers = (np.concatenate(arrays)[begin : begin + count] for arrays in zip(*found, strict=True))
        return parts, numbers

    def array(self, values: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return numbers up to about total × block, as exact integers of any size."""
        return np.asarray(values, dtype=np.int64 if self.total * (self.block + 2) < 2**62 else object)


@lru_cache(maxsize=64)
def _border(of: Apportionment, nth: int) -> tuple[int, ...]:
    """Return the count of each part after the first `nth` blocks."""
    total, k = of.total, nth * of.block
    counts = [weight * k // total for weight in of.weights]
    rests = [weight * k % total for weight in of.weights]
    missing, since = k - sum(counts), np.arange(1, of.block + 1)
    room = of.array(since)  # for samples taken in the last `since`, besides those that every choice has
    for weight, rest in zip(of.weights, rests, strict=True):
        room = room - np.maximum((total - rest + weight * of.array(since)) // total - 1, 0)
    urgent = sorted((Fraction(total - rest, of.weights[i]), i) for i, rest in enumerate(rests) if rest)
    for _, i in urgent:
        released = -(-rests[i] // of.weights[i]) - 1
        if missing and room[released:].min() >= 1:
            room[released:] -= 1
            counts[i], missing = counts[i] + 1, missing - 1
    assert missing == 0
    return tuple(counts)


@lru_cache(maxsize=16)
def _block(of: Apportionment, nth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of each sample of a block, (block,), and its number in that part, (block,) int64."""
    begin, end, k = _border(of, nth), _border(of, nth + 1), nth * of.block
    jobs = [job for i in range(len(begin)) for job in _jobs(of, i, begin[i], end[i], k)]
    jobs.sort()
    waiting: list[tuple[int, int]] = []
    parts, numbers = np.empty(of.block, dtype=np.int16), np.empty(of.block, dtype=np.int64)
    taken, released = list(begin), 0
    for at in range(of.block):
        while released < len(jobs) and jobs[released][0] <= at:
            heapq.heappush(waiting, jobs[released][1:])
            released += 1
        deadline, i = heapq.heappop(waiting)
        assert deadline > at
        parts[at], numbers[at] = i, taken[i]
        taken[i] += 1
    return parts, numbers


def _jobs(of: Apportionment, i: int, begin: int, end: int, k: int) -> list[tuple[int, int, int]]:
    """Return the samples of a part in the block after k as (release, deadline, part), in samples after k."""
    weight, total = of.weights[i], of.total
    ahead = of.array([(begin * total - weight * k)])[0] + total * of.array(range(end - begin))
    releases = np.maximum(ahead // weight, 0)
    deadlines = np.minimum(-(-(ahead + total) // weight), of.block)
    return list(zip(releases.tolist(), deadlines.tolist(), [i] * (end - begin), strict=True))
