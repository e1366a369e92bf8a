"""A watched GPT computes what it always computes, and its attention weights explain its attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptexp.inspection.trace import trace
from support.inspected import OPTIONS
from support.small_gpt import V, build, small, tokens


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_watching_changes_no_logit_and_leaves_no_hook(settings: dict[str, Any]) -> None:
    model, x = build(small(**settings)), tokens(8, 1)
    with torch.no_grad():
        assert torch.equal(trace(model, x[0]).logits, model(x)[0])
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_attention_is_its_weights_times_the_values(settings: dict[str, Any]) -> None:
    """So the weights are those of the fast path, with every option."""
    model, x = build(small(**settings)), tokens(8, 1)
    for layer in trace(model, x[0]).layers:
        attention = layer.block.attn
        read = layer.block.ln_1(layer.before) if layer.block.pre_norm else layer.before
        _, _, v = attention.project(read, layer.others[0])
        v = v.repeat_interleave(attention.n_head // attention.n_kv_head, dim=1)[0]  # (H, T, D)
        made = attention.c_proj((layer.weights @ v).transpose(0, 1).flatten(1))
        torch.testing.assert_close(made, layer.attention[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(layer.weights.sum(-1), torch.ones(attention.n_head, 8).double())
        assert layer.weights.triu(1).eq(0).all()


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_a_block_run_again_leaves_the_same_stream(settings: dict[str, Any]) -> None:
    model, x = build(small(**settings)), tokens(8, 1)
    traced = trace(model, x[0])
    streams = [traced.embedded, *(layer.after for layer in traced.layers)]
    for layer, stream in zip(traced.layers, streams, strict=False):
        torch.testing.assert_close(stream, layer.before)
        torch.testing.assert_close(layer.again(layer.before.expand(3, -1, -1)), layer.after.expand(3, -1, -1))


def test_a_window_hides_what_lies_before_it() -> None:
    model = build(small(window="SL", window_size=3))
    short, long = (layer.weights for layer in trace(model, tokens(8, 1)[0]).layers)
    assert short.tril(-3).eq(0).all()
    assert long.tril(-3).sum() > 0
    assert int(tokens(8, 1).max()) < V
