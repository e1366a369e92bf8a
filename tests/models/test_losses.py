"""The chunked loss and its gradients equal the ordinary loss and its gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gptexp.config import LoRAConfig
from gptexp.config.model import GPTConfig
from gptexp.models.gpt import GPT
from gptexp.models.kernels import chunked_loss
from gptexp.models.kernels.choice import Kernels, use_kernels
from gptexp.models.lora import LoRALinear
from gptexp.models.losses import IGNORED

V, C = 101, 16
CHUNK = 7 * 4 * V  # bytes of 7 rows of logits
linear_cross_entropy = partial(chunked_loss.linear_cross_entropy, chunk_bytes=CHUNK)


def parts(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states (2, 12, C), a head (V, C), and targets (2, 12) of which some are ignored."""
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(*shape, C, generator=generator, dtype=dtype) for shape in ((2, 12), (V,)))
    targets = torch.randint(0, V, (2, 12), generator=generator)
    targets[0, :3] = targets[1, -1] = IGNORED
    return hidden.requires_grad_(), head.requires_grad_(), targets


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_chunked_loss_and_gradients_equal_those_of_all_logits(reduction: str) -> None:
    hidden, head, targets = parts()
    expected = F.cross_entropy((hidden @ head.T).flatten(0, 1), targets.flatten(), reduction=reduction)
    wanted = torch.autograd.grad(expected * 3, (hidden, head))
    found = linear_cross_entropy(hidden, head, targets, reduction)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(torch.autograd.grad(found * 3, (hidden, head)), wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("unchecked_shapes")
def test_torch_compile_makes_one_graph_of_the_loss() -> None:
    hidden, head, targets = parts()
    expected = linear_cross_entropy(hidden, head, targets)
    wanted = torch.autograd.grad(expected, (hidden, head))
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    found = compiled(hidden, head, targets)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, (hidden, head)), wanted)


def test_gradcheck_passes_for_the_loss() -> None:
    """With few numbers: each one is perturbed. Five rows of logits make a chunk."""
    hidden, head, targets = parts()
    small = (hidden[:, 1:9, :3].detach().requires_grad_(), head[:11, :3].detach().requires_grad_())
    chosen = targets[:, 1:9].clamp(max=10)
    assert (chosen == IGNORED).any()

    def loss(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return chunked_loss.linear_cross_entropy(h, w, chosen, chunk_bytes=5 * 4 * 11)

    assert torch.autograd.gradcheck(loss, small)


def test_only_required_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, targets = parts()
    linear_cross_entropy(hidden, head.detach(), targets).backward()
    frozen = hidden.grad
    hidden.grad = None
    linear_cross_entropy(hidden, head, targets).backward()
    torch.testing.assert_close(frozen, hidden.grad)
    made: list[bool] = []
    chunk = chunked_loss._chunk

    def watched(*args: Any) -> Any:
        made.append(args[-1])
        return chunk(*args)

    monkeypatch.setattr(chunked_loss, "_chunk", watched)
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, head, targets).requires_grad
    assert set(made) == {False}


def test_bf16_products_give_a_loss_in_float32() -> None:
    hidden, head, targets = parts(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_cross_entropy(hidden, head, targets)
        logits = F.linear(hidden, head)
    assert found.dtype == torch.float32
    expected = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.backward()
    assert head.grad is not None
    assert head.grad.dtype == torch.float32
    wide_hidden, wide_head, _ = parts(torch.float32)
    F.cross_entropy((wide_hidden @ wide_head.T).flatten(0, 1), targets.flatten()).backward()
    torch.testing.assert_close(hidden.grad, wide_hidden.grad, rtol=0.05, atol=2e-3)
    torch.testing.assert_close(head.grad, wide_head.grad, rtol=0.05, atol=2e-3)


def test_padding_columns_of_the_head_have_no_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the matrix is padded to a multiple of 64 columns; here a CPU uses the same code path."""
    hidden, head, targets = parts()
    expected = linear_cross_entropy(hidden, head, targets)
    wanted = torch.autograd.grad(expected, (hidden, head))
    monkeypatch.setattr(chunked_loss, "ALIGNED_DEVICES", ("cpu",))
    found = linear_cross_entropy(hidden, head, targets)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, (hidden, head)), wanted)


def test_chunks_are_for_many_logits_and_never_for_float16() -> None:
    hidden, _, _ = parts(torch.float32)
    assert Kernels(chunk_above=4 * 24 * V - 1).use_chunks(hidden, V)
    assert not Kernels(chunk_above=4 * 24 * V).use_chunks(hidden, V)
    assert not Kernels().use_chunks(hidden, V)
    assert not Kernels(chunk_above=0).use_chunks(hidden.half(), V)
    with torch.autocast("cpu", torch.float16):
        assert not Kernels(chunk_above=0).use_chunks(hidden, V)


def model(**settings: object) -> GPT:
    torch.manual_seed(0)
    made = GPT(GPTConfig(block_size=12, n_layer=1, n_head=2, n_embd=C, **settings), V).double()  # type: ignore[arg-type]
    use_kernels(made, Kernels(chunk_above=0, chunk_bytes=CHUNK))
    return made


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_of_a_model_equals_the_loss_of_its_logits(tied: bool) -> None:
    gpt = model(tie_weights=tied)
    _, _, targets = parts()
    tokens = targets.clamp(min=0)
    expected = F.cross_entropy(gpt(tokens).flatten(0, 1), targets.flatten())
    wanted = torch.autograd.grad(expected, list(gpt.parameters()))
    logits: list[torch.Tensor] = []
    for seen in (0, 1):  # the second call has a hook that reads the logits
        found = gpt(tokens, targets=targets)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found, list(gpt.parameters())), wanted)
        assert len(logits) == seen
        gpt.lm_head.register_forward_hook(lambda module, fed, output: logits.append(output))


def test_the_loss_uses_the_forward_pass_of_an_adapted_head() -> None:
    gpt = model(tie_weights=False)
    gpt.lm_head = LoRALinear(gpt.lm_head, LoRAConfig(rank=2))
    nn.init.ones_(gpt.lm_head.lora_B)
    gpt.double()
    _, _, targets = parts()
    tokens = targets.clamp(min=0)
    expected = F.cross_entropy(gpt(tokens).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(gpt(tokens, targets=targets), expected)
