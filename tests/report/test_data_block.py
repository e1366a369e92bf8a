"""The data block of report.html: complete, small, and a check of every digit that the page shows."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from gptexp.report.comparison import Question, compare_folders
from gptexp.report.data_block import PageChanged, common, merged, read_elements, read_report, without
from gptexp.report.page import page
from gptexp.util.errors import RunError
from support.pages import forged, made_page, sweep
from support.run_folders import make_run


def written(place: Path, html: str) -> Path:
    path = place / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


def grid(place: Path) -> Path:
    """A grid of two settings with two seeds, which gives tables of main effects."""
    for seed in (1, 2):
        for layers in (2, 4):
            for heads in (1, 2):
                name = f"{layers}-{heads}-{seed}"
                value = 2 + seed / 100 - layers / 30 + heads / 50 + layers * heads * seed / 900
                make_run(place / name, value, seed=seed, model__n_layer=layers, model__n_head=heads)
    return place


def test_the_block_has_each_runs_settings_metrics_and_origin(tmp_path: Path) -> None:
    reported = read_report(written(tmp_path, made_page(sweep(tmp_path / "runs"))))
    seeds = [(one.label, one.run.seed) for one in reported]
    assert seeds == [("n_layer 2", 1), ("n_layer 2", 2), ("n_layer 4", 1), ("n_layer 4", 2)]
    run = reported[3].run
    assert run.result.metrics["val/bpb"] == 1.9 + 2 / 90  # all digits
    assert run.settings["model"]["n_layer"] == 4
    assert run.settings["model"]["position"] == "learned"
    assert "paths" not in run.settings
    assert (run.result.steps, run.max_steps, run.result.val["text_sha256"]) == (100, 100, "a" * 64)


def test_every_changed_digit_of_a_page_is_found(tmp_path: Path) -> None:
    place = grid(tmp_path / "runs")
    html = page(compare_folders([place], Question()), {"curves.png": b"not really a picture" * 9})
    read_report(written(tmp_path, html))
    digits = [match.start() for match in re.finditer(r"\d", html)]
    for position in random.Random(1).sample(digits, 250):
        other = str((int(html[position]) + 1) % 10)
        changed = written(tmp_path, html[:position] + other + html[position + 1 :])
        with pytest.raises(PageChanged):
            raise AssertionError(f"{html[position - 40 : position + 20]}: {read_report(changed)}")


@pytest.mark.parametrize("at", [None, "tokens", "flops"])
def test_a_changed_cell_is_named_with_what_it_must_show(tmp_path: Path, at: str | None) -> None:
    html = page(compare_folders([grid(tmp_path / "runs")], Question(at=at)), {})
    tables = read_elements(html).tables
    assert len(tables) == 3  # the comparison and two main effects
    cell = tables[0][2][3]
    changed = cell[:-1] + str((int(cell[-1]) + 1) % 10)
    found = re.escape(f"row 2 (2), column val/bpb: shows {changed}, expected {cell}")
    with pytest.raises(PageChanged, match=found):
        read_report(written(tmp_path, html.replace(f'"val/bpb">{cell}<', f'"val/bpb">{changed}<', 1)))


def test_a_change_of_the_data_is_named_by_row_run_and_field(tmp_path: Path) -> None:
    html = made_page(sweep(tmp_path / "runs"))
    with pytest.raises(PageChanged, match="data: row 2, run 1, result: was changed"):
        read_report(written(tmp_path, html.replace('"val/bpb":1.911', '"val/bpb":1.912', 1)))


def test_settings_that_all_rows_share_are_stored_once(tmp_path: Path) -> None:
    for seed in range(1, 21):
        make_run(tmp_path / f"a{seed}", 2.0 + seed / 100, seed=seed)
        make_run(tmp_path / f"b{seed}", 1.9 + seed / 99, seed=seed, model__n_layer=4)
    html = page(compare_folders([tmp_path], Question()), {})
    assert html.count("val_every_steps") == 1
    assert len(html) < 60_000


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!-- <script>", "]]>", "\u2028 \u0000 é", "${oc.env:HOME}"]
)
def test_no_text_of_a_run_ends_the_block_or_becomes_code(tmp_path: Path, text: str) -> None:
    make_run(tmp_path / "runs/a", 2.0, name="n", note=text)
    make_run(tmp_path / "runs/b", 1.9, model__n_layer=4, note=text)
    html = made_page(tmp_path / "runs")
    assert html.count("<script") == 1
    reported = read_report(written(tmp_path, html))
    assert reported[0].run.settings["note"] == text


@pytest.mark.parametrize(
    ("block", "error"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"format": "gptexp report", "version": 2}', "format gptexp report 2"),
        ('{"format": "gptexp report", "version": 1, "rows": 3}', "damaged"),
        ('{"format": "gptexp report", "version": NaN}', "damaged"),
        ("9" * 5000, "damaged"),
    ],
)
def test_a_damaged_block_is_one_error(tmp_path: Path, block: str, error: str) -> None:
    html = f'<table id="comparison"></table><script type="application/json" id="gptexp-data">{block}</script>'
    with pytest.raises(PageChanged, match=error):
        read_report(written(tmp_path, html))


@pytest.mark.parametrize(
    "html", ["", "<p>hello", "<table id=comparison><td>1", "<script id=gptexp-data>{}</script>" * 2]
)
def test_a_page_without_data_is_refused_with_the_remedy(tmp_path: Path, html: str) -> None:
    with pytest.raises(RunError, match="gptexp compare"):
        read_report(written(tmp_path, html))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", -1),
        ("steps", 2**64),
        ("steps", True),
        ("metrics", {"val/bpb": "x"}),
        ("val", {"text_sha256": 1, "tokens": 2041}),
        ("history", [1]),
        ("parameters", None),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, field: str, value: object) -> None:
    def change(block: dict[str, Any]) -> None:
        shared, own = block["shared"]["run"]["result"], block["rows"][0]["runs"][0]["result"]
        (own if field in own else shared)[field] = value

    html = forged(made_page(sweep(tmp_path / "runs")), change)
    with pytest.raises(PageChanged, match="damaged"):
        read_report(written(tmp_path, html))


def test_shared_entries_and_the_rest_give_the_original() -> None:
    parts = [
        {"a": 1, "b": {"c": 1, "d": {}}, "e": {}, "f": 1, "g": {"h": 1}},
        {"a": 1, "b": {"c": 2, "d": {}}, "e": {}, "f": True, "g": 3},
    ]
    shared = common(parts)
    assert shared == {"a": 1, "b": {"d": {}}, "e": {}}
    assert [merged(shared, without(part, shared)) for part in parts] == parts
