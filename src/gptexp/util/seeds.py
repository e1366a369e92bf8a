"""Law 1: everything random is a pure function of (seed, step, rank); here are the draws that torch makes."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

_WORDS = slice(24, 24 + 624 * 8)  # of the state of torch's CPU generator: the 624 words of a Mersenne twister


def dropout_seed(seed: int, step: int, rank: int, micro: int) -> int:
    """Of one forward pass in training. step: optimizer steps taken before it."""
    return _word("dropout", seed, step, rank, micro)


def sample_seed(seed: int, step: int) -> int:
    """Of the text that is written after a step."""
    return _word("sample", seed, step)


def seed_generator(generator: torch.Generator, seed: int) -> torch.Generator:
    """Seed a CPU's generator with all bits of a seed from 0 to 2^64 - 1; torch's manual_seed reads the lowest 32.

    With 32 bits the masks of a run of 100,000 forward passes would repeat about once. A seed below 2^32 is
    manual_seed's own.
    """
    generator.manual_seed(seed)
    if seed >= 2**32:
        words = np.frombuffer(hashlib.shake_256(seed.to_bytes(8, "little")).digest(624 * 4), dtype="<u4")
        state = generator.get_state()
        state[_WORDS] = torch.from_numpy(words.astype(np.int64)).view(torch.uint8)
        generator.set_state(state)
    return generator


def _word(stream: str, *numbers: int) -> int:
    """63 bits that no other stream or numbers have; torch's generators take no more."""
    key = " ".join([stream, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1
