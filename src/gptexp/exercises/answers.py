"""The true answer of each exercise, computed, and typical wrong functions; texts.toml has the hints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import pairwise

import regex
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from gptexp.config.model import GPTConfig, MLPConfig, Position
from gptexp.models.attention import CausalSelfAttention
from gptexp.models.flops import count_parameters
from gptexp.models.gpt import GPT, Block
from gptexp.models.mlp import MLP
from gptexp.report.statistics import holm, interval
from gptexp.tokenizers.byte_pair import GPT2_SPLIT


@dataclass(frozen=True)
class Exercise:
    """truth: returns the answer, or with `inputs` is the function that the learner writes.

    mistakes: typical wrong functions by the name of their hint. inputs: the arguments of each call.
    """

    truth: Callable[..., object]
    mistakes: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    inputs: Sequence[tuple[object, ...]] = ()


def conditional_entropy(text: str) -> float:
    """Return the lowest loss of a bigram model on a text, in nats per pair."""
    pairs, firsts = Counter(pairwise(text)), Counter(text[:-1])
    return sum(n * math.log(firsts[first] / n) for (first, _), n in pairs.items()) / pairs.total()


def attend(q: Tensor, k: Tensor, v: Tensor, diagonal: int = 0, dim: int = -1) -> Tensor:
    """Attention of one head (T, D) in which position t sees the positions up to t + diagonal."""
    scores: Tensor = q @ k.T / math.sqrt(q.shape[1])
    return scores.masked_fill(~torch.ones_like(scores).tril(diagonal).bool(), -math.inf).softmax(dim) @ v


def sees_order(n_layer: int) -> bool:
    """Return whether a GPT without positions predicts something else after its earlier tokens were shuffled."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = GPT(GPTConfig(n_layer=n_layer, n_embd=24, position=Position.none), vocab_size=9).double().eval()
        here, shuffled = (model(torch.tensor([tokens]))[0, -1] for tokens in ((1, 2, 3, 4, 8), (3, 1, 4, 2, 8)))
    return not torch.allclose(here, shuffled)


@cache
def gpt2_parameters(V: int, T: int, C: int, L: int) -> int:
    """Return the number of parameters of a GPT-2 with V tokens, T positions, C channels and L blocks."""
    with torch.device("meta"):
        return count_parameters(GPT(GPTConfig(block_size=T, n_embd=C, n_layer=L), V))


def merge_once(tokens: list[str], skip: int = 2, most: int = 10**6) -> list[str]:
    """Return the tokens after one BPE merge. skip: tokens that a merge passes. most: the number of merged places."""
    counts, merged, i = Counter(pairwise(tokens)), list[str](), 0
    best = max(counts, key=lambda pair: counts[pair])
    while i < len(tokens):
        joins = tuple(tokens[i : i + 2]) == best and most > 0
        merged.append("".join(best) if joins else tokens[i])
        i, most = i + (skip if joins else 1), most - joins
    return merged


def nucleus(p: Tensor, limit: float, short: bool = False) -> Tensor:
    """Top-p before scaling. short: without the token that reaches the limit, which is a mistake."""
    likeliest, order = p.sort(descending=True)
    return p.masked_fill((likeliest.cumsum(0) - (not short) * likeliest >= limit)[order.argsort()], 0.0)


EXERCISES = {
    "01.1": Exercise(lambda: 2 / (2 * 2.0**2)),
    "01.2": Exercise(lambda: count_parameters(MLP(MLPConfig(n_context=16, n_embd=16, n_hidden=128), vocab_size=96))),
    "01.3": Exercise(
        lambda z: z.softmax(dim=1),
        {
            "overflow": lambda z: z.exp() / z.exp().sum(dim=1, keepdim=True),
            "columns": lambda z: z.softmax(dim=0),
            "logarithm": lambda z: z.log_softmax(dim=1),
        },
        [([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]],), ([[1000.0, 999.0, 0.0]],)],
    ),
    "02.1": Exercise(lambda: conditional_entropy("abababac")),
    "02.2": Exercise(
        lambda counts, k: (counts + k) / (counts + k).sum(dim=1, keepdim=True),
        {
            "add_one": lambda counts, k: (counts + k) / (counts.sum(dim=1, keepdim=True) + len(counts)),
            "once": lambda counts, k: (counts + k) / (counts.sum(dim=1, keepdim=True) + k),
            "columns": lambda counts, k: (counts + k) / (counts + k).sum(dim=0, keepdim=True),
            "keepdim": lambda counts, k: (counts + k) / (counts + k).sum(dim=1),
        },
        [([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 2.0, 6.0]], k) for k in (1.0, 0.1)],
    ),
    "02.3": Exercise(lambda: 96**4),
    "03.1": Exercise(lambda: 4 / (4 + 1 + 1)),
    "03.2": Exercise(
        partial(F.scaled_dot_product_attention, is_causal=True),
        {
            "no_mask": F.scaled_dot_product_attention,
            "no_scale": partial(F.scaled_dot_product_attention, is_causal=True, scale=1.0),
            "itself": partial(attend, diagonal=-1),
            "columns": partial(attend, dim=0),
            "late": lambda q, k, v: (q @ k.T / q.shape[1] ** 0.5).softmax(-1).tril() @ v,
        },
        [([[1.0, 0.5], [-1.0, 2.0], [0.0, 1.5]], [[0.5, 1.0], [1.0, -1.0], [2.0, 0.5]], [[1.0], [2.0], [4.0]])],
    ),
    "03.3": Exercise(
        lambda: [count_parameters(CausalSelfAttention(GPTConfig(n_head=n, n_embd=64, bias=False), 0)) for n in (1, 16)]
    ),
    "04.1": Exercise(
        lambda x, gain: F.rms_norm(x, gain.shape, gain, eps=1e-5),
        {
            "mean": lambda x, gain: F.layer_norm(x, gain.shape, gain),
            "sum": lambda x, gain: gain * F.normalize(x, dim=-1),
            "root": lambda x, gain: gain * x / (x.square().mean(-1, keepdim=True) + 1e-5),
            "positions": lambda x, gain: gain * x / (x.square().mean() + 1e-5).sqrt(),
            "gain": lambda x, gain: F.rms_norm(x, gain.shape, eps=1e-5),
        },
        [([[[1.0, -2.0, 4.0], [3.0, 3.0, 9.0]]], [1.0, 0.5, 2.0])],
    ),
    "04.2": Exercise(lambda: count_parameters(Block(GPTConfig(n_embd=128, n_head=4, mlp_ratio=0), layer=0))),
    "04.3": Exercise(lambda: [sees_order(1), sees_order(2)]),
    "05.1": Exercise(
        merge_once,
        {
            "twice": partial(merge_once, skip=1),
            "first": partial(merge_once, most=1),
            "pair": lambda tokens: "".join(Counter(pairwise(tokens)).most_common(1)[0][0]),
        },
        [(list("aaabdaaabac"),), (list("the cat in the hat"),), (["low", "er", " ", "low", "er"],)],
    ),
    "05.2": Exercise(lambda: [1.4 / math.log(2), 3.2 / math.log(2) / 2.5]),
    "05.3": Exercise(lambda: regex.findall(GPT2_SPLIT, "it's  42")),
    "06.1": Exercise(lambda: interval([-0.10, -0.06, -0.08]).half_width),
    "06.2": Exercise(lambda: stats.t.ppf(0.975, 4) / stats.t.ppf(0.975, 2) * math.sqrt(3 / 5)),
    "06.3": Exercise(
        holm,
        {
            "bonferroni": lambda p: [min(1.0, len(p) * one) for one in p],
            "order": lambda p: sorted(one for one in holm(p) if one is not None),
            "smaller": lambda p: [min(1.0, one * sum(other >= one for other in p)) for one in p],
            "above": lambda p: [max(o * sum(x >= o for x in p) for o in p if o <= one) for one in p],
        },
        [([0.03, 0.01, 0.04],), ([0.4, 0.001, 0.7, 0.6],)],
    ),
    "07.1": Exercise(
        gpt2_parameters,
        {
            "head": lambda V, T, C, L: gpt2_parameters(V, T, C, L) + V * C,
            "positions": lambda V, T, C, L: gpt2_parameters(V, T, C, L) - T * C,
            "biases": lambda V, T, C, L: V * C + T * C + 12 * L * C**2,
            "last_norm": lambda V, T, C, L: gpt2_parameters(V, T, C, L) - 2 * C,
        },
        [(50_257, 1024, 768, 12), (1000, 64, 96, 3)],
    ),
    "07.2": Exercise(
        lambda p, limit: nucleus(p, limit) / nucleus(p, limit).sum(),
        {
            "scale": nucleus,
            "short": lambda p, limit: nucleus(p, limit, short=True) / nucleus(p, limit, short=True).sum(),
            "order": lambda p, limit: (nucleus(p, limit) / nucleus(p, limit).sum()).sort(descending=True).values,
        },
        [([0.1, 0.5, 0.15, 0.25], limit) for limit in (0.6, 0.8)],
    ),
    "07.3": Exercise(lambda: 12 * 8 * ((768 + 3 * 768) + (768 + 768))),
    "08.1": Exercise(lambda: 1 - 0.95**3),
    "08.2": Exercise(lambda: 2 * 0.5**5),
    "08.3": Exercise(
        lambda a, b: stats.ttest_rel(a, b).statistic,
        {
            "unpaired": lambda a, b: stats.ttest_ind(a, b).statistic,
            "divisor": lambda a, b: (a - b).mean() / (a - b).std(correction=0) * len(a) ** 0.5,
            "root": lambda a, b: (a - b).mean() / (a - b).std(),
            "sign": lambda a, b: stats.ttest_rel(b, a).statistic,
        },
        [([1.71, 1.74, 1.69, 1.73, 1.70], [1.73, 1.75, 1.72, 1.74, 1.73]), ([2.0, 2.2, 2.1], [1.9, 2.2, 2.0])],
    ),
}
