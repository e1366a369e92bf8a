from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from gptexp.data.order import WindowOrder, _draws, permute, val_windows


def keys_of(seed: int) -> np.ndarray:
    return _draws(seed, 0, 1)[0]


@pytest.mark.parametrize("size", [*range(1, 50), 255, 256, 257, 4095, 4096, 4097, 99_991, 250_000])
def test_the_order_visits_every_window_once(size: int) -> None:
    image = permute(np.arange(size, dtype=np.uint64), size, keys_of(size))
    assert np.array_equal(np.sort(image), np.arange(size))


@pytest.mark.parametrize(
    ("n_tokens", "block_size"), [(9, 8), (16, 8), (17, 8), (1000, 7), (1001, 10), (4096, 64), (2, 1)]
)
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_uses_every_token_once_except_less_than_a_window(n_tokens: int, block_size: int, epoch: int) -> None:
    order = WindowOrder(n_tokens, block_size, seed=3)
    n = order.windows_per_epoch
    starts = order.starts(epoch * n, n)
    inputs = (starts[:, None] + np.arange(block_size)) % n_tokens
    read = (starts[:, None] + np.arange(block_size + 1)) % n_tokens
    assert n == (n_tokens - 1) // block_size
    assert len(np.unique(inputs)) == n * block_size
    assert len(np.unique((inputs + 1) % n_tokens)) == n * block_size
    assert n_tokens - len(np.unique(read)) < block_size
    assert (starts + block_size >= n_tokens).sum() <= 1


def test_samples_are_a_pure_function_of_seed_and_number() -> None:
    order = WindowOrder(1003, 10, seed=7)
    whole = order.starts(0, 350)
    again = WindowOrder(1003, 10, seed=7)
    for first, count in [(349, 1), (0, 12), (95, 10), (99, 202), (200, 0)]:
        assert np.array_equal(again.starts(first, count), whole[first : first + count])
    assert not np.array_equal(WindowOrder(1003, 10, seed=8).starts(0, 350), whole)
    assert not np.array_equal(whole[:100], whole[100:200])


def test_the_order_never_changes_between_versions() -> None:
    assert WindowOrder(1003, 10, seed=7).starts(0, 5).tolist() == [758, 115, 548, 135, 718]


def test_offsets_and_first_windows_are_uniformly_distributed() -> None:
    order = WindowOrder(101, 10, seed=1)
    starts = np.array([order.starts(epoch * 10, 10) for epoch in range(1010)])
    counts = np.bincount(starts[:, 0], minlength=101)
    # 100 degrees of freedom: 170 is exceeded by chance in about 1 of 60,000 seeds.
    assert ((counts - 10) ** 2 / 10).sum() < 170


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_orders_are_equally_likely(size: int) -> None:
    n, orders = 1500, math.factorial(size)
    seen = Counter(tuple(permute(np.arange(size, dtype=np.uint64), size, keys_of(i)).tolist()) for i in range(n))
    expected = n / orders
    chi2 = sum((count - expected) ** 2 / expected for count in seen.values()) + expected * (orders - len(seen))
    # Four standard deviations above the mean of chi-square: by chance in about 1 of 10,000 choices of keys.
    assert chi2 < orders - 1 + 4 * math.sqrt(2 * (orders - 1)) + 6


def test_even_and_odd_orders_are_equally_likely() -> None:
    n = 1500
    orders = [permute(np.arange(7, dtype=np.uint64), 7, keys_of(i)).astype(int) for i in range(n)]
    even = sum(np.linalg.det(np.eye(7)[order]) > 0 for order in orders)
    assert abs(even - n / 2) < 4 * math.sqrt(n) / 2  # four standard deviations


def test_neighbours_in_the_text_are_not_neighbours_in_the_order() -> None:
    order = WindowOrder(10**6 + 1, 10, seed=2)
    steps = np.diff(order.starts(0, 20_000))
    assert (np.abs(steps) == 10).mean() < 0.001
    assert abs(np.corrcoef(order.starts(0, 20_000), np.arange(20_000))[0, 1]) < 0.04  # 5.6 standard deviations


def test_a_late_step_costs_no_more_than_the_first() -> None:
    order = WindowOrder(10**12, 1024, seed=1)
    starts = order.starts(10**6 * 480, 480)  # a walk through 480 million windows would exceed the time limit of a test
    assert len(np.unique(starts)) == 480


def test_too_few_tokens_for_a_window_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 tokens are too few.*block_size=8"):
        WindowOrder(8, 8, seed=1)


@pytest.mark.parametrize(("n_tokens", "block_size"), [(2, 8), (9, 8), (10, 8), (17, 8), (100, 7), (5, 1)])
def test_validation_scores_every_token_except_the_first_once(n_tokens: int, block_size: int) -> None:
    targets = [
        token
        for start in val_windows(n_tokens, block_size)
        for token in range(start + 1, min(start + block_size, n_tokens - 1) + 1)
    ]
    assert targets == list(range(1, n_tokens))
