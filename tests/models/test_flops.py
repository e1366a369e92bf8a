"""Sizes and FLOPs, compared with values computed by hand."""

from __future__ import annotations

import pytest
import torch

from gptexp.config.model import Activation, BigramConfig, GPTConfig, MLPConfig
from gptexp.models.bigram import Bigram
from gptexp.models.flops import count_parameters, peak_flops, train_flops_per_token, training_bytes
from gptexp.models.gpt import GPT
from gptexp.models.mlp import MLP


def test_flops_of_gpt2_small_are_those_of_its_matrices_and_attention() -> None:
    with torch.device("meta"):
        model = GPT(GPTConfig(), 50257)
    matrices = 12 * 12 * 768**2 + 50257 * 768  # 12 C² per layer; the tied head is a product, wte and wpe are lookups
    assert train_flops_per_token(model, 1024) == 6 * matrices + 12 * 12 * 768 * 1024 == 854_438_400


def test_grouped_query_attention_saves_only_flops_of_projections() -> None:
    full, grouped = (GPT(GPTConfig(n_layer=1, n_head=4, n_kv_head=k, n_embd=8, block_size=4), 5) for k in (4, 1))
    assert train_flops_per_token(full, 4) - train_flops_per_token(grouped, 4) == 6 * 8 * (2 * 8 - 2 * 2)


def test_flops_include_the_gate_of_swiglu() -> None:
    plain, gated = (
        GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, activation=a), 5)
        for a in (Activation.gelu, Activation.swiglu)
    )
    assert train_flops_per_token(gated, 4) - train_flops_per_token(plain, 4) == 6 * 8 * 32


def test_flops_of_bigram_are_a_lookup_and_of_mlp_two_products() -> None:
    assert train_flops_per_token(Bigram(BigramConfig(), 7), 64) == 0
    assert train_flops_per_token(MLP(MLPConfig(n_context=2, n_embd=3, n_hidden=5), 7), 64) == 6 * (2 * 3 * 5 + 5 * 7)


def test_a_tied_matrix_is_counted_once() -> None:
    tied, untied = (
        GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, tie_weights=t), 5) for t in (True, False)
    )
    assert count_parameters(untied) - count_parameters(tied) == 5 * 8


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989.4),
        ("NVIDIA H100 PCIe", "bf16-mixed", 756.0),
        ("NVIDIA H100 NVL", "16-mixed", 835.5),
        ("NVIDIA H200", "bf16-mixed", 989.4),
        ("NVIDIA GH200 480GB", "bf16-mixed", 989.4),
        ("NVIDIA B200", "bf16-mixed", 2250.0),
        ("NVIDIA GB200", "bf16-mixed", 2500.0),
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", 312.0),
        ("NVIDIA A100-SXM4-80GB", "32-true", 19.5),
        ("NVIDIA A10G", "bf16-mixed", 70.0),
        ("NVIDIA A10", "bf16-mixed", 125.0),
        ("NVIDIA L4", "bf16-mixed", 121.0),
        ("NVIDIA L40S", "bf16-mixed", 362.0),
        ("NVIDIA L40", "bf16-mixed", 181.0),
        ("Tesla T4", "16-mixed", 65.0),
        ("Tesla T4", "bf16-mixed", None),
        ("Tesla V100-SXM2-16GB", "16-mixed", 125.0),
        ("Tesla V100-SXM2-16GB", "bf16-mixed", None),
        ("NVIDIA GeForce RTX 3090", "bf16-mixed", 71.0),
        ("NVIDIA GeForce RTX 4090", "bf16-mixed", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16-mixed", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16-mixed", None),
        ("NVIDIA A100-SXM4-80GB", "64-true", None),
        ("NVIDIA A1000", "bf16-mixed", None),
        ("cpu", "32-true", None),
    ],
)
def test_the_peak_flops_are_from_the_data_sheet_or_unknown(name: str, precision: str, tera: float | None) -> None:
    assert peak_flops(name, precision) == (None if tera is None else pytest.approx(tera * 1e12))


def test_training_needs_sixteen_bytes_per_parameter() -> None:
    assert training_bytes(50257**2) == 40_412_256_784  # the bigram over GPT-2's vocabulary
