"""Law 1: everything random is a pure function of (seed, step, rank); here are the draws that torch makes."""

from __future__ import annotations

import numpy as np

_SAMPLE = 1


def dropout_seed(seed: int, step: int, rank: int, micro: int) -> int:
    """Of one forward pass in training. step: optimizer steps taken before it."""
    return _word((seed, step, rank, micro))


def sample_seed(seed: int, step: int) -> int:
    """Of the text that is written after a step."""
    return _word((seed, step, _SAMPLE))


def _word(key: tuple[int, ...]) -> int:
    """63 well-mixed bits; torch's generators take no more."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
