"""Parameters and FLOPs of published models, counted on the presets without allocating the models."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gptexp.compose.composition import compose
from gptexp.conformance.check import Area, Check, Inputs
from gptexp.models.build import Measured, build_model, measure_model, plain_model

GPT1_VOCABULARY, GPT2_VOCABULARY = 40_478, 50_257
TOKENS = 1024  # of one GPT-2 sequence

SIZING = "nanoGPT, transformer_sizing.ipynb"
RELEASED = "OpenAI's weights (the paper's table 2 calls it {})"
GPT3 = "GPT-3, arXiv 2005.14165, table 2.1"


def parameters(*overrides: str, vocabulary: int = GPT2_VOCABULARY) -> Callable[[Inputs], int]:
    """Return a function that counts the parameters of a composition."""
    return lambda _: _measured(overrides, vocabulary).parameters


def sequence_flops(_: Inputs) -> int:
    """Return the forward and backward FLOPs of one sequence of GPT-2 124M."""
    return int(_measured(("model=gpt2_small",), GPT2_VOCABULARY).flops_per_token) * TOKENS


def counted_forward_flops(_: Inputs) -> int:
    """Return the FLOPs of the matrix products that torch counts in one forward pass of GPT-2 124M."""
    config = compose(["model=gpt2_small"]).model
    # The unfused attention kernel, because some fused ones count half of the scores for causality.
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        build_model(config, GPT2_VOCABULARY)(torch.zeros(1, TOKENS, dtype=torch.int64))
    return int(counter.get_total_flops())


@lru_cache
def _measured(overrides: tuple[str, ...], vocabulary: int) -> Measured:
    config = compose(list(overrides)).model
    return measure_model(lambda: plain_model(config, vocabulary), config.block_size)


def _size(name: str, published: int, source: str, *overrides: str, vocabulary: int = GPT2_VOCABULARY) -> Check:
    return Check(name=name, published=published, source=source, compute=parameters(*overrides, vocabulary=vocabulary))


def _gpt3(name: str, published: float, unit: float, layers: int, width: int, heads: int) -> Check:
    shape = ("model=gpt2_small", "model.block_size=2048")
    sizes = (f"model.n_layer={layers}", f"model.n_embd={width}", f"model.n_head={heads}")
    count = parameters(*shape, *sizes)
    return Check(name=name, published=published, tolerance=0.5, source=GPT3, compute=lambda i: count(i) / unit)


PARAMETERS = Area(
    title="Parameters",
    note="Exact, except for GPT-3, whose table is rounded. A tied matrix counts once.",
    checks=(
        _size("GPT-1", 116_534_784, "OpenAI's weights (the paper: 117M)", "model=gpt1", vocabulary=GPT1_VOCABULARY),
        _size("GPT-2 124M without biases", 124_337_664, SIZING, "model=gpt2_small", "model.bias=false"),
        _size("GPT-2 124M", 124_439_808, RELEASED.format("117M"), "model=gpt2_small"),
        _size("GPT-2 medium", 354_823_168, RELEASED.format("345M"), "model=gpt2_medium"),
        _size("GPT-2 large", 774_030_080, RELEASED.format("762M"), "model=gpt2_large"),
        _size("GPT-2 XL", 1_557_611_200, RELEASED.format("1542M"), "model=gpt2_xl"),
        _gpt3("GPT-3 Small, millions", 125, 1e6, 12, 768, 12),
        _gpt3("GPT-3 Large, millions", 760, 1e6, 24, 1536, 16),
        _gpt3("GPT-3 175B, billions", 175, 1e9, 96, 12_288, 96),
    ),
)

FLOPS = Area(
    title="FLOPs",
    note="Of one sequence of 1,024 tokens in GPT-2 124M. PaLM's formula also counts 6 per gain of a norm, "
    "which is the tolerance.",
    checks=(
        Check(name="forward and backward", published=874_944_921_600, source=SIZING, compute=sequence_flops),
        Check(
            name="the same by PaLM's formula",
            published=875_062_886_400,
            tolerance=6.0 * 25 * 768 * TOKENS,
            source="PaLM, arXiv 2204.02311, appendix B, in the same notebook",
            compute=sequence_flops,
        ),
        Check(
            name="forward, as torch counts",
            published=291_648_307_200,
            source=f"{SIZING}; ours by torch.utils.flop_counter",
            compute=counted_forward_flops,
        ),
    ),
)
