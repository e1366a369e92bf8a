"""Settings of small GPTs with every option that attention, the stream or the logits have."""

from __future__ import annotations

from typing import Any

from gptexp.config.model import Activation, Norm, NormPosition, Parametrization, Position

OPTIONS: list[dict[str, Any]] = [
    {},
    *({"position": position} for position in Position if position is not Position.learned),
    {"n_kv_head": 1, "position": Position.rope},
    {"qk_norm": True, "tie_weights": False},
    {"window": "SL", "window_size": 3},
    {"window": "SL", "window_size": 3, "position": Position.alibi},
    {"norm": Norm.rmsnorm},
    {"ngram": 3, "ngram_rows": 7, "bias": False},
    {"norm": Norm.none},
    {"mlp_ratio": 0.0},
    {"activation": Activation.swiglu, "parametrization": Parametrization.mup, "base_width": 8},
]
# Without a residual stream that is a sum.
NO_SUM: list[dict[str, Any]] = [{"norm_position": NormPosition.post}, {"residual": False}]
OPTIONS += NO_SUM
