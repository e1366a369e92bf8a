"""The logit lens, direct effects and knock-outs equal independent computations on models with every option."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gptexp.inspection import knockouts
from gptexp.inspection.direct import direct_effects, parts
from gptexp.inspection.knockouts import knock_outs
from gptexp.inspection.lens import lens
from gptexp.inspection.trace import trace
from gptexp.models.losses import IGNORED
from support.inspected import NO_SUM, OPTIONS
from support.small_gpt import build, small, tokens

SUMS = [settings for settings in OPTIONS if settings not in NO_SUM]


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_the_last_layer_of_the_lens_is_the_model(settings: dict[str, Any]) -> None:
    model, x = build(small(**settings)), tokens(8, 1)[0]
    likeliest, nats = lens(trace(model, x), x[1:])
    logits = model(x[None])[0, :-1]
    assert likeliest.shape == nats.shape == (3, 7)
    assert torch.equal(likeliest[-1], logits.argmax(-1))
    torch.testing.assert_close(nats[-1], F.cross_entropy(logits, x[1:], reduction="none"), check_dtype=False)
    assert not torch.allclose(nats[0], nats[-1])


def test_the_lens_of_a_layer_is_the_model_without_the_later_ones() -> None:
    model, x = build(small()), tokens(8, 1)[0]
    _, nats = lens(trace(model, x), x[1:])
    shorter = deepcopy(model)
    del shorter.transformer.h[1:]
    shorter.transformer.config.n_layer = 1
    found = F.cross_entropy(shorter(x[None])[0, :-1], x[1:], reduction="none")
    torch.testing.assert_close(nats[1], found, check_dtype=False)


@pytest.mark.parametrize("settings", SUMS, ids=str)
def test_direct_effects_sum_to_the_logit_of_the_true_token(settings: dict[str, Any]) -> None:
    model, x = build(small(**settings)), tokens(8, 1)[0]
    effects = direct_effects(trace(model, x))
    logits = model.lm_head(model.transformer(x[None]))[0, :-1]
    above = logits.gather(-1, x[1:, None])[:, 0] - logits.mean(-1)
    torch.testing.assert_close(torch.stack([*effects.values()]).sum(0), above)
    assert len(effects) == 1 + 2 * (2 if model.config.mlp_width else 1) + (
        getattr(model.transformer.ln_f, "bias", None) is not None
    )


def test_a_direct_effect_is_the_normed_part_times_the_output_weights() -> None:
    model, x = build(small()), tokens(8, 1)[0]
    traced, norm = trace(model, x), model.transformer.ln_f
    stream, part = traced.layers[-1].after[0, :-1], parts(traced)["attention 0"][0, :-1]
    assert isinstance(norm, torch.nn.LayerNorm)
    scale = norm.weight / (stream.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    normed = (part - part.mean(-1, keepdim=True)) * scale
    weights = model.lm_head.weight[x[1:]] - model.lm_head.weight.mean(0)
    torch.testing.assert_close(direct_effects(traced)["attention 0"], (normed * weights).sum(-1))


@pytest.mark.parametrize("settings", NO_SUM, ids=str)
def test_a_stream_that_is_no_sum_has_no_direct_effects(settings: dict[str, Any]) -> None:
    assert direct_effects(trace(build(small(**settings)), tokens(8, 1)[0])) == {}


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_a_knock_out_is_the_model_with_zero_output_weights_of_the_head(settings: dict[str, Any]) -> None:
    model, x = build(small(**settings)), tokens(8, 1)[0]
    targets = x[1:].clone()
    targets[2] = IGNORED
    increase, used = knock_outs(trace(model, x), targets)
    assert used == 8
    whole = F.cross_entropy(model(x[None])[0, :-1], targets, ignore_index=IGNORED)
    for layer in range(2):
        for head in range(2):
            changed = deepcopy(model)
            with torch.no_grad():
                projection = changed.get_parameter(f"transformer.h.{layer}.attn.c_proj.weight")
                projection[:, 8 * head : 8 * head + 8] = 0  # head_dim 8
            loss = F.cross_entropy(changed(x[None])[0, :-1], targets, ignore_index=IGNORED)
            torch.testing.assert_close(increase[layer, head], loss - whole, check_dtype=False, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_knock_outs_that_would_take_too_long_use_the_beginning_of_the_text(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = build(small(**settings)), tokens(8, 1)[0]
    expected, _ = knock_outs(trace(model, x[:5]), x[1:5])
    monkeypatch.setattr("gptexp.inspection.knockouts.MOST_FLOPS", 5.5 * knockouts._flops_per_token(trace(model, x)))
    increase, used = knock_outs(trace(model, x), x[1:])
    assert used == 5
    torch.testing.assert_close(increase, expected)
    monkeypatch.setattr("gptexp.inspection.knockouts.MOST_FLOPS", 0)
    assert knock_outs(trace(model, x), x[1:])[1] == 2
