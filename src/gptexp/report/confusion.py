"""Draws a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from gptexp.report.style import figure, literal, styled

MOST_NUMBERS = 15  # with more labels, cells show no numbers


def confusion_figure(confusion: np.ndarray, labels: Sequence[str]) -> Figure:
    """Draw a matrix (K, K) of texts by label (rows) and predicted label (columns); colours are shares of a row."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = max(4.0, 1.6 + 0.45 * len(labels))
    names = [literal(label[:20]) for label in labels]
    with styled():
        fig, (ax,) = figure(size + 0.8, size)
        image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ax.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 4 else 0)
        ax.set_yticks(range(len(names)), names)
        ax.set(xlabel="found", ylabel="label")
        ax.grid(visible=False)
        if len(labels) <= MOST_NUMBERS:
            for (row, column), share in np.ndenumerate(shares):
                colour = "white" if share > 0.6 else "black"
                ax.text(column, row, f"{int(confusion[row, column]):,}", ha="center", va="center", color=colour)
        fig.colorbar(image, ax=ax, label="share of the label's texts")
        return fig
