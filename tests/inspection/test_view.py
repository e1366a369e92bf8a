"""The JSON of the page: exact packing of weights, numbers that JSON has, and no end of the script."""

from __future__ import annotations

import base64
import json
import math

import numpy as np

from gptexp.inspection.view import PageView, PlacesView, RunView, TokenView, packed, to_json


def page(**parts: object) -> PageView:
    run = {"notes": [], "loss": 1.0, "tokens": [], "attention": None, "lens": None, "direct": None, "places": None}
    return PageView(title="a", runs=[RunView(**{"name": "a", "settings": [], "norms": None, **run, **parts})])  # type: ignore[arg-type]


def test_weights_are_packed_row_by_row_of_the_lower_triangle() -> None:
    weights = np.zeros((2, 2, 3, 3))
    weights[0, 0] = np.array([[1, 9, 9], [0.25, 0.75, 9], [0.5, 0.5, 0]])
    weights[1, 1, 2, 2] = 1
    data = np.frombuffer(base64.b64decode(packed(weights)), np.uint8)
    assert len(data) == 2 * 2 * 6
    assert data[:6].tolist() == [255, 128, 221, 180, 180, 0]
    assert data[-1] == 255


def test_weights_of_twelve_layers_and_heads_stay_below_seven_megabytes() -> None:
    assert len(packed(np.zeros((12, 12, 256, 256), np.float32))) < 7e6


def test_no_text_ends_the_script_and_every_number_is_json() -> None:
    token = TokenView("</script><!--\u2028", 3, math.inf, 0.123456789, 1, [("<", math.nan)])
    places = PlacesView(loss=[1 / 3, math.nan], error=[math.nan, 2.0], count=[1, 0])
    text = to_json(page(tokens=[token], places=places, settings=[("a", "<b>")]))
    assert "<" not in text
    assert "\u2028" not in text
    run = json.loads(text)["runs"][0]
    assert run["tokens"][0]["text"] == token.text
    assert (run["tokens"][0]["loss"], run["tokens"][0]["p"], run["tokens"][0]["top"]) == (None, 0.12346, [["<", None]])
    assert run["places"] == {"loss": [0.33333, None], "error": [None, 2.0], "count": [1, 0]}
