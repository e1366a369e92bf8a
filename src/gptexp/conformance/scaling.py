"""Chinchilla: the best size for a budget, from the published constants of L(N, D) = E + A/N^alpha + B/D^beta."""

from __future__ import annotations

import math
from collections.abc import Callable

from gptexp.conformance.check import Area, Check, Inputs, Need

ROUNDED = (1.69, 406.4, 410.7, 0.34, 0.28)  # E, A, B, alpha, beta as arXiv 2203.15556 prints them (equation 10)
UNROUNDED = (1.6934, 406.4, 410.7, 0.3392, 0.2849)  # the same with the digits of the paper's TeX source
REFIT = (1.8172, 482.01, 2085.43, 0.3478, 0.3658)  # arXiv 2404.10102, on data read off the paper's figure
GOPHER = 5.76e23  # FLOPs that Gopher and Chinchilla were trained with

NOTEBOOK = "nanoGPT, scaling_laws.ipynb (on a grid)"
PAPER = "Chinchilla, arXiv 2203.15556, section 3.3 (approach 3)"
EPOCH = "arXiv 2404.10102; Chinchilla was trained so"


def optimum(
    constants: tuple[float, ...], flops: float, pick: Callable[[float, float], float]
) -> Callable[[Inputs], float]:
    """Computes something of the best N and D for a budget, by report/scaling.py's closed form."""

    def compute(_: Inputs) -> float:
        from gptexp.report.scaling import Constants

        return pick(*Constants(*constants).optimum(flops))

    return compute


def exponent(_: Inputs) -> float:
    """a of N = G C^a, from the best sizes of two budgets."""
    from gptexp.report.scaling import Constants

    best = Constants(*UNROUNDED).optimum
    return math.log10(best(10 * GOPHER)[0] / best(GOPHER)[0])


def loss_at_optimum(_: Inputs) -> float:
    """The law's loss at the best N and D of the notebook's budget."""
    from gptexp.report.scaling import Constants

    law = Constants(*ROUNDED)
    return float(law.loss(*law.optimum(NOTEBOOK_BUDGET)))


NOTEBOOK_BUDGET = 3.459892e19


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
    note="N parameters and D tokens with the lowest loss where 6 N D is the budget in FLOPs; 5.76e23 is Gopher's and "
    "Chinchilla's. Tolerances are half the last digit, or half a step of the grid that the source searched. The "
    "paper's approaches 1 and 2 give 67 and 63 billion parameters for it, approach 3 gives 40, and with the exponents "
    "as printed, to two digits, 32. The refit's exponents are uncertain by 0.02, and 20 tokens a parameter is a rule "
    "of thumb: those tolerances are wide.",
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
        _check("the refit: tokens a parameter", 20, 2, EPOCH, optimum(REFIT, GOPHER, lambda n, d: d / n)),
    ),
)
