"""Chinchilla: the best size for a budget, from published constants of L(N, D) = E + A/N^alpha + B/D^beta."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from gptexp.conformance.check import Area, Check, Inputs, Need

if TYPE_CHECKING:
    from gptexp.report.scaling import Constants

ROUNDED = (1.69, 406.4, 410.7, 0.34, 0.28)  # E, A, B, alpha, beta as arXiv 2203.15556 prints them (equation 10)
UNROUNDED = (1.6934, 406.4, 410.7, 0.3392, 0.2849)  # the same, with the digits in the TeX source of the paper
REFIT = (1.8172, 482.01, 2085.43, 0.3478, 0.3658)  # arXiv 2404.10102, on data read from a figure of the paper
GOPHER = 5.76e23  # training FLOPs of Gopher and Chinchilla

NOTEBOOK = "nanoGPT, scaling_laws.ipynb (on a grid)"
PAPER = "Chinchilla, arXiv 2203.15556, section 3.3 (approach 3)"
EPOCH = "arXiv 2404.10102; Chinchilla was trained so"


NOTEBOOK_BUDGET = 3.459892e19  # FLOPs


def constants(values: tuple[float, ...]) -> Constants:
    """Return the law of these constants. It is imported here, because it needs scipy, which may be missing."""
    from gptexp.report.scaling import Constants

    return Constants(*values)


def optimum(
    values: tuple[float, ...], flops: float, pick: Callable[[float, float], float]
) -> Callable[[Inputs], float]:
    """Return a function that picks a number from the best N and D for a budget."""
    return lambda _: pick(*constants(values).optimum(flops))


def exponent(_: Inputs) -> float:
    """Return a in N = G C^a, from the best sizes of two budgets."""
    best = constants(UNROUNDED).optimum
    return math.log10(best(10 * GOPHER)[0] / best(GOPHER)[0])


def loss_at_optimum(_: Inputs) -> float:
    """Return the predicted loss at the best N and D of the notebook's budget."""
    law = constants(ROUNDED)
    return float(law.loss(*law.optimum(NOTEBOOK_BUDGET)))


def _check(name: str, published: float, tolerance: float, source: str, compute: Callable[[Inputs], float]) -> Check:
    return Check(
        name=name,
        published=published,
        tolerance=tolerance,
        source=source,
        compute=compute,
        needs=frozenset({Need.scipy}),
    )


AREA = Area(
    title="Compute-optimal sizes",
    note="N parameters and D tokens with the lowest loss where 6 N D is the budget in FLOPs; 5.76e23 is the one of "
    "Gopher and Chinchilla. Tolerances are half of the last digit, or half of a step of the source's grid. The "
    "paper's approaches 1 and 2 give 67 and 63 billion parameters for it, and approach 3 gives 40, or 32 with the "
    "exponents rounded to two digits. The exponents of the refit are uncertain by 0.02, and 20 tokens per parameter is "
    "a rule of thumb, so these tolerances are wide.",
    checks=(
        _check(
            "best size for 3.46e19 FLOPs, millions",
            399.54,
            399.54 * 0.0045,
            NOTEBOOK,
            optimum(ROUNDED, NOTEBOOK_BUDGET, lambda n, d: n / 1e6),
        ),
        _check(
            "tokens for it, billions",
            14.43,
            14.43 * 0.0045,
            NOTEBOOK,
            optimum(ROUNDED, NOTEBOOK_BUDGET, lambda n, d: d / 1e9),
        ),
        _check("loss there, nats", 2.76, 0.005, NOTEBOOK, loss_at_optimum),
        _check(
            "best size for 5.76e23, billions",
            40,
            0.5,
            PAPER,
            optimum(UNROUNDED, GOPHER, lambda n, d: n / 1e9),
        ),
        _check("exponent of the best size", 0.46, 0.005, f"{PAPER.partition(',')[0]}, table 2", exponent),
        _check(
            "the same by the refit, billions",
            70,
            5,
            EPOCH,
            optimum(REFIT, GOPHER, lambda n, d: n / 1e9),
        ),
        _check("the refit: tokens per parameter", 20, 2, EPOCH, optimum(REFIT, GOPHER, lambda n, d: d / n)),
    ),
)
