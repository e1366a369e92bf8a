"""muP: equal to the standard parametrization at the base width, and another function of the width."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptexp.config.model import GPTConfig, Parametrization, Position
from gptexp.models.classifier import Classifier
from gptexp.models.gpt import GPT
from gptexp.models.kernels.choice import Kernels, use_kernels
from support.small_gpt import build, small

V = 11


def gpt(n_embd: int, **settings: Any) -> GPT:
    torch.manual_seed(0)
    given = {"n_layer": 2, "n_head": 2, "block_size": 8, "parametrization": Parametrization.mup, "base_width": 16}
    return GPT(GPTConfig(n_embd=n_embd, **{**given, **settings}), V).eval()


def test_hidden_matrices_start_with_a_deviation_of_one_over_root_width() -> None:
    settings = {"tie_weights": False, "n_layer": 1}
    narrow, wide = (gpt(width, **settings).state_dict() for width in (16, 256))
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        found = [float(w[f"transformer.h.0.{name}.weight"].std()) for w in (narrow, wide)]
        assert found[0] / found[1] == pytest.approx(4.0, rel=0.1), name
    for name in ("transformer.wte", "transformer.wpe", "lm_head"):
        assert float(wide[f"{name}.weight"].std()) == pytest.approx(0.02, rel=0.1), name


@pytest.mark.parametrize("position", [Position.learned, Position.sinusoidal])
def test_at_base_width_mup_is_bitwise_the_standard_model(position: Position) -> None:
    tokens = torch.randint(V, (2, 8), generator=torch.Generator().manual_seed(1))
    standard = gpt(16, parametrization=Parametrization.standard, position=position)
    mup = gpt(16, position=position)
    for ours, theirs in zip(mup.parameters(), standard.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(mup(tokens), standard(tokens))


@pytest.mark.parametrize("tied", [True, False])
def test_logits_and_labels_are_divided_by_the_width_ratio(tied: bool) -> None:
    model, tokens = gpt(64, tie_weights=tied).double(), torch.randint(V, (2, 8))
    seen: list[torch.Tensor] = []
    model.transformer.ln_f.register_forward_hook(lambda module, given, out: seen.append(out))
    expected = model(tokens), seen[0] @ model.lm_head.weight.T / 4
    torch.testing.assert_close(*expected, rtol=1e-12, atol=1e-12)
    labels = Classifier(model, 3, auxiliary=False).double()
    found, _ = labels(tokens, torch.tensor([8, 5]))
    torch.testing.assert_close(found[1], seen[1][1, 4] @ labels.score.weight.T / 4, rtol=1e-12, atol=1e-12)


def test_scores_decrease_as_one_over_head_dim() -> None:
    def scale(**settings: Any) -> float:
        config = GPTConfig(parametrization=Parametrization.mup, base_width=64, **settings)
        return float(config.query_scale / config.head_dim**0.5)

    assert scale(n_embd=64, n_head=4) == 1 / 16**0.5
    assert scale(n_embd=256, n_head=4) == 16**0.5 / 64  # heads are four times as wide
    assert scale(n_embd=256, n_head=16, base_head_dim=16) == 1 / 16**0.5  # there are four times as many
    assert GPTConfig().query_scale == 1


def test_chunked_loss_of_mup_equals_that_of_all_logits() -> None:
    model, tokens = gpt(64).double(), torch.randint(V, (2, 8))
    whole = model(tokens, targets=tokens)
    use_kernels(model, Kernels(chunk_above=0, chunk_bytes=4 * V * 3))
    torch.testing.assert_close(model(tokens, targets=tokens), whole, rtol=1e-12, atol=1e-12)


def test_cached_logits_of_mup_equal_those_without_cache() -> None:
    model = build(small(parametrization=Parametrization.mup, base_width=8, position=Position.rope))
    tokens = torch.randint(V, (2, 8))
    cache = model.new_cache(2)
    parts = [model(tokens[:, i : i + 1], cache) for i in range(8)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=1e-10, atol=1e-10)


def test_default_rate_of_mup_is_that_of_the_base_width() -> None:
    rates = [
        GPTConfig(n_embd=n, n_head=4, base_width=256, parametrization=Parametrization.mup).default_lr
        for n in (64, 1024)
    ]
    assert rates == [GPTConfig(n_embd=256, n_head=4).default_lr] * 2
