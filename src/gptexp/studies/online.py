"""The error over all ideas of a line: at which level idea number t may be kept. Only the standard library.

Notation. A line has bases. Base b is judged on seeds that no other base has, and H is everything known before its first
run. `kept` is the number of ideas that were kept before H. Over fresh noise, a useless idea is kept with a probability
of at most its level (`gptexp.studies.sequential`).

fdr: e-LOND (Xu and Ramdas 2024, arXiv 2311.06412, after Javanmard and Montanari 2018). The level is
alpha·gamma(t)·(kept + 1), where gamma sums to 1. A false keep at t adds at most 1/(kept + 1) to the share of useless
ideas among those kept, so the expected share is at most the sum of alpha·gamma(t), which is alpha. This sum needs no
independence: ideas that share base runs may depend on each other in any way.

fwer: level = alpha/ideas for at most `ideas` ideas (Bonferroni). The probabilities of false keeps sum to alpha.

Proposals may depend on all earlier results. While the base stays, this needs no further assumption: all useless ideas
have the same noise, so "idea t is useless and kept" implies "a useless idea with the noise of t would be kept".

Replaced bases. The sums run over pairs of t and the base in use at t, so they also need
P(idea t is kept, base b is in use at t | H) <= level·P(base b is in use at t | H) for a useless idea. This holds if

- a score is a level plus an effect of the seed plus noise of the run, and the noise of all runs is independent,
- a base is replaced when an idea is kept,
- given H, how useful the next ideas are does not depend on the luck of base b's runs.

A larger gain never turns a keep into another verdict, so being kept is an increasing function of the gains, and "no
idea before t was kept" a decreasing one. A lucky base lowers the gains of all its ideas, and increasing functions of
independent variables are positively correlated (Harris 1960; Esary, Proschan and Walkup 1967). Without the third
assumption, that is, if someone kept a base in use because its runs were bad by chance, the error is at most alpha times
the number of bases. The kept idea's own runs are selected, so they never become base runs: a new base has new seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

FDR, FWER = "fdr", "fwer"
EVEN = 0.8  # share of gamma that is spread evenly over the first ideas; the rest decays, so a line never ends


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What is fixed for all ideas of a line, because choosing it by results would make the errors larger.

    control: the error that is at most alpha. ideas: how many are planned for. most: pairs of seeds for one idea.
    margin: smallest improvement of interest, in units of the metric.
    """

    control: str = FDR
    alpha: float = 0.05
    ideas: int = 200
    most: int = 32
    margin: float = 0.0

    def level(self, t: int, kept: int) -> float:
        """Return the level of idea number t, from 1, if `kept` ideas were kept before the base's first run.

        It is 0 if no further idea may be judged.
        """
        if self.control == FWER:
            return self.alpha / self.ideas if t <= self.ideas else 0.0
        return min(0.5, self.alpha * self.gamma(t) * (kept + 1))

    def gamma(self, t: int) -> float:
        """Return the share of alpha that idea number t has; the shares of all t sum to 1."""
        return EVEN / self.ideas if t <= self.ideas else (1 - EVEN) * self.ideas / (t * (t - 1))
