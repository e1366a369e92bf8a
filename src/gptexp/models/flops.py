"""The number of parameters, the FLOPs and the memory of a model, and the peak FLOP/s of devices."""

from __future__ import annotations

import re

from torch import nn

from gptexp.models.attention import CausalSelfAttention

# Dense peak rates in TFLOP/s from NVIDIA's data sheets and architecture white papers: 16-bit tensor cores with float32
# accumulation, and float32 (TF32 off, torch's default). Without sparsity, at boost clock. The first pattern that
# matches the device's name applies.
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
# Another chip with the same name, or a part of one.
_SLOWER_VARIANT = re.compile(r"Laptop|Max-Q|MIG|\b[45]090 D", re.IGNORECASE)
_WITHOUT_BF16 = re.compile(r"V100|T4\b")  # older than Ampere: bf16 is emulated


def count_parameters(model: nn.Module) -> int:
    """How many parameters the model has; a tied matrix counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_trainable(model: nn.Module) -> int:
    """How many parameters are not frozen."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def train_flops_per_token(model: nn.Module, block_size: int) -> int:
    """FLOPs of one forward and one backward pass, per token (PaLM, arXiv 2204.02311, appendix B).

    - 6 for each weight of a linear layer: a multiplication and an addition forward, twice that backward; 4 for a
      frozen weight, whose gradient is not computed.
    - 12 * n_head * head_dim * block_size for each attention layer: scores and weighted sums over the whole
      (T, T) matrix, including the half that causality hides. With a window, the tokens in it replace block_size.

    A tied lm_head is a matrix product and counts. What `trainer.recompute` computes again does not: these are FLOPs of
    the model, as MFU counts them. Lookups (wte, wpe, the bigram's table), biases, norms and activations
    do not count.
    """
    factors = [
        parameter
        for module in model.modules()
        if isinstance(module, nn.Linear)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim == 2  # the weight, and the two matrices of an adapter
    ]
    products = sum((6 if factor.requires_grad else 4) * factor.numel() for factor in factors)
    layers = [module for module in model.modules() if isinstance(module, CausalSelfAttention)]
    attention = sum(layer.n_head * layer.head_dim * layer.seen(block_size) for layer in layers)
    return products + 12 * attention


def peak_flops(device_name: str, precision: str) -> float | None:
    """Dense peak of one device in FLOP/s, or None if it is not known.

    Args:
        device_name: as `torch.cuda.get_device_name()` returns it.
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
    """The least memory of training in bytes: weight, gradient and AdamW's two moments in float32, 4 bytes each.

    n_trainable: how many parameters have a gradient and moments; None: all.
    """
    return 4 * n_params + 12 * (n_params if n_trainable is None else n_trainable)
