"""Measure how long a resumed run takes to find the windows of step 1,000,000, for corpora of different sizes.

    python benchmarks/find_place.py

Prints the median time of a first call, without cached results, and its peak memory.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc

from rich.console import Console
from rich.table import Table

from gptexp.data import order

STEP, WINDOWS, BLOCK_SIZE, REPEATS = 1_000_000, 512, 1024, 20


def main() -> None:
    """Print the table: tokens of the corpus, epochs, milliseconds, kibibytes."""
    table = Table("tokens", "epochs before the step", "ms, median", "ms, worst", "KiB")
    for tokens in (10**6, 10**9, 10**12):
        seconds, peak = measure(tokens)
        epochs = STEP * WINDOWS * BLOCK_SIZE / tokens
        row = [f"{tokens:,}", f"{epochs:,.1f}", f"{1e3 * statistics.median(seconds):.2f}", f"{1e3 * max(seconds):.2f}"]
        table.add_row(*row, f"{peak / 1024:,.0f}")
    Console().print(f"windows of step {STEP:,}: {WINDOWS} windows of {BLOCK_SIZE} tokens", table)


def measure(tokens: int) -> tuple[list[float], int]:
    """Return the seconds of each repeat and the peak memory in bytes for finding the windows of the step."""
    seconds = []
    for seed in range(REPEATS):
        order._draws.cache_clear()
        begin = time.perf_counter()
        order.WindowOrder(tokens, BLOCK_SIZE, seed).starts(STEP * WINDOWS, WINDOWS)
        seconds.append(time.perf_counter() - begin)
    order._draws.cache_clear()
    tracemalloc.start()
    order.WindowOrder(tokens, BLOCK_SIZE, 0).starts(STEP * WINDOWS, WINDOWS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


if __name__ == "__main__":
    main()
