"""comparison.csv: every number of the table unrounded, for a spreadsheet or a script."""

from __future__ import annotations

import csv
import io
from typing import Any

from gptexp.report.comparison import Comparison
from gptexp.report.naming import differing
from gptexp.report.rows import Row
from gptexp.util.text import printable

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(c: Comparison) -> str:
    """One row a configuration; the differing settings come first, under their full names."""
    rows = [
        {_harmless(key): _harmless(value) for key, value in {**_settings(c, row), **_numbers(c, row)}.items()}
        for row in c.rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    """Text without control characters; what a spreadsheet would take for a formula gets an apostrophe."""
    if not isinstance(cell, str):
        return cell
    return f"'{printable(cell)}" if cell.startswith(FORMULA) else printable(cell)


def _settings(c: Comparison, row: Row) -> dict[str, Any]:
    return {key: row.settings.get(key) for key in dict.fromkeys([*c.keys, *differing([r.settings for r in c.rows])])}


def _numbers(c: Comparison, row: Row) -> dict[str, Any]:
    d = row.difference
    return {
        "configuration": row.label,
        "metric": c.metric,
        "seeds": len(row.readings),
        "seed_list": " ".join(str(reading.run.seed) for reading in row.readings),
        "seeds_missing": len(row.missing),
        "mean": row.interval.mean,
        "low": row.interval.low,
        "high": row.interval.high,
        "sd": row.interval.sd,
        "interval": c.question.method,
        "best": row.best,
        "baseline": row is c.baseline,
        "difference": d and d.mean,
        "difference_low": d and d.low,
        "difference_high": d and d.high,
        "test": d and d.test,
        "p": d and d.p,
        "p_holm": row.p,
        "parameters": row.parameters,
        "steps": row.mean("steps"),
        "tokens": row.mean("tokens"),
        "bytes": row.mean("nbytes"),
        "flops": row.mean("flops"),
        "flops_estimated": c.flops_estimated,
        "tokens_per_second": row.tokens_per_second,
        "seconds": row.mean("seconds"),
    }
