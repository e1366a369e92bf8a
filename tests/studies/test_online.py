"""Levels of a line: the shares of alpha sum to 1, keeps raise the level, and fwer ends after its ideas."""

from __future__ import annotations

import pytest

from gptexp.studies.online import Rules


@pytest.mark.parametrize("ideas", [1, 10, 200])
def test_shares_of_alpha_sum_to_one_without_a_last_idea(ideas: int) -> None:
    control, many = Rules(ideas=ideas), 100_000
    total = sum(control.gamma(t) for t in range(1, many + 1))
    assert total == pytest.approx(1 - 0.2 * ideas / many, rel=1e-9)
    assert control.gamma(10**9) > 0


def test_fdr_level_is_raised_by_each_earlier_keep() -> None:
    control = Rules(control="fdr", alpha=0.05, ideas=200)
    assert 1 / control.level(1, 0) == pytest.approx(5000)
    assert 1 / control.level(200, 4) == pytest.approx(1000)
    assert control.level(201, 0) < control.level(200, 0)


def test_fwer_level_is_even_and_zero_after_the_last_idea() -> None:
    control = Rules(control="fwer", alpha=0.05, ideas=200)
    assert [1 / control.level(t, kept) for t, kept in ((1, 0), (200, 7))] == pytest.approx([4000, 4000])
    assert control.level(201, 7) == 0
