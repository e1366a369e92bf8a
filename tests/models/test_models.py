"""Models: every setting works, causality, GPT-2's sizes, parameter names and initial weights."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gptexp.config.model import (
    Activation,
    BigramConfig,
    GPTConfig,
    Init,
    MLPConfig,
    Norm,
    NormPosition,
    Parametrization,
    Position,
)
from gptexp.models import bigram, mlp
from gptexp.models.flops import count_parameters
from gptexp.models.gpt import GPT
from support.small_gpt import V, build, small, tokens

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
    "norm_eps": 0.1,
    "rope_theta": None,  # matters only with RoPE; see test_reference.py
    "qk_norm": True,
    "qk_norm_gain": None,  # needs qk_norm
    "tie_weights": False,
    "ngram": 2,
    "ngram_rows": None,  # matters only with ngram
    "window": "S",
    "window_size": None,  # needs a window
    "parametrization": Parametrization.mup,
    "base_width": None,  # read with mup only; see test_mup.py
    "base_head_dim": None,
    "init": None,  # the first weights; see test_blocks_with_zero_initialization_are_the_identity
}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def train_output(model: nn.Module) -> torch.Tensor:
    torch.manual_seed(3)
    logits: torch.Tensor = model.train()(tokens(8))
    return logits


@pytest.mark.parametrize("name", [field.name for field in fields(GPTConfig)])
def test_every_setting_changes_a_module_or_an_output(name: str) -> None:
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
def test_every_choice_of_a_setting_differs_from_every_other(name: str, values: list[Any]) -> None:
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


@pytest.mark.parametrize(("position", "norm_position"), list(product(Position, NormPosition)))
def test_no_position_sees_the_future(position: Position, norm_position: NormPosition) -> None:
    sees_no_future(build(small(position=position, norm_position=norm_position, n_kv_head=1)))


@pytest.mark.parametrize(
    "model",
    [mlp.MLP(MLPConfig(block_size=8, n_context=3, n_embd=4, n_hidden=8), V), bigram.Bigram(BigramConfig(), V)],
)
def test_no_position_of_the_small_models_sees_the_future(model: nn.Module) -> None:
    sees_no_future(model.double())


def test_mlp_equals_its_formula_window_by_window() -> None:
    model = mlp.MLP(MLPConfig(block_size=8, n_context=3, n_embd=4, n_hidden=5), V).double()
    x = tokens(8, batch=1)
    logits = model(x)
    for t in range(8):
        window = [model.wte.weight[x[0, i]] if i >= 0 else torch.zeros(4).double() for i in range(t - 2, t + 1)]
        hidden = torch.tanh(model.c_fc.weight @ torch.cat(window) + model.c_fc.bias)
        torch.testing.assert_close(logits[0, t], model.lm_head.weight @ hidden)


def test_bigram_returns_the_row_of_its_token() -> None:
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
def test_gpt2_has_the_published_number_of_parameters(
    n_layer: int, n_head: int, n_embd: int, bias: bool, expected: int
) -> None:
    with torch.device("meta"):
        model = GPT(GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=bias), 50257)
    assert count_parameters(model) == expected


def test_parameters_have_the_names_of_gpt2() -> None:
    block = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
    names = [f"transformer.h.{i}.{part}.{kind}" for i in range(2) for part in block for kind in ("weight", "bias")]
    outer = ["transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"]
    assert set(GPT(small(), V).state_dict()) == {*names, *outer, "lm_head.weight"}


def test_post_norm_has_no_final_norm_and_no_mlp_means_no_second_norm() -> None:
    post = GPT(small(norm_position=NormPosition.post, mlp_ratio=0), V)
    norms = {name for name, _ in post.named_parameters() if "ln_" in name}
    assert norms == {f"transformer.h.{i}.ln_1.{kind}" for i in range(2) for kind in ("weight", "bias")}


def test_swiglu_has_a_gate_of_the_same_width() -> None:
    layer: Any = GPT(small(activation=Activation.swiglu, mlp_ratio=2.7), V).transformer.h[0].mlp
    assert layer.c_gate.weight.shape == layer.c_fc.weight.shape == (43, 16)  # int(2.7 * 16)


def test_too_many_tokens_are_refused_with_both_numbers() -> None:
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


def test_initial_weights_follow_gpt2() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=8, n_head=4, n_embd=128, block_size=64), 256)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.full_like(parameter, 0.0 if name.endswith("bias") else 1.0)), name
            continue
        expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # sqrt(2 * 8) = 4
        # The error of a standard deviation from n draws is 1/sqrt(2n); five of them fail once in a million.
        assert parameter.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * parameter.numel())), name


def test_blocks_with_zero_initialization_are_the_identity() -> None:
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


def test_the_seed_determines_the_initial_weights() -> None:
    first, again, other = (build(small(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_tied_head_is_the_embedding_matrix(tied: bool) -> None:
    model = GPT(small(tie_weights=tied), V)
    assert (model.lm_head.weight is model.transformer.wte.weight) is tied
    assert model.lm_head.bias is None


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_equals_the_transformer_layer_of_torch(norm_first: bool) -> None:
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


@pytest.mark.parametrize("position", Position)
def test_outputs_stay_valid_after_a_change_of_dtype(position: Position) -> None:
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


def test_dropout_is_off_in_eval_mode_and_on_in_training() -> None:
    model = build(small(dropout=0.3, attn_dropout=0.3))
    assert torch.equal(model(tokens(8)), model(tokens(8)))
    model.train()
    assert not torch.equal(model(tokens(8)), model(tokens(8)))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("axes", [False, True])
def test_models_compile_to_one_graph_for_all_lengths(axes: bool) -> None:
    torch.compiler.reset()
    names = ("n_layer", "ngram", "window")
    settings = {"n_layer": 1, **({name: CHANGES[name] for name in names} if axes else {})}
    model = build(small(**settings, position=Position.rope, n_kv_head=1, qk_norm=True))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for length in (8, 5):  # the last window of a text is short
        torch.testing.assert_close(compiled(tokens(length)), model(tokens(length)), rtol=0, atol=1e-12)


def test_models_import_neither_hydra_nor_lightning() -> None:
    program = (
        "import sys, gptexp.models.gpt, gptexp.models.mlp, gptexp.models.bigram\n"
        "import gptexp.generation.sampling, gptexp.training.optimizers\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'hydra', 'lightning', 'pytorch_lightning'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
