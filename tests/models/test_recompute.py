"""Recomputed activations: the same gradients from fewer stored tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptexp.config import LoRAConfig
from gptexp.config.model import BigramConfig
from gptexp.models.bigram import Bigram
from gptexp.models.gpt import GPT
from gptexp.models.lora import adapt
from gptexp.models.recompute import recompute_blocks
from support.small_gpt import V, build, small, tokens


def loss_of(model: nn.Module) -> Tensor:
    loss: Tensor = model(tokens(8), targets=tokens(8).roll(1))
    return loss


def gradients(model: nn.Module, micro_batches: int = 2) -> dict[str, Tensor]:
    """The gradients of a step whose micro-batches draw their masks from their own seeds, and the next random number."""
    model.zero_grad()
    for micro in range(micro_batches):
        torch.manual_seed(micro)
        torch.autograd.backward(loss_of(model))
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {"next": torch.rand(3)}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dropout": 0.3, "ngram": 2},
        {"dropout": 0.3, "attn_dropout": 0.3, "position": "rope", "norm_position": "post"},
        {"attn_dropout": 0.3, "position": "alibi", "n_kv_head": 1, "activation": "swiglu"},
    ],
    ids=str,
)
def test_gradients_are_bitwise_equal_with_recomputation(settings: dict[str, Any], lora: bool) -> None:
    model = build(small_by_names(settings), dtype=torch.float32).train()
    if lora:
        adapt(model, LoRAConfig(rank=2, dropout=0.3), seed=1)
        nn.init.normal_(model.get_parameter("transformer.h.0.attn.c_attn.lora_B"))
    expected = gradients(model)
    recompute_blocks(model)
    found = gradients(model)
    assert len(found) == len(expected) > 8
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    if settings.get("dropout"):
        assert not torch.equal(gradients(model.eval())["next"], found["next"])  # masks were drawn


def small_by_names(settings: dict[str, Any]) -> Any:
    from gptexp.config.conversion import from_plain

    return from_plain("model", {"kind": "gpt", "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8, **settings})


def stored_bytes(model: nn.Module, loss: Any = loss_of) -> int:
    """Bytes of the activations that the forward pass keeps for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_further_block_stores_only_its_input() -> None:
    def stored(n_layer: int, *, recompute: bool) -> int:
        model = build(small(n_layer=n_layer, dropout=0.1), dtype=torch.float32).train()
        if recompute:
            recompute_blocks(model)
        return stored_bytes(model)

    stream = 4 * 2 * 8 * 16  # (B, T, C) in float32
    assert stored(5, recompute=True) - stored(3, recompute=True) == 2 * stream
    assert stored(5, recompute=False) - stored(3, recompute=False) > 2 * 17 * stream


def test_nothing_is_recomputed_outside_of_training() -> None:
    model = build(small())
    recompute_blocks(model)
    calls: list[nn.Module] = []
    for block in model.transformer.h:
        block.get_submodule("attn").register_forward_hook(lambda module, *_: calls.append(module))
    torch.autograd.backward(loss_of(model))  # in eval mode
    assert len(calls) == 2
    model.train()
    with torch.inference_mode():
        loss_of(model)
    assert len(calls) == 4
    torch.autograd.backward(loss_of(model))
    assert len(calls) == 8


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.filterwarnings("default")  # torch.compile causes warnings of torch itself
@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])  # on a CPU, torch does not capture the draw of a mask
def test_a_compiled_model_recomputes_to_the_same_gradients(dropout: float) -> None:
    model = build(small(dropout=dropout), dtype=torch.float32).train()
    expected = gradients(model)
    recompute_blocks(model)
    torch.compiler.reset()
    model.compile(backend="aot_eager_decomp_partition", fullgraph=dropout == 0)
    found = gradients(model)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_model_without_blocks_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^trainer\.recompute=blocks: the model has no blocks"):
        recompute_blocks(Bigram(BigramConfig(), V))
    assert not any(block.recompute for block in GPT(small(), V).transformer.h)  # the choice of one model is no global
