"""Every GPT decodes and scores on another device as on the CPU, in batches that follow from its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptexp.evaluation import scoring
from gptexp.evaluation.questions import answers, question
from gptexp.generation import decoding
from gptexp.generation.decoding import Generation, RecomputingDecoder, make_decoder, texts_that_fit
from gptexp.models.gpt import GPT
from gptexp.tokenizers.byte import ByteTokenizer
from support.emulated_device import NAME, DeviceTensor, emulated
from support.inspected import OPTIONS
from support.small_gpt import build, small

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 1, 2, 3]]  # of different lengths, and longer than block_size


def results(model: GPT) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[float]]:
    """Greedy texts with and without a cache, longer than block_size; and nats of continuations."""
    cached, recomputed = (
        [*Generation(decoder, [None] * 3, max_new_tokens=n, temperature=0)]
        for decoder, n in ((make_decoder(model, PROMPTS, 14), 14), (RecomputingDecoder(model, PROMPTS), 3))
    )
    found = answers(model, ByteTokenizer(), [question(p, [7, 8], 8) for p in PROMPTS])
    return cached, recomputed, [one.nats for _, one in found]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_gpt_gives_the_results_of_the_cpu(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(small(**options), dtype=torch.float32)
    texts, others, nats = results(model)
    with emulated(monkeypatch):
        model.to(NAME)
        assert all(isinstance(parameter.detach(), DeviceTensor) for parameter in model.parameters())
        cache = model.new_cache(2)
        assert all(isinstance(part, DeviceTensor) for part in (*cache.keys, *cache.values, cache.tokens))
        found = results(model)
    assert found[:2] == (texts, others)
    assert found[2] == pytest.approx(nats, rel=1e-4)


def test_batches_follow_from_the_free_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = build(small()), ByteTokenizer()
    assert (texts_that_fit(model, 99), scoring.windows_that_fit(model, tokenizer, 8)) == (32, 2**26 // (257 * 8))
    found = []
    for free in (2**14, 2**20, 2**40):
        for module in (decoding, scoring):
            monkeypatch.setattr(module, "device_of", lambda _: torch.device("cuda"))
            monkeypatch.setattr(module, "free_memory", lambda _, free=free: free)
        found.append((texts_that_fit(model, 99), scoring.windows_that_fit(model, tokenizer, 8)))
    # A text holds 2 · 2 layers · 16 channels · 8 tokens · 4 bytes, a token takes 12 · 257 + 64 · 16 bytes.
    assert found == [(2, 1), (128, int(0.4 * 2**20) // 4108 // 8), (256, 2**18 // 8)]
