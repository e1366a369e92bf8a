"""The style of all plots: sizes for half a page, colours for colour-blind readers, markers for monochrome print."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from gptexp.util.text import printable

# Okabe and Ito (2008), without yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", "-.", ":")
DPI = 200
TRUETYPE = 42  # for matplotlib
SETTINGS: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "figure.facecolor": "white",
    "axes.unicode_minus": False,
    "pdf.fonttype": TRUETYPE,  # which journals require
    "svg.hashsalt": "gptexp",  # makes the ids in the file reproducible
}
CJK = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",  # the only one of Debian's collection that matplotlib lists; it has all characters
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "PingFang HK",
    "Hiragino Sans GB",
    "STHeiti",
    "Heiti TC",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Microsoft JhengHei",
    "SimHei",
    "SimSun",
    "Droid Sans Fallback",
)
# Names of the files of these fonts.
CJK_FILE = re.compile(
    r"cjk|noto.*(sc|tc)\b|sourcehan|wqy|pingfang|hiragino|heiti|msyh|msjh|sim(hei|sun)|droidsansf", re.I
)
MISSING = re.compile(r"Glyph (\d+) .*missing from font")
MOST_MISSING = 8  # characters named in a notice
FONT_REMEDY = "install Noto Sans CJK (Debian and Ubuntu: apt install fonts-noto-cjk) or another font that has them"


@dataclass(frozen=True)
class Look:
    """The colour, marker and line of a configuration in every plot."""

    colour: Any
    marker: str
    line: Any  # a line style of matplotlib


def looks(n: int, ordered: bool) -> list[Look]:
    """Return looks for n configurations. ordered: use shades from dark to light instead of distinct colours."""
    if ordered and n > 2:
        shades = mpl.colormaps["viridis"]
        colours: list[Any] = [shades(0.88 * index / (n - 1)) for index in range(n)]
    else:
        colours = [COLOURS[index % len(COLOURS)] for index in range(n)]
    lines = [LINES[0] if ordered else LINES[index // len(COLOURS) % len(LINES)] for index in range(n)]
    return [Look(colours[index], MARKERS[index % len(MARKERS)], lines[index]) for index in range(n)]


def fonts() -> list[str]:
    """Return the fonts to use: DejaVu Sans, then the installed fonts with Chinese characters."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return ["DejaVu Sans", *(_chinese_fonts() or (_find_new_fonts() and _chinese_fonts()) or [])]


def _chinese_fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    others = sorted(font for font in installed if "CJK" in font and "Sans" in font and font not in CJK)
    return [*(font for font in CJK if font in installed), *others]


@lru_cache(maxsize=1)
def _find_new_fonts() -> int:
    """Add the Chinese fonts that were installed after matplotlib made its list of fonts; return their number."""
    found = [path for path in font_manager.findSystemFonts() if CJK_FILE.search(Path(path).name)]
    for path in found:
        with suppress(OSError, RuntimeError):  # damaged
            font_manager.fontManager.addfont(path)
    return len(found)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style; one warning lists the characters that no installed font has."""
    with mpl.rc_context({**SETTINGS, "font.family": fonts()}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing: dict[str, None] = {}
    for warning in caught:
        if found := MISSING.match(str(warning.message)):
            missing[chr(int(found[1]))] = None
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        warnings.warn(_advice(list(missing)), stacklevel=1)


def _advice(missing: Sequence[str]) -> str:
    """The warning about missing characters, with the fonts to install."""
    named = " ".join(map(printable, missing[:MOST_MISSING])) + (" …" if len(missing) > MOST_MISSING else "")
    return f"plots show boxes for characters that no font here has: {named}; {FONT_REMEDY}"


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure of this size in inches, without the global state of pyplot, and its axes in reading order."""
    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots(rows, columns, squeeze=False)
    return fig, list(axes.flat)


def picture(fig: Figure, form: str = "png") -> bytes:
    """Return the figure as png, pdf or svg, without dates or program names, so that equal runs give equal bytes."""
    buffer = io.BytesIO()
    without: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
        "svg": {"Creator": None, "Date": None},
    }
    with mpl.rc_context({"pdf.fonttype": _pdf_fonttype(fig)} if form == "pdf" else {}):
        fig.savefig(buffer, format=form, dpi=DPI, metadata=without[form])
    fig.set_layout_engine("none")  # the other forms take this layout; computing it takes a quarter of the time
    return buffer.getvalue()


def _pdf_fonttype(fig: Figure) -> int:
    """The form of fonts in a PDF: Type 3 for Chinese in a PostScript font, which matplotlib would name TrueType."""
    texts: Any = fig.findobj(Text)
    chinese = fonts()[1:2] if any(symbol >= "\u2e80" for text in texts for symbol in text.get_text()) else []
    return 3 if any(_is_postscript(font_manager.findfont(name)) for name in chinese) else TRUETYPE


def _is_postscript(path: str) -> bool:
    with Path(path).open("rb") as file:
        head = file.read(16)
        if head[:4] == b"ttcf":  # a collection; the tag of its first font
            file.seek(int.from_bytes(head[12:16], "big"))
            head = file.read(4)
    return head[:4] == b"OTTO"


def literal(text: str) -> str:
    """Return text that matplotlib shows literally: without formulas, and without labels hidden by an underscore."""
    text = "\n".join(map(printable, text.split("\n"))).replace("$", r"\$")
    return f"\u2009{text}" if text.startswith("_") else text
