"""Seeds of torch's generators, which are pure functions of (seed, step, rank)."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

# The 624 words of the Mersenne twister in the state of torch's CPU generator, as 64-bit integers.
_STATE_WORDS = slice(24, 24 + 624 * 8)


def dropout_seed(seed: int, step: int, rank: int, micro: int) -> int:
    """Return the seed of one forward pass in training.

    step: optimizer steps taken before it. micro: index of the micro-batch.
    """
    return _hash("dropout", seed, step, rank, micro)


def sample_seed(seed: int, step: int) -> int:
    """Return the seed of the text sample after a step."""
    return _hash("sample", seed, step)


def seed_generator(generator: torch.Generator, seed: int) -> torch.Generator:
    """Seed a CPU generator with all bits of a seed from 0 to 2^64 - 1.

    torch's manual_seed uses only the lowest 32 bits, so the dropout masks of 100,000 forward passes would repeat
    about once. A seed below 2^32 gives the state of manual_seed.
    """
    generator.manual_seed(seed)
    if seed >= 2**32:
        words = np.frombuffer(hashlib.shake_256(seed.to_bytes(8, "little")).digest(624 * 4), dtype="<u4")
        state = generator.get_state()
        state[_STATE_WORDS] = torch.from_numpy(words.astype(np.int64)).view(torch.uint8)
        generator.set_state(state)
    return generator


def _hash(stream: str, *numbers: int) -> int:
    """Return a 63-bit hash, the most that torch's generators accept."""
    key = " ".join([stream, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1
