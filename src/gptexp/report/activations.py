"""The coordinate check: the size of activations by width, over the first steps (arXiv 2203.03466, appendix D.1).

With muP, sizes do not grow with the width at any step.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gptexp.config.fingerprint import settings_that_matter
from gptexp.config.training import ACTIVATIONS
from gptexp.report import naming
from gptexp.report.comparable import NotComparable
from gptexp.report.curves import Floats
from gptexp.report.reading import EFFECTIVE_LR, LeftOut, Run, find_runs, read_runs
from gptexp.report.style import figure, literal, looks, picture, styled
from gptexp.report.table import print_left_out
from gptexp.runs.layout import METRICS
from gptexp.util.files import read_rows

WIDTH = "model.n_embd"
WITH_WIDTH = (WIDTH, "model.n_head", "model.n_kv_head", EFFECTIVE_LR)  # settings that may vary with the width
MOST_STEPS = 5  # lines in a panel
REMEDY = "train with callbacks.activations=true and several widths, such as gptexp train -m sweep=coordinate_check"


@dataclass(frozen=True)
class Sizes:
    """Runs that differ only in width and seed.

    values: by the names in ACTIVATIONS, (widths, steps), the geometric mean over seeds.
    """

    label: str
    widths: list[int]
    steps: list[int]
    values: dict[str, Floats]

    def growth(self, name: str) -> float:
        """Return the power of the width with which a size grows at the last step, by least squares of logarithms."""
        return float(np.polyfit(np.log(self.widths), np.log(self.values[name][:, -1]), 1)[0])


def sizes_of(folders: Iterable[Path]) -> tuple[list[Sizes], list[LeftOut]]:
    """Return the sizes in the runs of these folders, and the runs that are excluded, with the reason.

    Raises:
        NotComparable: no runs of several widths that logged activations.
    """
    runs, left_out = read_runs(find_runs(folders))
    logged = {id(run): _logged(run) for run in runs}
    left_out += [LeftOut(run.folder, "it logged no activations", run.settings) for run in runs if not logged[id(run)]]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if logged[id(run)]:
            groups.setdefault(str(_fixed(run)), []).append(run)
    several = [group for group in groups.values() if len({run.settings[WIDTH] for run in group}) > 1]
    if not several:
        raise NotComparable(f"no two runs with activations that differ in {WIDTH}; {REMEDY}")
    fixed = [_fixed(group[0]) for group in several]
    keys = naming.differing(fixed)
    return [
        _sizes(naming.label(settings, keys), [(int(run.settings[WIDTH]), logged[id(run)]) for run in group])
        for settings, group in zip(fixed, several, strict=True)
    ], left_out


def _fixed(run: Run) -> dict[str, object]:
    return {key: value for key, value in settings_that_matter(run.settings).items() if key not in WITH_WIDTH}


def _logged(run: Run) -> dict[int, list[float]]:
    """Return the sizes at each step, in the order of ACTIVATIONS; steps at which one is not above 0 are omitted."""
    found = {}
    for row in read_rows(run.folder / METRICS):
        values = [float(row.get(name) or "nan") for name in ACTIVATIONS]
        if all(0 < value < math.inf for value in values):
            found[int(row["step"])] = values
    return found


def _sizes(label: str, runs: Sequence[tuple[int, dict[int, list[float]]]]) -> Sizes:
    widths = sorted({width for width, _ in runs})
    steps = sorted(set.intersection(*(set(logged) for _, logged in runs)))
    means = [
        np.mean([[np.log(logged[step]) for step in steps] for at, logged in runs if at == width], axis=0)
        for width in widths
    ]  # (steps, names) of each width
    table = np.exp(np.stack(means))  # (widths, steps, names)
    return Sizes(label, widths, steps, {name: table[:, :, i] for i, name in enumerate(ACTIVATIONS)})


def print_sizes(console: Console, found: Sequence[Sizes], left_out: Sequence[LeftOut]) -> None:
    """Print the power of the width with which each size grows at the last step."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    for name in ("size ~ n_embd^p, p at step", *map(_short, ACTIVATIONS)):
        table.add_column(name, justify="left" if name.startswith("size") else "right")
    for sizes in found:
        label = f"{sizes.label or 'all'}, {sizes.steps[-1]}"
        table.add_row(label, *(f"{sizes.growth(name):+.2f}" for name in ACTIVATIONS))
    console.print(table)
    console.print(Text(f"\nwidths {', '.join(map(str, found[0].widths))}; 0: the size does not depend on the width"))
    print_left_out(console, left_out)


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def sizes_csv(found: Sequence[Sizes]) -> str:
    """Return all sizes as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["configuration", "n_embd", "step", *ACTIVATIONS])
    for sizes in found:
        for i, width in enumerate(sizes.widths):
            for j, step in enumerate(sizes.steps):
                rows.writerow([sizes.label, width, step, *(sizes.values[name][i, j] for name in ACTIVATIONS)])
    return text.getvalue()


def sizes_plots(found: Sequence[Sizes], forms: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """Return the files by name: a row of panels for each configuration, a line for each of up to MOST_STEPS steps."""
    columns = len(ACTIVATIONS)
    with styled():
        fig, axes = figure(13, 0.6 + 2.7 * len(found), len(found), columns)
        for index, ax in enumerate(axes):
            sizes, name = found[index // columns], ACTIVATIONS[index % columns]
            first = axes[index % columns]
            if ax is not first:
                ax.sharey(first)
            _panel(ax, sizes, name)
            ax.set_title(literal(_short(name)) if index < columns else "")
            if index % columns == 0:
                ax.set_ylabel(literal("\n".join(part for part in (sizes.label, "root mean square") if part)))
            if index >= columns * (len(found) - 1):
                ax.set_xlabel("n_embd")
        handles, names = axes[0].get_legend_handles_labels()
        fig.legend(handles, names, loc="outside lower center", ncols=len(names))
        return {f"activations.{form}": picture(fig, form) for form in forms}


def _panel(ax: Axes, sizes: Sizes, name: str) -> None:
    shown = np.unique(np.linspace(0, len(sizes.steps) - 1, MOST_STEPS).round().astype(int))
    for at, look in zip(shown, looks(len(shown), True), strict=True):
        step = f"step {sizes.steps[at]}"
        ax.plot(
            sizes.widths,
            sizes.values[name][:, at],
            color=look.colour,
            marker=look.marker,
            label=step,
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(FixedLocator([float(width) for width in sizes.widths]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([str(width) for width in sizes.widths])
