"""Independent streams of random numbers, and a generator that uses all bits of its seed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from gptexp.models.kernels.dropout import dropout_mask
from gptexp.util.seeds import dropout_seed, sample_seed, seed_generator


def drawn(seed: int, count: int = 1500) -> list[int]:
    """More numbers than one block of the Mersenne Twister."""
    return torch.randint(2**31, (count,), generator=seed_generator(torch.Generator(), seed)).tolist()


def test_no_two_forward_passes_or_samples_share_a_seed() -> None:
    seeds = (0, 1, 2**32, 2**32 + 1, 2**63 - 1)
    passes = [dropout_seed(*key) for key in product(seeds, range(20), range(3), range(3))]
    samples = [sample_seed(*key) for key in product(seeds, range(20))]
    assert len({*passes, *samples}) == len(passes) + len(samples)


@pytest.mark.parametrize("seed", [dropout_seed(1, 2, 0, 0), 2**63 - 1, 2**32])
def test_seeds_with_equal_low_32_bits_draw_other_numbers(seed: int) -> None:
    others = [seed ^ 1 << bit for bit in range(32, 63)] + [seed % 2**32]
    assert len({tuple(drawn(s, 4)) for s in {seed, *others}}) == len({seed, *others})


def test_masks_of_forward_passes_with_equal_low_bits_differ() -> None:
    masks = []
    for seed in (5 + 2**40, 5 + 2**41):
        with torch.random.fork_rng(devices=[]):
            seed_generator(torch.default_generator, seed)
            masks.append(dropout_mask((64,), 0.5, torch.float32))
    assert not torch.equal(*masks)


def test_the_whole_state_of_the_generator_depends_only_on_the_seed() -> None:
    generator = seed_generator(torch.Generator(), 2**40)
    words = generator.get_state()[24 : 24 + 624 * 8].view(torch.int64).numpy()
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words.astype(np.uint32), "pos": 624}}
    theirs = twister.random_raw(3000) & (2**31 - 1)
    ours = torch.randint(2**31, (3000,), generator=generator).numpy()
    assert np.isin(ours[:1000], theirs).all()  # one draw can use two numbers of the Mersenne Twister
    assert generator.initial_seed() == 2**40


def test_a_used_generator_is_seeded_identically() -> None:
    used = torch.Generator().manual_seed(3)
    torch.randn(17, generator=used)  # leaves one normal number of a pair unused
    fresh = seed_generator(torch.Generator(), 2**50 + 1)
    assert torch.equal(torch.randn(17, generator=seed_generator(used, 2**50 + 1)), torch.randn(17, generator=fresh))


def test_small_seeds_draw_the_same_numbers_as_torch() -> None:
    assert drawn(7) == torch.randint(2**31, (1500,), generator=torch.Generator().manual_seed(7)).tolist()


def test_seeds_never_change_between_versions() -> None:
    assert (dropout_seed(1, 2, 3, 4), sample_seed(1, 2)) == (8847837663422068111, 7012335667659535100)
    assert drawn(2**40, 3) == [1115252696, 783592432, 1639617736]
