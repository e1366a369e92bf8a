"""Models: every setting works, no position sees the future; sizes, names and initial weights are GPT-2's."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gptexp.config.model import Activation, BigramConfig, GPTConfig, Init, MLPConfig, Norm, NormPosition, Position
from gptexp.models import bigram, gpt, mlp
from gptexp.models.attention import alibi_slopes, attend_by_products, rope_angles, rotate
from gptexp.models.dropout import dropout_mask
from gptexp.models.flops import count_parameters
from gptexp.models.gpt import GPT
from gptexp.models.layers import position_angles, sinusoidal_table

V = 11
SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8}


def small(**settings) -> GPTConfig:
    return GPTConfig(**{**SMALL, **settings})


def build(config: GPTConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> GPT:
    """A model with weights that are large enough for every setting to change its output."""
    torch.manual_seed(seed)
    model = GPT(config, V).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(7))


# A changed value for each setting of GPTConfig. A new setting without an entry fails the test.
CHANGES = {
    "kind": None,  # selects the class and changes nothing inside it
    "block_size": 9,
    "n_layer": 3,
    "n_head": 4,
    "n_kv_head": 1,
    "n_embd": 24,
    "dropout": 0.5,
    "attn_dropout": 0.5,
    "bias": False,
    "norm": Norm.rmsnorm,
    "norm_position": NormPosition.post,
    "residual": False,
    "position": Position.rope,
    "activation": Activation.relu,
    "mlp_ratio": 2.0,
    "qk_norm": True,
    "tie_weights": False,
    "init": None,  # the first weights; see test_blocks_with_zero_initialization_are_the_identity
}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def train_output(model: nn.Module) -> torch.Tensor:
    torch.manual_seed(3)
    return model.train()(tokens(8))


@pytest.mark.parametrize("name", [field.name for field in fields(GPTConfig)])
def test_every_setting_changes_a_module_or_an_output(name):
    if CHANGES[name] is None:
        return
    base, changed = build(small()), build(small(**{name: CHANGES[name]}))
    if shapes(base) == shapes(changed):
        changed.load_state_dict(base.state_dict())
        assert not torch.allclose(train_output(base), train_output(changed), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [("activation", list(Activation)), ("position", list(Position)), ("norm", list(Norm)), ("mlp_ratio", [0.0, 1.5])],
)
def test_every_choice_of_a_setting_differs_from_every_other(name, values):
    outputs = [build(small(**{name: value}))(tokens(8)) for value in values]
    for i, j in product(range(len(values)), repeat=2):
        assert i == j or not torch.allclose(outputs[i], outputs[j], atol=1e-6), (values[i], values[j])


def sees_no_future(model: nn.Module) -> None:
    x = tokens(8)
    before = model(x)
    for t in range(1, 8):
        changed = x.clone()
        changed[:, t:] = (changed[:, t:] + 1) % V
        after = model(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, t], before[:, t], atol=1e-9)  # the change is visible here


@pytest.mark.parametrize(("position", "norm_position"), product(Position, NormPosition))
def test_no_position_sees_the_future(position, norm_position):
    sees_no_future(build(small(position=position, norm_position=norm_position, n_kv_head=1)))


@pytest.mark.parametrize(
    "model",
    [mlp.MLP(MLPConfig(block_size=8, n_context=3, n_embd=4, n_hidden=8), V), bigram.Bigram(BigramConfig(), V)],
)
def test_no_position_of_the_small_models_sees_the_future(model):
    sees_no_future(model.double())


def test_mlp_equals_its_formula_window_by_window():
    model = mlp.MLP(MLPConfig(block_size=8, n_context=3, n_embd=4, n_hidden=5), V).double()
    x = tokens(8, batch=1)
    logits = model(x)
    for t in range(8):
        window = [model.wte.weight[x[0, i]] if i >= 0 else torch.zeros(4).double() for i in range(t - 2, t + 1)]
        hidden = torch.tanh(model.c_fc.weight @ torch.cat(window) + model.c_fc.bias)
        torch.testing.assert_close(logits[0, t], model.lm_head.weight @ hidden)


def test_bigram_returns_the_row_of_its_token():
    model = bigram.Bigram(BigramConfig(), V)
    assert torch.equal(model(torch.tensor([[3, 5]]))[0], model.wte.weight[[3, 5]])


@pytest.mark.parametrize(
    ("n_layer", "n_head", "n_embd", "bias", "expected"),
    [
        (12, 12, 768, True, 124_439_808),
        (12, 12, 768, False, 124_337_664),
        (24, 16, 1024, True, 354_823_168),
        (36, 20, 1280, True, 774_030_080),
        (48, 25, 1600, True, 1_557_611_200),
    ],
)
def test_gpt2_has_the_published_number_of_parameters(n_layer, n_head, n_embd, bias, expected):
    with torch.device("meta"):
        model = GPT(GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=bias), 50257)
    assert count_parameters(model) == expected


def test_parameters_have_the_names_of_gpt2():
    block = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
    names = [f"transformer.h.{i}.{part}.{kind}" for i in range(2) for part in block for kind in ("weight", "bias")]
    outer = ["transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"]
    assert set(GPT(small(), V).state_dict()) == {*names, *outer, "lm_head.weight"}


def test_post_norm_has_no_final_norm_and_no_mlp_means_no_second_norm():
    post = GPT(small(norm_position=NormPosition.post, mlp_ratio=0), V)
    norms = {name for name, _ in post.named_parameters() if "ln_" in name}
    assert norms == {f"transformer.h.{i}.ln_1.{kind}" for i in range(2) for kind in ("weight", "bias")}


def test_swiglu_has_a_gate_of_the_same_width():
    layer = GPT(small(activation=Activation.swiglu, mlp_ratio=2.7), V).transformer.h[0].mlp
    assert layer.c_gate.weight.shape == layer.c_fc.weight.shape == (43, 16)  # int(2.7 * 16)


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize("n_kv_head", [None, 1])
def test_cached_logits_equal_uncached_logits(position, n_kv_head):
    model = build(small(n_head=4, n_kv_head=n_kv_head, position=position, qk_norm=True))
    x = tokens(8)
    cache = model.new_cache(2)
    assert cache.keys[0].shape == (2, n_kv_head or 4, 8, 4)
    pieces = [model(piece, cache) for piece in x.split((3, 1, 2, 1, 1), dim=1)]
    assert cache.lengths == [8, 8]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize("n_kv_head", [None, 1])
def test_sequences_of_different_lengths_share_a_cache_independently(position, n_kv_head):
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


def test_too_many_tokens_are_refused_with_both_numbers():
    model = build(small())
    with pytest.raises(ValueError, match=r"9 tokens .* block_size=8"):
        model(tokens(9))
    cache = model.new_cache(2)
    model(tokens(6), cache)
    with pytest.raises(ValueError, match=r"9 tokens .* block_size=8"):
        model(tokens(3), cache)
    for other in (bigram.Bigram(BigramConfig(block_size=8), V), mlp.MLP(MLPConfig(block_size=8), V)):
        with pytest.raises(ValueError, match=r"9 tokens .* block_size=8"):
            other(tokens(9))


def test_initial_weights_follow_gpt2():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=8, n_head=4, n_embd=128, block_size=64), 256)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.full_like(parameter, 0.0 if name.endswith("bias") else 1.0)), name
            continue
        expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # sqrt(2 * 8) = 4
        # The error of a standard deviation from n draws is 1/sqrt(2n); five of them fail once in a million.
        assert parameter.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * parameter.numel())), name


def test_blocks_with_zero_initialization_are_the_identity():
    torch.manual_seed(0)
    model = GPT(small(init=Init.zero, tie_weights=False), V)
    zeros = {name for name, parameter in model.named_parameters() if parameter.ndim == 2 and not parameter.any()}
    assert zeros == {"lm_head.weight"} | {
        name for name, _ in model.named_parameters() if name.endswith("c_proj.weight")
    }
    x = torch.randn(2, 6, model.config.n_embd)
    assert torch.equal(model.transformer.h[0](x), x)
    tied = GPT(small(init=Init.zero, tie_weights=True), V)
    assert tied.lm_head.weight.any()  # it is the embedding


def test_the_seed_determines_the_initial_weights():
    first, again, other = (build(small(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_tied_head_is_the_embedding_matrix(tied):
    model = GPT(small(tie_weights=tied), V)
    assert (model.lm_head.weight is model.transformer.wte.weight) is tied
    assert model.lm_head.bias is None


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_equals_the_transformer_layer_of_torch(norm_first):
    config = small(
        n_layer=1,
        position=Position.none,
        activation=Activation.gelu,
        norm_position=NormPosition.pre if norm_first else NormPosition.post,
    )
    block = build(config).transformer.h[0]
    peer = nn.TransformerEncoderLayer(16, 2, 64, 0.0, F.gelu, batch_first=True, norm_first=norm_first).double()
    names = {"self_attn.in_proj_": "attn.c_attn.", "self_attn.out_proj.": "attn.c_proj.", "linear1.": "mlp.c_fc."}
    names |= {"linear2.": "mlp.c_proj.", "norm1.": "ln_1.", "norm2.": "ln_2."}
    ours = block.state_dict()
    peer.load_state_dict({a + kind: ours[b + kind] for a, b in names.items() for kind in ("weight", "bias")})
    x = torch.randn(2, 8, 16, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(8, dtype=torch.float64)
    torch.testing.assert_close(block(x), peer(x, src_mask=mask, is_causal=True), rtol=0, atol=1e-12)


def test_grouped_query_equals_full_attention_with_repeated_heads():
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


def test_rope_score_depends_on_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64)

    def score(i: int, j: int) -> float:
        angles = rope_angles(torch.tensor([i, j]), 6, torch.float64)
        return (rotate(q, angles[:1]) * rotate(k, angles[1:])).sum().item()

    assert score(5, 3) == pytest.approx(score(105, 103), abs=1e-12)
    assert score(5, 3) != pytest.approx(score(5, 2), abs=1e-6)
    angles = position_angles(torch.arange(3), 4, torch.float64)
    torch.testing.assert_close(angles[2], torch.tensor([2.0, 2.0 / 100], dtype=torch.float64))  # 10000^(2/4) = 100


def test_sinusoidal_table_follows_vaswani_and_allows_odd_width():
    table = sinusoidal_table(torch.arange(4), 5, torch.float64)
    expected = [math.sin(3), math.cos(3), math.sin(3 / 10000**0.4), math.cos(3 / 10000**0.4), math.sin(3 / 10000**0.8)]
    torch.testing.assert_close(table[3], torch.tensor(expected, dtype=torch.float64))
    assert build(small(n_embd=15, n_head=3, position=Position.sinusoidal))(tokens(8)).shape == (2, 8, V)


def test_alibi_slopes_equal_those_of_the_paper():
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(1) == [2.0**-8]
    assert alibi_slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]  # slopes of 2 heads, and the first of 4 heads
    assert alibi_slopes(12) == [2.0**-i for i in range(1, 9)] + [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]


def test_alibi_lowers_scores_by_slope_times_distance():
    model = build(small(n_layer=1, n_head=1, position=Position.alibi))
    attn, x = model.transformer.h[0].attn, torch.randn(1, 8, 16, dtype=torch.float64)
    q, k, v = attn.project(x)
    scores = q @ k.transpose(-1, -2) / 4  # sqrt(head_dim) = 4
    i, j = torch.arange(8)[:, None], torch.arange(8)
    scores = (scores - 2.0**-8 * (i - j)).masked_fill(j > i, -math.inf)
    expected = attn.c_proj((scores.softmax(-1) @ v)[:, 0])
    mask = gpt.attention_mask(model.config, torch.arange(8), 0, x)
    torch.testing.assert_close(attn(x, None, mask, None), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("position", Position)
def test_outputs_stay_valid_after_a_change_of_dtype(position):
    model = build(small(position=position))
    reference = model(tokens(8))
    low = model.bfloat16()(tokens(8))
    assert low.dtype == torch.bfloat16
    assert (low - reference).abs().max() < 0.15 * reference.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.float()(tokens(8))
    assert torch.isfinite(mixed).all()
    with torch.device("meta"):
        assert GPT(small(position=position), V)(torch.zeros(1, 8, dtype=torch.int64)).shape == (1, 8, V)


def test_dropout_is_off_in_eval_mode_and_on_in_training():
    model = build(small(dropout=0.3, attn_dropout=0.3))
    assert torch.equal(model(tokens(8)), model(tokens(8)))
    model.train()
    assert not torch.equal(model(tokens(8)), model(tokens(8)))


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.999])
def test_dropout_masks_are_bernoulli_and_keep_the_expectation(p: float):
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
):
    drawn = []

    def ones(shape, p, dtype):
        drawn.append((tuple(shape), p))
        return torch.ones(shape, dtype=dtype)

    monkeypatch.setattr("gptexp.models.attention.dropout_mask", ones)
    torch.manual_seed(1)
    length = 300  # more than two blocks of rows
    q, k, v = (torch.randn(2, h, length, 8, dtype=torch.float64) for h in (4, heads, heads))
    seen = torch.arange(length) < torch.tensor([length, 200])[:, None, None, None]
    mask = {"causal": None, "bool": seen, "bias": torch.randn(4, length, length, dtype=torch.float64)}[kind]
    expected = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
    torch.testing.assert_close(attend_by_products(q, k, v, mask, 0.2), expected, rtol=0, atol=1e-12)
    assert {p for _, p in drawn} == {0.2}
    assert len(drawn) == (3 if kind == "causal" else 1)


def errors_in_bf16(attend, length: int, head_dim: int) -> torch.Tensor:
    """RMS errors, against float64, of the output and of the three gradients, at scores of standard deviation 9."""
    generator = torch.Generator().manual_seed(4)
    draw = lambda: torch.randn(2, 2, length, head_dim, generator=generator)  # noqa: E731
    given = [t.bfloat16() for t in (9 * draw(), draw(), draw())]
    upstream, results = draw().bfloat16(), []
    for dtype in (torch.float64, torch.bfloat16):
        inputs = [t.to(dtype, copy=True).requires_grad_() for t in given]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = attend(*inputs)
        y.backward(upstream.to(dtype))
        results.append([t.double() for t in (y.detach(), *(x.grad for x in inputs))])
    return torch.stack([(exact - rounded).square().mean().sqrt() for exact, rounded in zip(*results, strict=True)])


@pytest.mark.parametrize(("length", "head_dim"), [(64, 32), (300, 64)])
def test_bf16_attention_is_nearly_as_exact_as_the_fused_kernel(length: int, head_dim: int) -> None:
    fused = errors_in_bf16(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), length, head_dim)
    products = errors_in_bf16(lambda q, k, v: attend_by_products(q, k, v, None, 0.0), length, head_dim)
    assert (products < 1.5 * fused).all(), (products / fused).tolist()  # 4 to 7 with scores rounded to bf16


def test_models_compile_to_one_graph_for_all_lengths():
    torch.compiler.reset()
    model = build(small(n_layer=1, position=Position.rope, n_kv_head=1, qk_norm=True))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for length in (8, 5):  # the last window of a text is short
        torch.testing.assert_close(compiled(tokens(length)), model(tokens(length)), rtol=0, atol=1e-12)


def test_model_files_name_their_model_class():
    assert (bigram.Model, mlp.Model, gpt.Model) == (bigram.Bigram, mlp.MLP, gpt.GPT)


def test_models_import_neither_hydra_nor_lightning():
    program = (
        "import sys, gptexp.models.gpt, gptexp.models.mlp, gptexp.models.bigram\n"
        "import gptexp.generation.sampling, gptexp.training.optimizers\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'hydra', 'lightning', 'pytorch_lightning'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
