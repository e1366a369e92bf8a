"""One optimizer, the parameter groups of GPT-2, and a state that resumes bitwise identically."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from gptexp.config.model import BigramConfig, GPTConfig, MLPConfig
from gptexp.config.optimizer import AdamWConfig, MuonConfig
from gptexp.models.bigram import Bigram
from gptexp.models.classifier import Classifier
from gptexp.models.gpt import GPT
from gptexp.models.mlp import MLP
from gptexp.training.muon import BatchedMuon
from gptexp.training.optimizer_state import load_named_optimizer_state, named_optimizer_state
from gptexp.training.optimizers import (
    MuonWithAdamW,
    build_optimizer,
    hidden_matrices,
)
from gptexp.training.orthogonalize import orthogonalised

V = 7
CONFIGS: list[AdamWConfig] = [AdamWConfig(), MuonConfig(muon_lr=0.02)]


def model(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=4), V)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randint(V, (2, 5), generator=torch.Generator().manual_seed(step))
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] / (1 + step)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        torch.autograd.backward(loss)
        optimizer.step()


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    for (name, first), second in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(first, second), name


def grouped(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[set[str]]:
    names = {parameter: name for name, parameter in network.named_parameters()}
    return [{names[p] for p in group["params"]} for group in optimizer.param_groups]


def test_weight_decay_applies_to_matrices_and_not_to_vectors() -> None:
    network = model()
    optimizer = build_optimizer(network, AdamWConfig(weight_decay=0.3, beta1=0.8, beta2=0.9, eps=1e-6), 0.01)
    matrices, vectors = grouped(network, optimizer)
    assert matrices == {n for n, p in network.named_parameters() if p.ndim == 2}
    assert vectors == {n for n, p in network.named_parameters() if p.ndim == 1}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    for group in optimizer.param_groups:
        assert (group["lr"], group["peak_lr"], group["betas"], group["eps"]) == (0.01, 0.01, (0.8, 0.9), 1e-6)


def test_the_fused_kernel_is_used_if_it_exists() -> None:
    assert build_optimizer(model(), AdamWConfig(), 0.01).param_groups[0]["fused"] is True
    plain = build_optimizer(model(), AdamWConfig(), 0.01, fused=False).param_groups[0]
    with torch.device("meta"):
        meta = build_optimizer(model(), AdamWConfig(), 0.01).param_groups[0]
    assert {(group["fused"], group["foreach"]) for group in (plain, meta)} == {(None, None)}  # torch selects the best


def test_frozen_parameters_are_left_out() -> None:
    network = model()
    network.get_parameter("transformer.wpe.weight").requires_grad_(False)
    optimizer = build_optimizer(network, MuonConfig(), 0.01)
    assert "transformer.wpe.weight" not in set().union(*grouped(network, optimizer))
    assert "transformer.wpe.weight" not in named_optimizer_state(network, optimizer)


def test_muon_updateshidden_matrices_and_adamw_the_rest() -> None:
    network = model()
    optimizer = build_optimizer(network, MuonConfig(muon_lr=0.02, weight_decay=0.3), 0.01)
    block = "transformer.h.0."
    hidden = {
        block + name for name in ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    }
    muon, matrices, vectors = grouped(network, optimizer)
    assert muon == hidden
    assert matrices == {"transformer.wte.weight", "transformer.wpe.weight"}
    assert len(vectors) == len(dict(network.named_parameters())) - 6
    groups = [(group["peak_lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert groups == [(0.02, 0.3), (0.01, 0.3), (0.01, 0.0)]
    assert build_optimizer(network, MuonConfig(), 0.01).param_groups[0]["peak_lr"] == 0.01


def test_adamw_updates_the_head_of_a_classifier() -> None:
    torch.manual_seed(0)
    model = Classifier(GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4), 11), 3, auxiliary=True)
    assert model.score.weight not in hidden_matrices(model)
    assert model.get_parameter("transformer.h.0.mlp.c_fc.weight") in hidden_matrices(model)


def test_muon_trains_the_hidden_matrix_of_mlp_and_refuses_bigram() -> None:
    network = MLP(MLPConfig(n_embd=4, n_hidden=8), V)
    assert grouped(network, build_optimizer(network, MuonConfig(), 0.01))[0] == {"c_fc.weight"}
    with pytest.raises(ValueError, match=r"optimizer=muon: model=bigram"):
        build_optimizer(Bigram(BigramConfig(), V), MuonConfig(), 0.01)


def test_the_combined_optimizer_steps_like_its_two_parts() -> None:
    ours, theirs = model(), model()
    optimizer = build_optimizer(ours, MuonConfig(weight_decay=0.3, momentum=0.9, nesterov=False, ns_steps=3), 0.01)
    assert isinstance(optimizer, MuonWithAdamW)
    inner = [p for n, p in theirs.named_parameters() if ".h." in n and p.ndim == 2]
    tables = [theirs.get_parameter(f"transformer.{name}.weight") for name in ("wte", "wpe")]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    muon = BatchedMuon(inner, 0.01, 0.3, momentum=0.9, nesterov=False, ns_steps=3, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": tables, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, 0.01, (0.9, 0.95), fused=True)
    x = torch.randint(V, (2, 4))
    for _ in range(3):
        for network, parts in ((ours, [optimizer]), (theirs, [muon, adamw])):
            network.zero_grad()
            network(x).square().mean().backward()
            for part in parts:
                part.step()
    assert_same_weights(ours, theirs)


@pytest.mark.parametrize("nesterov", [True, False])
def test_batched_muon_equals_torchs_muon_except_for_bfloat16_rounding(nesterov: bool) -> None:
    shapes = [(6, 6), (4, 12), (12, 4), (6, 6), (12, 4)]
    ours, theirs = ([torch.nn.Parameter(torch.randn(s, generator=draw)) for s in shapes] for draw in generators(2))
    settings: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.3, "momentum": 0.9, "nesterov": nesterov}
    optimizers: list[torch.optim.Optimizer] = [
        BatchedMuon(ours, **settings),
        torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw"),
    ]
    for step in range(3):
        before = [p.detach().clone() for p in theirs]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            draw = torch.Generator().manual_seed(step)
            for mine, start in zip(parameters, before, strict=True):
                mine.data.copy_(start)
                mine.grad = torch.randn(mine.shape, generator=draw)
            optimizer.step()
        for mine, other, start in zip(ours, theirs, before, strict=True):
            assert (mine - other).norm() < 0.03 * (other - start).norm()


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(0) for _ in range(count)]


def test_newton_schulz_gives_singular_values_near_one_and_keeps_axes() -> None:
    matrices = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = orthogonalised(matrices, [(3.4445, -4.7750, 2.0315)] * 5, 1e-7)
    assert result.dtype == torch.float64
    for matrix, direction in zip(matrices, result, strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.T @ direction @ v.T
        assert ((inner.diagonal() > 0.5) & (inner.diagonal() < 1.3)).all()
        assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-9
    turned = orthogonalised(matrices.mT, [(3.4445, -4.7750, 2.0315)] * 5, 1e-7)
    assert torch.allclose(turned, result.mT)


def test_a_step_calls_the_closure_once_and_with_gradients() -> None:
    network = model()
    optimizer = build_optimizer(network, MuonConfig(), 0.01)
    calls: list[bool] = []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        loss = network(torch.zeros(1, 2, dtype=torch.int64)).sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    assert isinstance(optimizer.step(closure), float)
    assert calls == [True]


def test_adding_a_parameter_group_is_refused() -> None:
    network = model()
    optimizer = build_optimizer(network, MuonConfig(), 0.01)
    with pytest.raises(ValueError, match="does not accept parameter groups"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("how", ["state_dict", "named", "deepcopy"])
def test_a_resumed_optimizer_continues_bitwise_identically(config: AdamWConfig, how: str) -> None:
    straight = model()
    optimizer = build_optimizer(straight, config, 0.01)
    train(straight, optimizer, range(3))
    if how == "deepcopy":
        resumed, other = copy.deepcopy((straight, optimizer))
    else:
        resumed = model(seed=1)
        resumed.load_state_dict(straight.state_dict())
        other = build_optimizer(resumed, config, 0.01)
        if how == "state_dict":
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        else:
            load_named_optimizer_state(resumed, other, named_optimizer_state(straight, optimizer))
    train(straight, optimizer, range(3, 6))
    train(resumed, other, range(3, 6))
    assert_same_weights(straight, resumed)


def test_one_state_and_one_list_of_groups_after_loading() -> None:
    network = model()
    optimizer = build_optimizer(network, MuonConfig(), 0.01)
    train(network, optimizer, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    assert isinstance(optimizer, MuonWithAdamW)
    assert optimizer.muon.state is optimizer.adamw.state is optimizer.state
    assert optimizer.muon.param_groups[0] is optimizer.param_groups[0]
    assert optimizer.adamw.param_groups[0] is optimizer.param_groups[1]


@pytest.mark.parametrize("config", CONFIGS)
def test_named_state_is_plain_data_independent_of_group_order(config: AdamWConfig) -> None:
    network = model()
    optimizer = build_optimizer(network, config, 0.01)
    train(network, optimizer, range(2))
    state = named_optimizer_state(network, optimizer)
    assert set(state) == {name for name, _ in network.named_parameters()}
    assert set(state["transformer.wte.weight"]) == {"step", "exp_avg", "exp_avg_sq"}
    assert state["transformer.wte.weight"]["step"] == 2
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    optimizer.param_groups.reverse()
    for group in optimizer.param_groups:
        group["params"].reverse()
    again = named_optimizer_state(network, optimizer)
    load_named_optimizer_state(network, optimizer, dict(reversed(state.items())))
    for name, values in named_optimizer_state(network, optimizer).items():
        assert all(torch.equal(values[key], again[name][key]) for key in values), name


def test_named_state_is_a_copy_that_training_does_not_change() -> None:
    network = model()
    optimizer = build_optimizer(network, AdamWConfig(), 0.01)
    train(network, optimizer, range(1))
    state = named_optimizer_state(network, optimizer)
    before = copy.deepcopy(state)
    train(network, optimizer, range(1, 2))
    assert all(torch.equal(v, before[n][k]) for n, values in state.items() for k, v in values.items())
    load_named_optimizer_state(network, optimizer, state)
    train(network, optimizer, range(1, 2))
    assert all(torch.equal(v, before[n][k]) for n, values in state.items() for k, v in values.items())


def test_named_state_before_the_first_step_is_empty_and_loads() -> None:
    network = model()
    optimizer = build_optimizer(network, AdamWConfig(), 0.01)
    state = named_optimizer_state(network, optimizer)
    assert all(values == {} for values in state.values())
    train(network, optimizer, range(1))
    load_named_optimizer_state(network, optimizer, state)
    assert len(optimizer.state) == 0


def test_names_of_a_compiled_model_are_those_of_the_model() -> None:
    network = model()
    compiled: Any = torch.compile(network, backend="eager")
    optimizer = build_optimizer(compiled, MuonConfig(), 0.01)
    assert set(named_optimizer_state(compiled, optimizer)) == {name for name, _ in network.named_parameters()}


def test_a_state_that_does_not_match_is_refused_without_changes() -> None:
    network = model()
    optimizer = build_optimizer(network, AdamWConfig(), 0.01)
    train(network, optimizer, range(1))
    good = named_optimizer_state(network, optimizer)
    wte, wpe = "transformer.wte.weight", "transformer.wpe.weight"
    bad = [
        ({name: values for name, values in good.items() if name != wte}, f"missing {wte}"),
        ({**good, "stranger": {}}, "unknown stranger"),
        ({**good, wpe: {**good[wpe], "exp_avg": torch.zeros(3)}}, rf"exp_avg of {wpe} has shape \(3,\)"),
        ({**good, wpe: {"momentum_buffer": torch.zeros(4, 8)}}, f"{wpe} has momentum_buffer; expected: exp_avg"),
    ]
    for state, message in bad:
        with pytest.raises(ValueError, match=message):
            load_named_optimizer_state(network, optimizer, state)
    after = named_optimizer_state(network, optimizer)
    assert all(torch.equal(v, after[n][k]) for n, values in good.items() for k, v in values.items())


@pytest.fixture
def one_process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process_group")
def test_options_of_muon_give_sharded_and_whole_matrices_the_same_updates() -> None:
    mesh, whole, sharded = init_device_mesh("cpu", (1,)), model(), model()
    for layer in sharded.transformer.h.modules():
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(distribute_tensor(layer.weight.data, mesh, [Shard(0)]))
    config = MuonConfig(split_qkv=True, normuon=True, weight_decay=0.5)
    states = []
    for network in (whole, sharded):
        optimizer = build_optimizer(network, config, 0.1)
        for step in range(3):
            draw = torch.Generator().manual_seed(step)
            for p in network.parameters():
                gradient, placed = torch.randn(p.shape, generator=draw), isinstance(p.data, DTensor)
                p.grad = distribute_tensor(gradient, mesh, [Shard(0)]) if placed else gradient
            optimizer.step()
        states.append(named_optimizer_state(network, optimizer))
    for (name, a), b in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        assert torch.equal(a, b.full_tensor() if isinstance(b, DTensor) else b), name
        assert all(torch.equal(value, states[1][name][key]) for key, value in states[0][name].items()), name
    assert states[1]["transformer.h.0.attn.c_attn.weight"]["row_square_avg"].shape == (24,)
    load_named_optimizer_state(sharded, optimizer, states[1])


@pytest.mark.usefixtures("one_process_group")
def test_sharded_state_is_saved_completely_and_loaded_sharded() -> None:
    mesh = init_device_mesh("cpu", (1,))

    def sharded() -> nn.Linear:
        layer = nn.Linear(4, 6, bias=False)
        layer.weight = nn.Parameter(distribute_tensor(torch.ones(6, 4), mesh, [Shard(0)]))
        return layer

    layer = sharded()
    optimizer = build_optimizer(layer, AdamWConfig(), 0.01)
    layer.weight.grad = distribute_tensor(torch.full((6, 4), 2.0), mesh, [Shard(0)])
    optimizer.step()
    state = named_optimizer_state(layer, optimizer)
    assert type(state["weight"]["exp_avg"]) is torch.Tensor
    torch.testing.assert_close(state["weight"]["exp_avg"], torch.full((6, 4), 0.2))

    other = sharded()
    loaded = build_optimizer(other, AdamWConfig(), 0.01)
    load_named_optimizer_state(other, loaded, state)
    value = loaded.state[other.weight]["exp_avg"]
    assert isinstance(value, DTensor)
    assert value.placements == (Shard(0),)
    assert torch.equal(value.full_tensor(), state["weight"]["exp_avg"])
