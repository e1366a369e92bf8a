"""The plot of --where: the difference of the loss in each bin of validation tokens."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptexp.report.style import figure, literal, looks
from gptexp.report.where import Located, Where

AXES = ("place in the window", "frequency in the training text", "longest repetition in the window")


def where_figure(where: Where) -> Figure:
    """Draw a panel for each split: the difference of each configuration to the baseline by bin, with its interval."""
    fig, axes = figure(12, 4.7 + 0.15 * len(where.located), 1, len(where.located[0].splits))
    for nth, (ax, name) in enumerate(zip(axes, AXES, strict=False)):
        _draw(ax, where.located, nth)
        ax.set_xlabel(name)
    axes[0].set_ylabel("difference of the loss (nats per token)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def _draw(ax: Axes, located: Sequence[Located], nth: int) -> None:
    splits = [list(one.splits.values())[nth] for one in located]
    labels = list(dict.fromkeys(part.label for bins in sorted(splits, key=len, reverse=True) for part in bins))
    for index, (one, bins, look) in enumerate(zip(located, splits, looks(len(located), ordered=False), strict=True)):
        x, shift = [labels.index(part.label) for part in bins], 0.1 * (index - (len(located) - 1) / 2)
        found = [part.difference for part in bins]
        halves = [0.0 if d.low is None or d.high is None else (d.high - d.low) / 2 for d in found]
        ax.errorbar(
            [at + shift for at in x], [d.mean for d in found], halves, fmt=look.marker, linestyle=look.line,
            color=look.colour, capsize=4, elinewidth=1.4,
            label=literal(fill(f"{one.label} against {one.baseline}", 60)),
        )  # fmt: skip
    ax.axhline(0, color="#888888", linewidth=1.2, linestyle="--", zorder=1)
    ax.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
