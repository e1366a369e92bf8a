"""How large a model is and how much work it makes."""

from __future__ import annotations

import re

from torch import nn

from gptexp.models.attention import CausalSelfAttention

# Dense peak rates in TFLOP/s from NVIDIA's data sheets and architecture white papers: 16-bit tensor
# cores with float32 accumulation, and float32 (TF32 off, as is torch's default). Without sparsity,
# at boost clock. The first pattern that is found in the device's name counts.
_PEAK_TFLOPS: tuple[tuple[str, float, float], ...] = (
    (r"GB200", 2500.0, 80.0),
    (r"B200", 2250.0, 75.0),
    (r"H200 NVL|H100 NVL", 835.5, 60.0),
    (r"H100 PCIe", 756.0, 51.0),
    (r"GH200|H100|H200|H800", 989.4, 66.9),
    (r"A100|A800", 312.0, 19.5),
    (r"A10G", 70.0, 35.0),
    (r"A10", 125.0, 31.2),
    (r"A30", 165.0, 10.3),
    (r"A40", 149.7, 37.4),
    (r"RTX A6000", 154.8, 38.7),
    (r"L40S", 362.0, 91.6),
    (r"L40", 181.0, 90.5),
    (r"L4", 121.0, 30.3),
    (r"V100S", 130.0, 16.4),
    (r"V100-PCIE", 112.0, 14.0),
    (r"V100", 125.0, 15.7),
    (r"T4", 65.0, 8.1),
    (r"RTX 5090", 209.5, 104.8),
    (r"RTX 4090", 165.2, 82.6),
    (r"RTX 3090 Ti", 80.0, 40.0),
    (r"RTX 3090", 71.0, 35.6),
)
_SLOWER_VARIANT = re.compile(r"Laptop|Max-Q|MIG|\b[45]090 D", re.IGNORECASE)  # same name, other chip or a slice
_WITHOUT_BF16 = re.compile(r"V100|T4\b")  # older than Ampere: bf16 is emulated


def count_parameters(model: nn.Module) -> int:
    """All parameters; a tied matrix counts once. Works on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_trainable(model: nn.Module) -> int:
    """The parameters that are not frozen."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def train_flops_per_token(model: nn.Module, block_size: int) -> int:
    """Floating-point operations of one forward and backward pass, per token (arXiv 2204.02311, appendix B).

    6 for each weight of a linear layer (a multiplication and an addition forward, twice that backward; a
    frozen one has no gradient of its own, so 4),
    and 12 * n_head * head_dim * block_size in each attention layer for scores and weighted sums (the
    whole square: what causality saves is not subtracted). A tied lm_head is a matrix product and counts;
    wte, wpe and the bigram's table are lookups and don't; neither do biases, norms and activations.
    """
    factors = [
        parameter
        for module in model.modules()
        if isinstance(module, nn.Linear)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim == 2  # the weight, and an adapter's two matrices
    ]
    products = sum((6 if factor.requires_grad else 4) * factor.numel() for factor in factors)
    widths = sum(
        module.n_head * module.head_dim for module in model.modules() if isinstance(module, CausalSelfAttention)
    )
    return products + 12 * widths * block_size


def peak_flops(device_name: str, precision: str) -> float | None:
    """Dense peak of one device in FLOP/s, or None where it isn't known.

    Args:
        device_name: as `torch.cuda.get_device_name()` says it.
        precision: `trainer.precision`, resolved: 32-true, bf16-mixed or 16-mixed.
    """
    if _SLOWER_VARIANT.search(device_name) or (precision.startswith("bf16") and _WITHOUT_BF16.search(device_name)):
        return None
    for pattern, half, single in _PEAK_TFLOPS:
        if re.search(rf"\b(?:{pattern})\b", device_name, re.IGNORECASE):
            rate = {"16-mixed": half, "bf16-mixed": half, "32-true": single}.get(precision)
            return None if rate is None else rate * 1e12
    return None


def training_bytes(n_params: int, n_trainable: int | None = None) -> int:
    """Memory that training needs at least: weight, gradient and AdamW's two moments, 4 bytes each.

    n_trainable: the parameters that have the latter three; None: all.
    """
    return 4 * n_params + 12 * (n_params if n_trainable is None else n_trainable)
