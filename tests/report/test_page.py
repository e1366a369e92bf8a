"""report.html: no scripts, no network, readable on narrow screens."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")


from gptexp.report.reading import last_sample
from support.pages import Page, made_page, sweep
from support.run_folders import make_run

EVIL = "<script>alert('x')</script>\"'><img src=http://evil.example/x onerror=alert(1)>"


def test_the_report_page_executes_no_script_from_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "a<b>&'\"", 2.0, sample=EVIL, data__path=EVIL, name=EVIL)
    make_run(tmp_path / "b", 1.9, sample=EVIL, data__path=f"{EVIL}2", tokenizer__kind=EVIL)
    (make_run(tmp_path / "<script>c", 1.9) / "result.json").write_text(EVIL)
    html = made_page(tmp_path)
    seen = Page(html)
    assert seen.tags.count("script") == 1
    assert html.count("<script") == 1  # the data, which a browser does not execute
    assert '<script type="application/json" id="gptexp-data">' in html
    assert seen.tags.count("img") == 3
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert EVIL in seen.text  # shown as text
    assert "<script>c" in seen.text


def test_the_report_page_loads_nothing_from_the_network(tmp_path: Path) -> None:
    seen = Page(made_page(sweep(tmp_path)))
    links = [value or "" for name, value in seen.attributes if name in ("src", "href", "srcset", "action")]
    assert len(links) == 3
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert {"link", "iframe", "object", "base"}.isdisjoint(seen.tags)
    policies = [value or "" for name, value in seen.attributes if name == "content"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policies


def test_the_report_page_shows_the_table_the_notes_and_one_sample_each(tmp_path: Path) -> None:
    sweep(tmp_path)
    make_run(tmp_path / "b1", 1.9, seed=1, model__n_layer=4, sample="what four layers wrote\n\n```text\nfence")
    (tmp_path / "a2/result.json").unlink()
    text = " ".join(Page(made_page(tmp_path)).text.split())
    assert "val/bpb by n_layer" in text
    assert "what four layers wrote ```text fence" in text
    assert "The cat sat." in text
    assert "early" not in text  # an older section
    assert "a2: unfinished: no result.json" in text


def test_the_report_page_labels_every_cell_for_narrow_screens(tmp_path: Path) -> None:
    html = made_page(sweep(tmp_path))
    assert html.count("<td") == html.count("<td data-name=")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("text", ["", "no sections", "## step x\n\n````text\na\n````\n\n"])
def test_missing_or_malformed_samples_are_not_an_error(tmp_path: Path, text: str) -> None:
    (make_run(tmp_path / "a", 2.0) / "samples.md").write_text(text)
    assert last_sample(tmp_path / "a") == ""
    assert "no sample" in Page(made_page(tmp_path)).text
