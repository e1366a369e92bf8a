"""Conditions of `gptexp runs --where`: what they select, and that nothing else is accepted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptexp.report.listing.conditions import LONGEST, full_name, parse
from gptexp.util.errors import RunError

RUN: dict[str, Any] = {
    "model.n_layer": 4,
    "model.bias": True,
    "model.kind": "gpt",
    "optimizer.lr": None,
    "val/bpb": 1.9,
    "norm/gradient/h.0.attn": 0.25,
    "val/bpb/my-part": -1e-5,
    "note": "对照 'one'",
}
KNOWN = [*RUN, "val/other"]


@pytest.mark.parametrize(
    "text",
    [
        "model.n_layer>=4 and val/bpb<2",
        "not (model.n_layer == 5 or val/bpb > 2)",
        "2 <= model.n_layer < 8",
        "model.n_layer in (2, 4)",
        "model.kind == 'gpt' and model.kind != \"mlp\" and model.kind not in ['mlp']",
        "model.bias and model.bias == true",
        "optimizer.lr == null and val/other == None and val/other != 3",
        "norm/gradient/h.0.attn<2.6e-1",
        "val/bpb/my-part > -2e-5 and val/bpb/my-part < -5E-6",
        "'对照' in note and note != 'and'",
        "val/bpb < 2 and not val/other < 2 and not val/other >= 2",
        "'a' < model.kind and not model.kind < 3 and not 3 < model.kind",
    ],
)
def test_a_condition_holds(text: str) -> None:
    assert parse(text, KNOWN)(RUN.get)
    assert not parse(f"not ({text})", KNOWN)(RUN.get)


def test_a_condition_looks_its_names_up_by_their_full_name() -> None:
    asked = Counter[str]()

    def lookup(name: str) -> Any:
        asked[name] += 1
        return RUN[name]

    assert not parse("n_layer<8 and bpb<2 and 'val/bpb' == kind", KNOWN)(lookup)
    assert asked == {"model.n_layer": 1, "val/bpb": 1, "model.kind": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "model.n_layer >=", "(", "val/bpb < 2 and", "1 +", "model.n_layer = 4", "a b", "\0", "x[0]"),
        *("__import__('os').system('id')", "open('x')", "x.y()", "(lambda: 1)()", "[x for x in y]", "x if y else z"),
        *("2 + 2", "2 ** 9", "x % 2", "-x", "f'{x}'", "b'x'", "1j", "...", "{1: 2}", "{1}", "x := 2", "x is None"),
        *("await x", "*x", "~1", "℘0 < 1", "e\u0301 < 1", "`x`", "x; y", "x\ny", "import os", "x @ y"),
        *("(" * 300 + "1" + ")" * 300, "not " * 2000 + "x", "1" * 5000, "x<" * 400 + "1" + "x" * LONGEST),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(RunError, match=r"^--where=") as refused:
        parse(text, KNOWN)
    assert "model.n_layer>=4 and val/bpb<2" in str(refused.value) or "write ==" in str(refused.value)


def test_a_single_equals_sign_has_its_own_remedy() -> None:
    with pytest.raises(RunError, match=r"^--where=model\.n_layer=4: is not a condition; write == to compare$"):
        parse("model.n_layer=4", KNOWN)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(alphabet="ab._/-<>=!()[]'\"0123 \\,:andornti℘é\u0301", max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = parse(text, KNOWN)
    except RunError:
        return
    condition(RUN.get)


def test_a_name_may_be_its_unique_last_part() -> None:
    known = ["model.n_layer", "train/loss", "val/loss", "val/bpb", "state"]
    assert full_name("n_layer", known, "--where") == "model.n_layer"
    assert full_name("bpb", known, "--where") == "val/bpb"
    assert full_name("state", known, "--where") == "state"
    with pytest.raises(
        RunError, match="loss: no setting, metric or field of these runs; choose one of train/loss, val"
    ):
        full_name("loss", known, "--where")
    with pytest.raises(RunError, match=r"--sort: n_lyer: .*did you mean n_layer\?"):
        full_name("n_lyer", known, "--sort")
    with pytest.raises(RunError, match=r"--where: val/bbp: .*did you mean val/bpb\?"):
        full_name("val/bbp", known, "--where")
