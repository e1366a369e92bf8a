"""Where a difference lies: paired by seed, in every format."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")


from gptexp.report.comparison import Comparison
from gptexp.report.data_block import PageChanged, read_report
from gptexp.report.latex_markdown import latex, markdown
from gptexp.report.page import page
from gptexp.report.plots import plots
from gptexp.report.table import where_csv
from gptexp.report.where import ALL, BinnedLoss, Located, Losses, Where, paired
from support.comparisons import asked, text_of, two_by_three
from support.pages import Page
from support.run_folders import make_run

TOKENS = np.array([60, 0, 40])
CLOSED = "block_size 128 against block_size 32, by place in 128"


def losses(by_seed: dict[int, tuple[float, float]]) -> Losses:
    """Runs whose tokens in the bins `low` and `high` have these losses."""
    return {
        seed: {
            ALL: BinnedLoss((ALL,), TOKENS.sum(keepdims=True), np.array([60 * low + 40 * high])),
            "place in 128": BinnedLoss(("low", "none", "high"), TOKENS, TOKENS * np.array([low, 0.0, high])),
        }
        for seed, (low, high) in by_seed.items()
    }


BASELINE = losses({1: (2.0, 3.0), 2: (2.1, 3.1), 3: (2.2, 3.2)})
BETTER = losses({1: (2.0, 2.0), 2: (2.1, 2.3), 3: (2.2, 2.5)})


def located(ours: Losses = BETTER, theirs: Losses = BASELINE, deviation: float = 0.0, smaller: int = 32) -> Located:
    splits = paired(ours, theirs)
    (total,) = splits.pop(ALL)
    return Located("block_size 128", "block_size 32", 128, smaller, splits, total, deviation)


def with_where(place: Path, *pairs: Located, absent: tuple[str, ...] = ()) -> Comparison:
    two_by_three(place)
    return replace(asked(place), where=Where(list(pairs), list(absent)))


def test_differences_are_paired_by_seed_and_add_up() -> None:
    splits = paired(BETTER, BASELINE)
    (total,), (low, high) = splits[ALL], splits["place in 128"]  # the bin without tokens is dropped
    assert (low.label, low.tokens, low.share, high.share) == ("low", 60, 0.6, 0.4)
    assert (low.difference.mean, low.difference.sd) == (0.0, 0.0)
    assert high.difference.mean == pytest.approx(np.mean([-1.0, -0.8, -0.7]))
    assert high.difference.test == "paired t"
    half = 4.302653 * np.std([-1.0, -0.8, -0.7], ddof=1) / np.sqrt(3)  # Student's t, 2 degrees of freedom
    assert (high.difference.high or 0) - high.difference.mean == pytest.approx(half, rel=1e-5)
    assert low.contribution + high.contribution == pytest.approx(total.difference.mean)
    assert total.difference.mean == pytest.approx(total.loss - total.baseline)
    assert total.tokens == 100


def test_only_shared_seeds_count() -> None:
    more = {**BASELINE, **losses({9: (100.0, 100.0)})}
    assert paired(BETTER, more) == paired(BETTER, BASELINE)
    splits = paired(losses({7: (2.0, 2.0), 8: (2.2, 2.2)}), BASELINE)
    assert [part.difference.test for part in splits["place in 128"]] == ["Welch's t", "Welch's t"]


def test_a_single_seed_has_no_interval_and_a_note(tmp_path: Path) -> None:
    c = with_where(tmp_path, located(losses({1: (2.0, 2.5)}), losses({1: (2.0, 3.0)})))
    text = " ".join(text_of(c).split())
    assert "high 40.0% 3.000 2.500 -0.500 -0.2000" in text
    assert "one seed; no interval by place, frequency and repetition: block_size 128" in text
    assert "interval over the seeds (" not in text


def test_the_terminal_explains_the_tables_at_80_columns(tmp_path: Path) -> None:
    absent = "runs/b: no checkpoint in it"
    shown = text_of(with_where(tmp_path, located(deviation=0.0123), absent=(absent,)), width=80)
    assert max(map(len, shown.splitlines())) <= 80
    text = " ".join(shown.split())
    assert f"{CLOSED} place in 128 tokens baseline loss difference contribution" in text
    assert "low 60.0% 2.100 2.100 +0.000 +0.0000 high 40.0% 3.100 2.267 -0.833 ± 0.379 -0.3333" in text
    assert "all 100.0% 2.500 2.167 -0.333 ± 0.152 -0.3333" in text
    assert "windows do not overlap, so the token at place 40 in 128 has place 8 in windows of 32" in text
    assert "interval over the seeds (paired t), not corrected for the number of bins" in text
    assert "differs from that in result.json by up to 0.0123" in text
    assert f"not by place, frequency and repetition: {absent}" in text


@pytest.mark.parametrize("smaller", [128, 48])
def test_a_place_is_not_translated_between_other_windows(tmp_path: Path, smaller: int) -> None:
    text = " ".join(text_of(with_where(tmp_path, located(smaller=smaller))).split())
    assert "place in W: of a token among the targets of its window of W tokens, from 0" in text
    assert "so the token at place" not in text


def test_every_format_has_the_same_numbers(tmp_path: Path) -> None:
    c = with_where(tmp_path, located())
    assert f"{CLOSED}\n\n| place in 128 | tokens |" in markdown(c).replace("\\", "")
    assert "| high | 40.0% | 3.100 | 2.267 | -0.833 ± 0.379 | -0.3333 |" in markdown(c)
    assert f"% {CLOSED}\n\\begin{{tabular}}{{lrrrrr}}" in latex(c)
    assert r"high & 40.0\% & 3.100 & 2.267 & $-$0.833 $\pm$ 0.379 & $-$0.3333 \\" in latex(c)
    assert c.where is not None
    low, high = csv.DictReader(io.StringIO(where_csv(c.where)))
    assert (low["bin"], low["tokens"], low["contribution"]) == ("low", "60", "0.0")
    assert float(high["difference"]) == pytest.approx(-5 / 6)
    assert float(high["difference_low"]) == pytest.approx(-5 / 6 - 0.379, abs=1e-3)
    assert (high["configuration"], high["split"], high["seeds"]) == ("block_size 128", "place in 128", "3")


def test_the_page_shows_tables_and_plot(tmp_path: Path) -> None:
    c = with_where(tmp_path, located(), located(smaller=64))
    images = plots(c)
    assert images["where.png"] == plots(c)["where.png"]  # equal runs give equal bytes
    assert sorted(images) == ["ablation.png", "curves.png", "pareto.png", "where.png"]
    seen = Page(page(c, images))
    assert seen.tags.count("img") == 4
    text = " ".join(seen.text.split())
    assert f"Where the difference lies {CLOSED} place in 128" in text
    assert "-0.833 ± 0.379" in text


def test_a_changed_digit_in_these_tables_is_found(tmp_path: Path) -> None:
    html = page(with_where(tmp_path / "runs", located()), {})
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    assert sorted({run.label for run in read_report(file)}) == ["n_layer 2", "n_layer 4"]
    assert html.count("-0.833 ±") == 1
    file.write_text(html.replace("-0.833 ±", "-0.933 ±"), encoding="utf-8")
    with pytest.raises(PageChanged, match="section: Where the difference lies: was changed"):
        read_report(file)


def test_a_comparison_without_where_has_no_section_for_it(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0)
    make_run(tmp_path / "b", 1.9, model__n_layer=4)
    c = asked(tmp_path)
    for text in (text_of(c), markdown(c), latex(c), Page(page(c, {})).text):
        assert "contribution" not in text
