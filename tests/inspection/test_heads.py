"""The scores of heads on attention patterns made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gptexp.inspection.heads import scores

REPEATED = torch.tensor([3, 1, 2, 3, 1, 2])
DIFFERENT = torch.arange(6)


def attends(*to: int) -> torch.Tensor:
    """Weights (1, T, T) of a head in which token t attends to to[t] alone."""
    return torch.eye(len(to))[list(to)][None]


def score(weights: torch.Tensor, tokens: torch.Tensor, name: str) -> float | None:
    found = scores(weights, tokens)[name]
    return None if found is None else found.item()


@pytest.mark.parametrize(
    ("name", "to", "tokens"),
    [
        ("previous", (0, 0, 1, 2, 3, 4), DIFFERENT),
        ("first", (0, 0, 0, 0, 0, 0), DIFFERENT),
        ("induction", (0, 1, 2, 1, 2, 3), REPEATED),
    ],
)
def test_a_perfect_head_scores_one(name: str, to: tuple[int, ...], tokens: torch.Tensor) -> None:
    assert score(attends(*to), tokens, name) == 1
    assert score(attends(0, 1, 2, 3, 4, 5), tokens, name) == 0


def test_attention_to_the_same_token_itself_is_no_induction() -> None:
    assert score(attends(0, 1, 2, 0, 1, 2), REPEATED, "induction") == 0


def test_attention_after_any_earlier_occurrence_is_added() -> None:
    weights = torch.zeros(1, 5, 5)
    weights[0, 4, 1], weights[0, 4, 3] = 0.25, 0.5
    tokens = torch.tensor([7, 1, 7, 2, 7])
    weights[0, 2, 1] = 0.1
    assert score(weights, tokens, "induction") == pytest.approx((0.1 + 0.75) / 2)


def test_a_score_without_any_such_token_is_none() -> None:
    assert score(attends(0, 1, 2, 3, 4, 5), DIFFERENT, "induction") is None
    assert score(attends(0, 0), torch.tensor([5, 5]), "induction") is None  # a token does not follow itself
    assert score(attends(0), torch.tensor([5]), "previous") is None


def test_uniform_attention_has_the_entropy_and_distance_of_its_range() -> None:
    weights = (torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None])[None]
    assert score(weights, DIFFERENT, "entropy") == pytest.approx(sum(map(math.log2, range(1, 7))) / 6)
    assert score(weights, DIFFERENT, "distance") == pytest.approx((0 + 0.5 + 1 + 1.5 + 2 + 2.5) / 6)


def test_one_token_has_entropy_zero_and_its_distance() -> None:
    assert score(attends(0, 0, 0, 0), DIFFERENT[:4], "entropy") == 0
    assert score(attends(0, 0, 0, 0), DIFFERENT[:4], "distance") == (0 + 1 + 2 + 3) / 4


def test_each_head_has_its_own_scores() -> None:
    both = torch.cat([attends(0, 0, 1, 2), attends(0, 0, 0, 0)])
    found = scores(both, DIFFERENT[:4])["first"]
    assert found is not None
    assert found.tolist() == pytest.approx([1 / 3, 1])
