"""Names of the columns of norms and their groups."""

from __future__ import annotations

import pytest

from gptexp.runs.norms import column, group_of, in_order


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("transformer.h.0.attn.c_attn.weight", "h.0.attn"),
        ("transformer.h.11.attn.c_proj.lora_A", "h.11.attn"),
        ("transformer.h.3.mlp.c_gate.bias", "h.3.mlp"),
        ("transformer.h.3.ln_1.weight", "norms"),
        ("transformer.ln_f.bias", "norms"),
        ("lm_head.weight", "head"),
        ("score.weight", "head"),
        ("transformer.resid_scalars", "other"),
        ("c_fc.weight", "other"),
    ],
)
def test_each_parameter_belongs_to_the_group_of_its_layer(name: str, group: str) -> None:
    assert group_of(name, embedding=False) == group
    assert group_of(name, embedding=True) == "embedding"


def test_groups_are_in_the_order_of_the_model_and_blocks_in_that_of_numbers() -> None:
    names = ["h.x", "h.", "other", "h.10.mlp", "h.10.attn", "norms", "h.2.attn", "h.2.attn", "head", "embedding"]
    assert in_order(names) == ["embedding", "h.2.attn", "h.10.attn", "h.10.mlp", "norms", "head", "other", "h.x", "h."]
    assert column("gradient", "h.2.attn") == "norm/gradient/h.2.attn"
