"""Parts of a block besides attention: dropout, norms, activations, feed-forward, fixed positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gptexp.config.model import Activation, GPTConfig, Norm
from gptexp.models.kernels.dropout import dropout
from gptexp.models.kernels.norm import RMSNorm

HASH_FACTOR, HASH_PRIME = 1_000_003, 2**31 - 1  # a polynomial hash, whose products stay below 2^52


def require_length(length: int, block_size: int) -> None:
    """Raise ValueError if there are more tokens than the context holds."""
    if length > block_size:
        raise ValueError(f"{length} tokens exceed block_size={block_size}; give at most the last {block_size}")


class Dropout(nn.Module):
    """nn.Dropout with masks that a CPU draws faster: in training, 0 with probability p, else x / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return dropout(x, self.p) if self.training and self.p > 0 else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


def make_norm(config: GPTConfig) -> nn.Module:
    """The norm over n_embd that `model.norm` names; RMSNorm (arXiv 1910.07467) has a gain and never a bias."""
    if config.norm is Norm.layernorm:
        return nn.LayerNorm(config.n_embd, eps=config.norm_eps, bias=config.bias)
    if config.norm is Norm.rmsnorm:
        return RMSNorm(config.n_embd, eps=config.norm_eps)
    return nn.Identity()


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")  # GPT-2's (arXiv 1606.08415, section 2)


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()  # arXiv 2109.08668


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.gelu: F.gelu,
    Activation.gelu_tanh: _gelu_tanh,
    Activation.relu: F.relu,
    Activation.relu2: _relu2,
    Activation.swiglu: F.silu,  # of the gate (arXiv 2002.05202)
}


class FeedForward(nn.Module):
    """Two linear layers applied to each position: (B, T, C) -> (B, T, C) (arXiv 1706.03762, section 3.3).

    With swiglu the hidden units are silu(c_gate(x)) * c_fc(x): a third matrix of the same width, so 1.5 times the
    parameters.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.mlp_width
        self.activation = ACTIVATIONS[config.activation]
        self.c_fc = nn.Linear(config.n_embd, width, bias=config.bias)
        gated = config.activation is Activation.swiglu
        self.c_gate = nn.Linear(config.n_embd, width, bias=config.bias) if gated else None
        self.c_proj = nn.Linear(width, config.n_embd, bias=config.bias)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        hidden: Tensor = self.c_fc(x)  # (B, T, width)
        hidden = self.activation(hidden) if self.c_gate is None else self.activation(self.c_gate(x)) * hidden
        out: Tensor = self.c_proj(hidden)  # (B, T, C)
        return out


class NgramEmbeddings(nn.Module):
    """Embeddings of the tokens' last 2, 3 … n tokens, (B, T, n) -> (B, T, C) (arXiv 2501.16975, section 3.1).

    Each length has a table, whose rows are shared by a hash.
    """

    def __init__(self, n: int, rows: int, n_embd: int) -> None:
        super().__init__()
        self.rows = rows
        self.tables = nn.ModuleList(nn.Embedding(rows, n_embd) for _ in range(2, n + 1))

    def forward(self, history: Int[Tensor, "B T n"]) -> Float[Tensor, "B T C"]:
        """The sum of all lengths; a length that reaches before the text adds nothing.

        history: each token, the one before it …; -1 where there is none.
        """
        total = torch.zeros((), device=history.device)
        key = history[..., 0]  # (B, T)
        for table, token in zip(self.tables, history.unbind(-1)[1:], strict=True):
            key = (key * HASH_FACTOR + token + 1) % HASH_PRIME
            vectors = table(key % self.rows)  # (B, T, C)
            total = total + vectors * (token >= 0)[..., None].to(vectors.dtype)
        return total


def sinusoidal_table(
    positions: Int[Tensor, "*batch T"], n_embd: int, dtype: torch.dtype
) -> Float[Tensor, "*batch T n_embd"]:
    """Fixed position vectors: sine in even, cosine in odd columns (arXiv 1706.03762, section 3.5)."""
    angles = position_angles(positions, n_embd, dtype)  # (..., T, ceil(n_embd / 2))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :n_embd]


def position_angles(
    positions: Int[Tensor, "*batch T"], width: int, dtype: torch.dtype, base: float = 10_000.0
) -> Float[Tensor, "*batch T pairs"]:
    """position / base^(2i/width) in radians for each of ceil(width / 2) pairs i of columns, in float32 at least."""
    dtype = torch.promote_types(dtype, torch.float32)
    pairs = torch.arange(0, width, 2, device=positions.device, dtype=dtype)
    return positions.to(dtype)[..., None] * base ** (-pairs / width)
