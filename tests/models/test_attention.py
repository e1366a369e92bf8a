"""Attention: the KV cache, grouped key/value heads, positions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gptexp.config.model import Position
from gptexp.models.attention import alibi_slopes, attention_mask, rope_angles, rotate
from gptexp.models.layers import position_angles, sinusoidal_table
from support.small_gpt import V, build, small, tokens


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize("n_kv_head", [None, 1])
def test_cached_logits_equal_uncached_logits(position: Position, n_kv_head: int | None) -> None:
    model = build(small(n_head=4, n_kv_head=n_kv_head, position=position, qk_norm=True))
    x = tokens(8)
    cache = model.new_cache(2)
    assert cache.keys[0].shape == (2, n_kv_head or 4, 8, 4)
    pieces = [model(piece, cache) for piece in x.split((3, 1, 2, 1, 1), dim=1)]
    assert cache.lengths == [8, 8]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize("n_kv_head", [None, 1])
def test_sequences_of_different_lengths_share_a_cache_independently(position: Position, n_kv_head: int | None) -> None:
    model = build(small(n_head=4, n_kv_head=n_kv_head, position=position, qk_norm=True))
    x = tokens(8)
    alone = model(x)
    cache = model.new_cache(2)
    first = model(x[:, :5], cache, at=torch.tensor([4, 1]))[:, 0]
    torch.testing.assert_close(first, torch.stack([alone[0, 4], alone[1, 1]]), rtol=0, atol=1e-12)
    cache.lengths = [5, 2]  # the remaining tokens of the second sequence are padding
    pieces = torch.stack([x[0, 5:8], x[1, 2:5]])
    for piece in pieces.split((1, 2), dim=1):
        logits = model(piece, cache)
    torch.testing.assert_close(logits, torch.stack([alone[0, 6:8], alone[1, 3:5]]), rtol=0, atol=1e-12)
    cache.keep([1])
    torch.testing.assert_close(model(x[1:, 5:], cache), alone[1:, 5:], rtol=0, atol=1e-12)


def test_grouped_query_equals_full_attention_with_repeated_heads() -> None:
    grouped, full = build(small(n_head=4, n_kv_head=2)), build(small(n_head=4))
    state = grouped.state_dict()
    for name, weight in state.items():
        if ".c_attn." in name:
            q, k, v = weight.split((16, 8, 8))
            state[name] = torch.cat(
                [q, *(t.unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1) for t in (k, v))]
            )
    full.load_state_dict(state)
    torch.testing.assert_close(grouped(tokens(8)), full(tokens(8)), rtol=0, atol=1e-12)


def test_rope_score_depends_on_distance_only() -> None:
    q, k = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64)

    def score(i: int, j: int) -> float:
        angles = rope_angles(torch.tensor([i, j]), 6, torch.float64)
        return (rotate(q, angles[:1]) * rotate(k, angles[1:])).sum().item()

    assert score(5, 3) == pytest.approx(score(105, 103), abs=1e-12)
    assert score(5, 3) != pytest.approx(score(5, 2), abs=1e-6)
    angles = position_angles(torch.arange(3), 4, torch.float64)
    torch.testing.assert_close(angles[2], torch.tensor([2.0, 2.0 / 100], dtype=torch.float64))  # 10000^(2/4) = 100


def test_gradients_of_a_rotation_are_exact() -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64).transpose(1, 2).requires_grad_()
    angles = rope_angles(torch.arange(3), 6, torch.float64)
    first, second = x.chunk(2, dim=-1)
    expected = torch.cat(
        (first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos()), dim=-1
    )
    torch.testing.assert_close(rotate(x, angles), expected, rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(lambda t: rotate(t, angles), (x,))
    assert torch.autograd.gradgradcheck(lambda t: rotate(t, angles), (x,))


def test_sinusoidal_table_follows_vaswani_and_allows_odd_width() -> None:
    table = sinusoidal_table(torch.arange(4), 5, torch.float64)
    expected = [math.sin(3), math.cos(3), math.sin(3 / 10000**0.4), math.cos(3 / 10000**0.4), math.sin(3 / 10000**0.8)]
    torch.testing.assert_close(table[3], torch.tensor(expected, dtype=torch.float64))
    assert build(small(n_embd=15, n_head=3, position=Position.sinusoidal))(tokens(8)).shape == (2, 8, V)


def test_alibi_slopes_equal_those_of_the_paper() -> None:
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(1) == [2.0**-8]
    assert alibi_slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]  # slopes of 2 heads, and the first of 4 heads
    assert alibi_slopes(12) == [2.0**-i for i in range(1, 9)] + [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]


def test_alibi_lowers_scores_by_slope_times_distance() -> None:
    model = build(small(n_layer=1, n_head=1, position=Position.alibi))
    attn: Any = model.transformer.h[0].attn
    x = torch.randn(1, 8, 16, dtype=torch.float64)
    q, k, v = attn.project(x)
    scores = q @ k.transpose(-1, -2) / 4  # sqrt(head_dim) = 4
    i, j = torch.arange(8)[:, None], torch.arange(8)
    scores = (scores - 2.0**-8 * (i - j)).masked_fill(j > i, -math.inf)
    expected = attn.c_proj((scores.softmax(-1) @ v)[:, 0])
    mask = attention_mask(model.config, torch.arange(8), 0, x)
    torch.testing.assert_close(attn(x, None, mask, None), expected, rtol=0, atol=1e-12)
