"""The plots: sizes, fonts, legends, and any setting as text."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")


from gptexp.report import style
from gptexp.report.comparison import Question, compare_folders
from gptexp.report.plots import MOST_CURVES, ablation, curves, pareto, plots
from gptexp.report.style import fonts, literal
from support.pages import Page, made_page, sweep
from support.run_folders import make_run
from support.runs import command


def test_plots_have_print_resolution(tmp_path: Path) -> None:
    images = plots(compare_folders([sweep(tmp_path)], Question()))
    sizes = {name: struct.unpack(">II", data[16:24]) for name, data in images.items() if data[:4] == b"\x89PNG"}
    assert sizes == {"curves.png": (2000, 1480), "ablation.png": (1280, 880), "pareto.png": (1280, 960)}


TEXTS = ["$x_1$", "$\\bad{$", "_hidden", "50%", "\\frac", "日本語", "{}", "a" * 300, "new\nline", "", "$other$"]


def test_plots_show_any_setting_as_text(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """In one comparison, because drawing takes a second; no more curves are drawn in one plot."""
    for number, text in enumerate(TEXTS):
        make_run(tmp_path / f"{number}", 2.0, data__path=text)
    assert len(TEXTS) <= MOST_CURVES
    assert len(plots(compare_folders([tmp_path], Question()))) == 3
    warned = [str(warning.message) for warning in recwarn if warning.category is UserWarning]
    warned = [text for text in warned if "onstrained" not in text]
    assert all(text.startswith("plots show boxes for characters that no font here has: 日") for text in warned)
    assert len(warned) <= 1


def test_every_form_of_a_plot_has_the_same_layout(tmp_path: Path) -> None:
    figure = pareto(compare_folders([sweep(tmp_path)], Question()))
    places = []
    for form in ("png", "svg"):
        assert len(style.picture(figure, form)) > 1000
        places.append(figure.axes[0].get_position().bounds)
    assert places[0] == places[1]
    assert figure.legends[0].get_window_extent().y1 < figure.axes[0].get_window_extent().y0


def test_missing_characters_give_one_notice_that_names_a_font(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 2.0, data__path="𒀀.txt")  # cuneiform
    make_run(tmp_path / "b", 2.0, data__path="b.txt")
    done = command("compare", ".", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("notice: plots show boxes for characters that no font here has: 𒀀; install")
    assert "(Debian and Ubuntu: apt install fonts-noto-cjk) or another font that has them\n" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_installed_chinese_font_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans", "Noto Sans CJK JP", "Other Sans CJK"])
    assert fonts() == ["DejaVu Sans", "Noto Sans CJK JP", "Other Sans CJK"]


def test_a_font_that_was_installed_since_matplotlib_listed_them_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from matplotlib import font_manager

    known, files = ["DejaVu Sans"], [str(tmp_path / "NotoSansCJK-Regular.ttc"), str(tmp_path / "Other.ttf")]
    monkeypatch.setattr(font_manager, "get_font_names", lambda: known)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
    monkeypatch.setattr(font_manager.fontManager, "addfont", lambda path: known.append("Noto Sans CJK JP"))
    style._find_new_fonts.cache_clear()
    assert fonts() == ["DejaVu Sans", "Noto Sans CJK JP"]
    assert known == ["DejaVu Sans", "Noto Sans CJK JP"]  # the other file was not opened
    style._find_new_fonts.cache_clear()


@pytest.mark.parametrize(
    ("title", "tag", "fonttype"), [("中文", b"OTTO", 3), ("中文", b"\0\1\0\0", 42), ("text", b"OTTO", 42)]
)
def test_a_pdf_declares_no_postscript_font_as_truetype(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, title: str, tag: bytes, fonttype: int
) -> None:
    from matplotlib import font_manager

    (tmp_path / "a.ttc").write_bytes(b"ttcf" + bytes(8) + (16).to_bytes(4, "big") + tag)
    with style.styled():
        fig, (ax,) = style.figure(2, 2)
        ax.set_title(title)
        monkeypatch.setattr(style, "fonts", lambda: ["DejaVu Sans", "Chinese"])
        monkeypatch.setattr(font_manager, "findfont", lambda name: str(tmp_path / "a.ttc"))
        assert style._pdf_fonttype(fig) == fonttype


def test_chinese_text_is_shown_and_invisible_characters_are_escaped(tmp_path: Path) -> None:
    make_run(
        tmp_path / "a", 2.0, sample="\u3000\u3000話說天下\u00a0大勢\u202e\u200b\x1b[2J", data__path="\u3000三國.txt"
    )
    make_run(tmp_path / "b", 2.0, data__path="b.txt")
    text = Page(made_page(tmp_path)).text
    assert "\u3000\u3000話說天下\u00a0大勢\\u202e\\u200b\\x1b[2J" in text
    assert literal("\u3000三國") == "\u3000三國"


def test_a_legend_shows_long_names_completely_inside_the_picture(tmp_path: Path) -> None:
    for n in range(4):
        which: dict[str, Any] = {"model__n_layer": 2 + n % 2, "model__position": ["learned", "rope"][n // 2]}
        make_run(tmp_path / f"{n}", 2.0 + n / 100, data__path="long/path/of/a/corpus/" * 3 + str(n), **which)
    c = compare_folders([tmp_path], Question(by=["data.path"]))
    for draw in (curves, ablation, pareto):
        figure = draw(c)
        figure.canvas.draw()
        for legend in figure.legends:
            box, whole = legend.get_window_extent(), figure.bbox
            assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
            assert box.y0 >= whole.y0
            assert all("…" not in text.get_text() for text in legend.get_texts())


@pytest.mark.parametrize("configurations", [1, 2, 30])
def test_plots_are_drawn_for_one_configuration_and_for_many(tmp_path: Path, configurations: int) -> None:
    for n in range(1, configurations + 1):
        make_run(tmp_path / f"{n}", 2.0 + n / 100, model__n_layer=n, model__position=["rope", "alibi"][n % 2])
    make_run(tmp_path / "diverged", None, model__n_layer=99)
    make_run(tmp_path / "flat", 2.0, model__n_layer=98)
    (tmp_path / "flat/metrics.csv").unlink()
    assert len(plots(compare_folders([tmp_path], Question()))) == 3
