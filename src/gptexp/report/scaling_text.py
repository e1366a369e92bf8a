"""A scaling law on a terminal, and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gptexp.report.scaling import PAIRS_FROM, Law
from gptexp.report.table import print_left_out
from gptexp.util.text import quantity


def to_json(law: Law, budget: float | None) -> str:
    """Constants, intervals and the optimum, as strict JSON."""
    flops = budget or law.largest
    n, d = law.constants.optimum(flops)
    spans = law.optimum_spans(flops)
    value = {
        "metric": law.metric,
        "form": "L(N, D) = E + A / N^alpha + B / D^beta",
        "points": law.n.size,
        "group": law.group or None,
        "resampled": law.resampled,
        "constants": asdict(law.constants),
        "intervals": law.intervals,
        "optimum": {
            "flops": flops,
            "parameters": n,
            "tokens": d,
            "intervals": {"parameters": _finite(spans[0]), "tokens": _finite(spans[1])},
        },
    }
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _finite(span: tuple[float, float]) -> list[float | None]:
    return [bound if math.isfinite(bound) else None for bound in span]


def print_law(console: Console, law: Law, budget: float | None) -> None:
    """The constants with their intervals, and the best size for a budget (default: the largest run's compute)."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("constant")
    table.add_column("fit", justify="right")
    table.add_column("95% interval", justify="right")
    for name, value in asdict(law.constants).items():
        low, high = law.intervals[name]
        table.add_row(name, f"{value:.4g}", f"{low:.4g} … {high:.4g}")
    lines = [
        f"{law.metric} = E + A / N^alpha + B / D^beta · {law.n.size} runs · {quantity(law.n.min())} to "
        f"{quantity(law.n.max())} parameters · {quantity(law.d.min())} to {quantity(law.d.max())} tokens",
        "",
    ]
    for line in lines:
        console.print(Text(line))
    console.print(table)
    console.print()
    group = [law.group] if law.group else []
    for line in [
        *_optimum_lines(law, budget or law.largest),
        *_unsettled_lines(law),
        *group,
        RESAMPLED[law.resampled],
        *NOTES,
    ]:
        console.print(Text(line))
    print_left_out(console, law.left_out)


VAGUE = 10.0  # an interval whose ends differ by more than this factor settles nothing


def _unsettled_lines(law: Law) -> list[str]:
    names = [name for name, (low, high) in law.intervals.items() if high > VAGUE * low]
    if not names:
        return []
    return [f"not settled by these runs: {', '.join(names)}; it takes more sizes, or sizes and lengths further apart"]


RESAMPLED = {
    "pairs": f"intervals: whole runs resampled, as for any ladder of {PAIRS_FROM} runs or more; they hold where the "
    "noise differs between sizes",
    "residuals": f"intervals: residuals resampled, as for any ladder of fewer than {PAIRS_FROM} runs; too narrow where "
    "the noise differs between sizes",
}
NOTES = (
    "C = 6 N D; N counts all parameters, D counts repeated tokens again",
    "a law holds for what was held fixed: the text, the tokenizer, the schedule, the learning rate's rule",
)


def _optimum_lines(law: Law, flops: float) -> list[str]:
    n, d = law.constants.optimum(flops)
    (n_low, n_high), (d_low, d_high) = law.optimum_spans(flops)
    lines = [
        f"best for {flops:.2g} FLOPs: {quantity(n)} parameters ({quantity(n_low)} to {quantity(n_high)}), "
        f"{quantity(d)} tokens ({quantity(d_low)} to {quantity(d_high)}), {law.metric} {law.constants.loss(n, d):.3f}"
    ]
    beyond = flops / law.largest
    if beyond > 2:
        lines.append(f"that is {beyond:.3g} times the compute of the largest run: an extrapolation")
    return lines
