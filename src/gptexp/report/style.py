"""How the plots look: sizes for half a page, colours that the colour-blind tell apart, markers for print."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gptexp.words import plain

# Okabe and Ito (2008), without the yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", "-.", ":")
DPI = 200
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
}
CJK = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei", "SimHei")


@dataclass(frozen=True)
class Look:
    """One configuration's look in every plot."""

    colour: Any
    marker: str
    line: Any  # a line style of matplotlib's


def looks(n: int, ordered: bool) -> list[Look]:
    """Looks for n configurations; those of a numeric setting run from dark to light, so that order shows."""
    if ordered and n > 2:
        shades = mpl.colormaps["viridis"]
        colours: list[Any] = [shades(0.88 * index / (n - 1)) for index in range(n)]
    else:
        colours = [COLOURS[index % len(COLOURS)] for index in range(n)]
    lines = [LINES[0] if ordered else LINES[index // len(COLOURS) % len(LINES)] for index in range(n)]
    return [Look(colours[index], MARKERS[index % len(MARKERS)], lines[index]) for index in range(n)]


def fonts() -> list[str]:
    """Ours, and for characters that it lacks those that this machine has."""
    from matplotlib import font_manager

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(font for font in CJK if font in installed)]


@contextmanager
def styled() -> Iterator[None]:
    """Draw in our style; without the warnings about glyphs that no installed font has."""
    with mpl.rc_context({**SETTINGS, "font.family": fonts()}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """A figure of so many inches, apart from pyplot's global state, and its axes in reading order."""
    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots(rows, columns, squeeze=False)
    return fig, list(axes.flat)


def png(fig: Figure) -> bytes:
    """The picture; without metadata, so that the same runs give the same bytes."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def literal(text: str) -> str:
    """Text that matplotlib shows as it is: no formulas, and no labels hidden by a leading underscore."""
    text = "\n".join(map(plain, text.split("\n"))).replace("$", r"\$")
    return f"\u2009{text}" if text.startswith("_") else text
