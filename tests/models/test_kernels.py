"""Kernels: which one computes is the model's explicit choice, and all of them agree."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F

from gptexp.config.model import GPTConfig, Position
from gptexp.machine import hardware
from gptexp.models import attention
from gptexp.models.gpt import GPT
from gptexp.models.kernels.attention import attention_by_products, attention_fused, attention_weights
from gptexp.models.kernels.choice import Kernels, modules_with_kernels, use_kernels
from gptexp.models.kernels.dropout import dropout_mask
from gptexp.models.kernels.fastest import fastest_kernels, products_faster_for
from support.small_gpt import build, small, tokens

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def products_for(model: torch.nn.Module) -> set[tuple[torch.dtype, ...]]:
    return {module.kernels.products_for for module in modules_with_kernels(model)}


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtypes of the calls of attention by products, as they come."""
    calls: list[torch.dtype] = []

    def counted(q: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        calls.append(q.dtype)
        return attention_by_products(q, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "attention_by_products", counted)
    return calls


def test_a_model_uses_fused_attention_until_kernels_are_given(products: list[torch.dtype]) -> None:
    model = build(small(n_layer=2))
    model(tokens(8))
    assert products == []
    use_kernels(model, Kernels(products_for=(torch.float64,)))
    model(tokens(8))
    assert products == [torch.float64] * 2  # one per layer
    other = build(small(n_layer=2))
    other(tokens(8))
    assert len(products) == 2  # the choice belongs to the model it was given to
    model.float()(tokens(8))
    model.double()(tokens(8), model.new_cache(2))
    assert len(products) == 2  # neither for another dtype nor with a cache


def test_dropout_on_attention_weights_uses_products_on_a_cpu(products: list[torch.dtype]) -> None:
    model = build(small(n_layer=1, attn_dropout=0.5))
    model(tokens(8))
    assert products == []
    model.train()(tokens(8))
    assert products == [torch.float64]


def test_long_sequences_use_fused_attention_unless_there_is_dropout() -> None:
    kernels = Kernels(products_for=(torch.float32,))
    short, long = torch.empty(1, 1, 2048, 2), torch.empty(1, 1, 2049, 2)
    assert kernels.use_products(short, 0.0)
    assert not kernels.use_products(long, 0.0)
    assert kernels.use_products(long, 0.1)
    assert not kernels.use_products(short.to("meta"), 0.1)  # products are for CPUs


@pytest.mark.parametrize("amx", [True, False])
def test_products_are_faster_for_bf16_without_amx_and_float32_at_full_width(
    amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptexp.models.kernels.fastest.cpu_has_amx", lambda: amx)
    bf16 = () if amx else (torch.bfloat16,)
    assert products_faster_for(full_width=False) == bf16
    assert products_faster_for(full_width=True) == (*bf16, torch.float32)


def test_fastest_kernels_hold_inside_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptexp.models.kernels.fastest.cpu_has_amx", lambda: False)
    model = build(small())
    use_kernels(model, Kernels(chunk_above=7))
    with fastest_kernels(model):
        (inside,) = products_for(model)
        assert torch.bfloat16 in inside
        assert {module.kernels.chunk_above for module in modules_with_kernels(model)} == {7}
        with fastest_kernels(model):
            assert products_for(model) == {inside}
        assert products_for(model) == {inside}
    assert products_for(model) == {()}
    with suppress(KeyError), fastest_kernels(model):
        raise KeyError
    assert products_for(model) == {()}


@pytest.mark.parametrize("position", [Position.rope, Position.alibi])
def test_attention_by_products_equals_fused_attention(position: Position, products: list[torch.dtype]) -> None:
    torch.manual_seed(1)
    model = GPT(GPTConfig(block_size=300, n_layer=2, n_head=2, n_embd=16, position=position), vocab_size=11).double()
    given, losses, gradients = torch.randint(11, (2, 300)), [], []
    for types in ((), (torch.float64,)):
        use_kernels(model, Kernels(products_for=types))
        loss = model(given, targets=given)
        loss.backward()
        losses.append(loss.detach())
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
        model.zero_grad()
        assert len(products) == 2 * len(types)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("window", [None, 3])
def test_attention_weights_are_those_of_fused_attention(window: int | None) -> None:
    torch.manual_seed(1)
    q, k, v = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    mask = None if window is None else torch.ones(9, 9, dtype=torch.bool).tril().triu(1 - window)
    weights = attention_weights(q, k, mask)
    found = weights @ v.repeat_interleave(2, dim=1)
    torch.testing.assert_close(found, attention_fused(q, k, v, mask, 0.0, is_causal=mask is None))
    assert float(weights[..., 0, 1:].abs().max()) == 0


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("types", [(), (torch.float32, torch.bfloat16)])
def test_torch_compile_makes_one_graph_of_a_model_on_the_cpu(rounded: bool, types: tuple[torch.dtype, ...]) -> None:
    torch.compiler.reset()
    model = GPT(GPTConfig(block_size=16, n_layer=2, n_head=2, n_embd=16), vocab_size=11)
    use_kernels(model, Kernels(products_for=types))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    given = torch.randint(11, (2, 16))
    with hardware.full_width_products(), torch.autocast("cpu", torch.bfloat16, enabled=rounded):
        torch.testing.assert_close(compiled(given, targets=given), model(given, targets=given))


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.999])
def test_dropout_masks_are_bernoulli_and_keep_the_expectation(p: float) -> None:
    """5 sigma for each of 16 checks: one false alarm in 100,000 runs, and the seed is fixed."""
    torch.manual_seed(1)
    n = 1_000_003
    mask = dropout_mask((n,), p, torch.float64)
    dropped = (mask == 0).double()
    steps = round(p * 65536) / 65536
    assert sorted(mask.unique().tolist()) == [0, pytest.approx(1 / (1 - steps))]
    assert dropped.mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5 + 1e-5)
    for distance in (1, 2, 3, 4):  # four elements share a random word
        together = (dropped[:-distance] * dropped[distance:]).mean().item()
        assert together == pytest.approx(p * p, abs=5 * (p * p * (1 - p * p) / n) ** 0.5 + 2e-5)
    torch.manual_seed(1)
    assert torch.equal(dropout_mask((n,), p, torch.float64), mask)


@pytest.mark.parametrize("kind", ["causal", "bool", "bias"])
@pytest.mark.parametrize("heads", [4, 2])
def test_attention_with_dropout_equals_torch_except_for_the_masks(
    kind: str, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def ones(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
        drawn.append((tuple(shape), p))
        return torch.ones(shape, dtype=dtype)

    monkeypatch.setattr("gptexp.models.kernels.attention.dropout_mask", ones)
    torch.manual_seed(1)
    length = 300  # more than two blocks of rows
    q, k, v = (torch.randn(2, h, length, 8, dtype=torch.float64) for h in (4, heads, heads))
    seen = torch.arange(length) < torch.tensor([length, 200])[:, None, None, None]
    mask = {"causal": None, "bool": seen, "bias": torch.randn(4, length, length, dtype=torch.float64)}[kind]
    expected = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
    torch.testing.assert_close(attention_by_products(q, k, v, mask, 0.2), expected, rtol=0, atol=1e-12)
    assert {p for _, p in drawn} == {0.2}
    assert len(drawn) == (3 if kind == "causal" else 1)


def errors_in_bf16(attend: Attend, length: int, head_dim: int) -> torch.Tensor:
    """RMS errors, against float64, of the output and of the three gradients, at scores of standard deviation 9."""
    generator = torch.Generator().manual_seed(4)
    draw = lambda: torch.randn(2, 2, length, head_dim, generator=generator)  # noqa: E731
    given = [t.bfloat16() for t in (9 * draw(), draw(), draw())]  # type: ignore[no-untyped-call]
    upstream, results = draw().bfloat16(), []  # type: ignore[no-untyped-call]
    for dtype in (torch.float64, torch.bfloat16):
        inputs = [t.to(dtype, copy=True).requires_grad_() for t in given]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = attend(*inputs)
        y.backward(upstream.to(dtype))
        results.append([t.double() for t in (y.detach(), *(x.grad for x in inputs)) if t is not None])
    return torch.stack([(exact - rounded).square().mean().sqrt() for exact, rounded in zip(*results, strict=True)])


@pytest.mark.parametrize(("length", "head_dim"), [(64, 32), (300, 64)])
def test_bf16_attention_is_nearly_as_exact_as_the_fused_kernel(length: int, head_dim: int) -> None:
    fused = errors_in_bf16(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), length, head_dim)
    products = errors_in_bf16(lambda q, k, v: attention_by_products(q, k, v, None, 0.0), length, head_dim)
    assert (products < 1.5 * fused).all(), (products / fused).tolist()  # 4 to 7 with scores rounded to bf16
