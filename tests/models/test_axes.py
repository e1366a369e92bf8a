"""Value embeddings, residual scalars, the soft-cap of the logits, and sliding windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptexp.config.model import Position
from gptexp.generation.decoding import CachedDecoder, ReferenceDecoder
from gptexp.models.attention import attention_mask, two_sided_mask
from gptexp.models.flops import train_flops_per_token
from gptexp.models.gpt import GPT
from gptexp.models.kernels.attention import attention_by_products, attention_fused
from gptexp.models.kernels.choice import Kernels
from gptexp.models.kv_cache import shifted
from gptexp.models.layers import NgramEmbeddings
from support.small_gpt import V, build, small, tokens

AXES: list[dict[str, Any]] = [
    {"ngram": 3, "ngram_rows": 7},
    *(
        {"window": "SSL", "window_size": 3, "position": position, "n_layer": 3, "n_kv_head": 1}
        for position in (Position.learned, Position.rope, Position.alibi)
    ),
]


@pytest.mark.parametrize("settings", AXES, ids=str)
def test_every_axis_keeps_causality_and_the_cache(settings: dict[str, Any]) -> None:
    model, x = build(small(**settings)), tokens(8)
    logits = model(x)
    later = x.clone()
    later[:, 5:] = (x[:, 5:] + 1) % V
    torch.testing.assert_close(model(later)[:, :5], logits[:, :5], rtol=0, atol=1e-12)
    cache = model.new_cache(2)
    pieces = [model(piece, cache) for piece in x.split((3, 1, 2, 1, 1), dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), logits, rtol=0, atol=1e-12)
    cache = model.new_cache(2)
    model(x[:, :5], cache)
    cache.lengths = [5, 2]
    uneven = model(torch.stack([x[0, 5:7], x[1, 2:4]]), cache)
    torch.testing.assert_close(uneven, torch.stack([logits[0, 5:7], logits[1, 2:4]]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", AXES[:3], ids=str)
def test_every_parameter_of_an_axis_has_a_gradient_and_is_saved(settings: dict[str, Any]) -> None:
    model = build(small(**settings))
    model(tokens(8), targets=tokens(8)).backward()
    new = {name for name, _ in model.named_parameters()} - {name for name, _ in build(small()).named_parameters()}
    assert new
    assert new < set(model.state_dict())
    assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if name in new)


def test_ngrams_that_reach_before_the_text_add_nothing() -> None:
    embed = NgramEmbeddings(3, 1000, 4)
    pairs, triples = (table.get_parameter("weight") for table in embed.tables)
    pair = 5 * 1_000_003 + 3 + 1  # 5 after 3
    vectors = embed(shifted(torch.tensor([[2, 3, 5]]), 3))
    expected = pairs[pair % 1000] + triples[(pair * 1_000_003 + 2 + 1) % (2**31 - 1) % 1000]
    torch.testing.assert_close(vectors[0, 2], expected)
    torch.testing.assert_close(vectors[0, 1], pairs[(3 * 1_000_003 + 2 + 1) % 1000])
    torch.testing.assert_close(vectors[0, 0], torch.zeros(4))


@pytest.mark.parametrize("block_size", [8, 5])
def test_generation_with_ngrams_equals_the_reference(block_size: int) -> None:
    model = build(small(ngram=3, ngram_rows=50, block_size=block_size))
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    cached, whole = CachedDecoder(model, prompts, 20), ReferenceDecoder(model, prompts)
    for _ in range(6):  # beyond block_size
        torch.testing.assert_close(cached.next_logits().float(), whole.next_logits())
        for decoder in (cached, whole):
            decoder.append([1, 0, 2])
    cached.keep([0, 2])
    whole.keep([0, 2])
    torch.testing.assert_close(cached.next_logits().float(), whole.next_logits())


def test_the_pattern_of_windows_repeats_and_the_last_layer_sees_everything() -> None:
    sizes = [small(n_layer=6, block_size=9, window="SSL").window_of(layer) for layer in range(6)]
    assert sizes == [3, 3, None, 3, 3, None]  # a quarter of 9, rounded up
    assert [small(n_layer=3, window="S", window_size=2).window_of(layer) for layer in range(3)] == [2, 2, None]
    assert [small(window="SSSL").window_of(1), small().window_of(0)] == [None, None]


def test_a_token_of_a_window_sees_exactly_its_tokens() -> None:
    block = build(small(window="S", window_size=3)).transformer.h[0]
    x = torch.randn(1, 8, 16, dtype=torch.float64, requires_grad=True)
    mask = attention_mask(small(), torch.arange(8), 0, x, 3)
    (gradient,) = torch.autograd.grad(block(x, None, mask)[0, 5].sum(), x)
    assert gradient[0].abs().sum(-1).bool().tolist() == [False] * 3 + [True] * 3 + [False] * 2


def test_an_attention_layer_with_a_window_has_the_flops_of_its_tokens() -> None:
    def flops(**settings: Any) -> int:
        return train_flops_per_token(GPT(small(n_layer=3, **settings), V), 8)

    assert flops() - flops(window="SL", window_size=3) == 12 * 16 * (8 - 3)
    assert flops() == flops(window="S", window_size=100)
    two_sided = GPT(small(n_layer=2, window="S", window_size=2), V, causal=False)
    assert flops() - train_flops_per_token(two_sided, 8) > 12 * 16 * 8  # a layer less, and 3 of 8 tokens in another


@pytest.mark.parametrize("window", [5, 80])
@pytest.mark.parametrize("position", [Position.rope, Position.alibi])
@pytest.mark.parametrize("causal", [True, False])
def test_products_in_a_window_equal_fused_attention(window: int, position: Position, causal: bool) -> None:
    q, k, v = torch.randn(3, 2, 2, 200, 4, dtype=torch.float64)
    config = small(position=position)
    if causal:
        mask = attention_mask(config, torch.arange(200), 0, q, window)
    else:
        mask = two_sided_mask(config, 200, torch.tensor([200, 130]), q, window)
    reach = (window - 1, 0 if causal else window - 1)
    products = attention_by_products(q, k[:, :1], v[:, :1], mask, 0.0, reach)
    fused = attention_fused(q, k[:, :1], v[:, :1], mask, 0.0, is_causal=False)
    torch.testing.assert_close(products, fused, rtol=0, atol=1e-12)
    dropped = attention_by_products(q, k, torch.ones_like(v), mask, 0.5, reach)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert dropped.std() > 0.05


def test_a_window_uses_products_where_they_skip_enough_keys() -> None:
    kernels = Kernels()
    chosen = [kernels.use_products(torch.empty(1, 1, length, 2), 0.0, (127, 0)) for length in (256, 257)]
    assert chosen == [False, True]
    assert not kernels.use_products(torch.empty(1, 1, 512, 2), 0.0, (511, 0))  # the window hides nothing
    assert not kernels.use_products(torch.empty(1, 1, 512, 2, device="meta"), 0.0, (127, 0))


def test_two_sided_windows_see_both_sides_and_no_padding() -> None:
    torch.manual_seed(0)
    model = GPT(small(n_layer=2, window="S", window_size=2), V, causal=False).double().eval()
    x, lengths = tokens(8), torch.tensor([8, 3])
    before = model(x, lengths=lengths)
    assert torch.isfinite(before).all()
    padded = x.clone()
    padded[1, 3:] = 0
    torch.testing.assert_close(model(padded, lengths=lengths)[1, :3], before[1, :3], rtol=0, atol=1e-12)
    torch.testing.assert_close(model(x[1:, :3]), before[1:, :3], rtol=0, atol=1e-12)
    changed = x.clone()
    changed[0, 7] = (x[0, 7] + 1) % V
    assert not torch.allclose(model(changed, lengths=lengths)[0, 0], before[0, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": "SQL"}, r"model\.window=SQL: must be a pattern of S and L"),
        ({"window": ""}, r"model\.window=: must be a pattern of S and L"),
        ({"window": "S", "window_size": 0}, r"model\.window_size=0: must be at least 1"),
        ({"window_size": 4}, r"model\.window_size=4: has no effect while model\.window is null"),
    ],
)
def test_a_wrong_window_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**settings)
