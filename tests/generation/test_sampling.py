"""Sampling follows its settings, the cache changes only the speed, and texts cannot control a terminal."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptexp.config.model import GPTConfig, MLPConfig, Position
from gptexp.generation.decoding import Generation, ReferenceDecoder, make_decoder, stream_tokens
from gptexp.generation.sampling import sample_token
from gptexp.generation.streaming import TextStream, UntilStop, plain_text
from gptexp.models.gpt import GPT
from gptexp.models.mlp import MLP

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(n: int = 2000, **arguments: Any) -> Counter[int]:
    generator = seeded()
    return Counter(sample_token(LOGITS, generator=generator, **arguments) for _ in range(n))


def network(**changes: Any) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 6, "dropout": 0.5, **changes}), 13)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def test_temperature_zero_takes_the_first_most_probable_token() -> None:
    assert sample_token(LOGITS, temperature=0) == 1
    assert sample_token(torch.tensor([0.0, 2.0, 2.0]), temperature=0) == 1


def test_token_frequencies_match_their_probabilities() -> None:
    counts = drawn(temperature=1.0)
    for token, probability in enumerate([0.1, 0.4, 0.2, 0.3]):
        # Five standard deviations of a binomial count; the seed is fixed.
        assert abs(counts[token] - 2000 * probability) < 5 * (2000 * probability * (1 - probability)) ** 0.5


def test_a_low_temperature_sharpens_the_distribution() -> None:
    assert drawn(temperature=0.5)[1] / 2000 == pytest.approx(0.16 / 0.30, abs=0.05)  # p² over the sum of p²
    assert set(drawn(100, temperature=1e-300)) == {1}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"top_p": 0.01}, {1}),
        ({"top_p": 0.6}, {1, 3}),
        ({"top_p": 0.75}, {1, 2, 3}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 2, "top_p": 0.5}, {1}),  # 4/7 of the probability that top_k keeps
    ],
)
def test_only_the_most_probable_tokens_are_drawn(arguments: dict[str, Any], expected: set[int]) -> None:
    assert set(drawn(500, temperature=1.0, **arguments)) == expected


def test_top_k_keeps_k_tokens_even_with_ties() -> None:
    generator = seeded()
    assert {sample_token(torch.zeros(5), 1.0, top_k=2, generator=generator) for _ in range(100)} == {0, 1}


@pytest.mark.parametrize(
    "arguments",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}],
)
def test_arguments_out_of_range_are_refused_by_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        sample_token(LOGITS, **arguments)
    with pytest.raises(ValueError, match=next(iter(arguments))):
        stream_tokens(network(), [1], max_new_tokens=1, **arguments)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(bad: float, temperature: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        sample_token(torch.tensor([0.0, bad]), temperature)


def test_an_empty_prompt_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="prompt"):
        stream_tokens(network(), [], max_new_tokens=1)


def greedy_by_hand(model: GPT, prompt: list[int], n: int) -> list[int]:
    """Full passes over the documented window: at block_size tokens it restarts from its last half."""
    block_size, model = model.config.block_size, model.eval()
    history, window = list(prompt), prompt[-block_size:]
    for _ in range(n):
        token = int(model(torch.tensor([window]))[0, -1].argmax())
        history.append(token)
        window = [*window, token] if len(window) < block_size else history[-max(1, block_size // 2) :]
    return history[len(prompt) :]


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize(("block_size", "n_prompt"), [(6, 2), (6, 6), (6, 9), (1, 1), (1, 3)])
def test_a_cached_stream_equals_full_passes_even_past_the_window(
    position: Position, block_size: int, n_prompt: int
) -> None:
    model = network(position=position, block_size=block_size)
    prompt = [(5 * i) % 13 for i in range(n_prompt)]
    streamed = list(stream_tokens(model, prompt, max_new_tokens=15, temperature=0))
    assert streamed == greedy_by_hand(model, prompt, 15)


def test_the_cache_is_used_one_token_at_a_time() -> None:
    model, lengths = network(), list[int]()
    model.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    list(stream_tokens(model, [1, 2], max_new_tokens=9, temperature=0))
    assert lengths == [2, 1, 1, 1, 1, 2, 1, 1, 1, 1]  # at six tokens, the last three are encoded again


def side_by_side(
    model: torch.nn.Module, prompts: list[list[int]], n: int, ends: dict[int, int] | None = None, **options: Any
) -> list[list[int]]:
    """The continuation of each prompt. ends: the number of tokens after which a text is stopped."""
    generators = [seeded(i) for i in range(len(prompts))]
    generation = Generation(make_decoder(model.eval(), prompts, n), generators, max_new_tokens=n, **options)
    texts: list[list[int]] = [[] for _ in prompts]
    for text, token in generation:
        texts[text].append(token)
        if ends and len(texts[text]) == ends.get(text):
            generation.end(text)
    return texts


PROMPTS = [[1, 2], [(5 * i) % 13 for i in range(9)], [3], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_does_not_depend_on_other_texts_in_its_batch(position: Position, temperature: float) -> None:
    model = network(position=position, n_kv_head=1).double()
    together = side_by_side(model, PROMPTS, 15, {2: 4}, temperature=temperature)
    for i, prompt in enumerate(PROMPTS):
        stream = stream_tokens(model, prompt, max_new_tokens=15, temperature=temperature, generator=seeded(i))
        assert together[i] == list(stream)[: 4 if i == 2 else 15]


def test_models_without_a_cache_also_generate_in_batches() -> None:
    torch.manual_seed(0)
    model = MLP(MLPConfig(block_size=4, n_context=3, n_embd=4, n_hidden=8), 13)
    alone = [list(stream_tokens(model, p, max_new_tokens=6, generator=seeded(i))) for i, p in enumerate(PROMPTS)]
    assert side_by_side(model, PROMPTS, 6) == alone


def test_finished_texts_cost_no_further_computation() -> None:
    model, batches = network(), list[int]()
    model.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0])))
    side_by_side(model, [[1], [2], [3]], 4, {0: 1, 1: 3, 2: 2})
    assert batches == [3, 2, 1]


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize("n_prompt", [2, 9])
def test_the_reference_generates_the_same_text(position: Position, n_prompt: int) -> None:
    model, prompt = network(position=position), [(5 * i) % 13 for i in range(n_prompt)]
    generation = Generation(ReferenceDecoder(model.eval(), [prompt]), [None], max_new_tokens=15, temperature=0)
    assert [token for _, token in generation] == greedy_by_hand(model, prompt, 15)


def test_models_without_a_cache_see_their_last_block() -> None:
    model = MLP(MLPConfig(block_size=4, n_context=3, n_embd=4, n_hidden=8), 13)
    lengths: list[int] = []
    model.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    assert len(list(stream_tokens(model, [1, 2], max_new_tokens=5))) == 5
    assert lengths == [2, 3, 4, 4, 4]


def test_the_same_generator_gives_the_same_tokens() -> None:
    model = network()
    first, again, other = (
        list(stream_tokens(model, [1], max_new_tokens=20, temperature=2.0, generator=seeded(s))) for s in (1, 1, 2)
    )
    assert first == again != other


def test_the_stop_token_ends_the_stream_and_is_not_returned() -> None:
    model = network()
    tokens = list(stream_tokens(model, [1], max_new_tokens=8, temperature=0))
    stop = tokens[-1]
    expected = tokens[: tokens.index(stop)]
    assert list(stream_tokens(model, [1], max_new_tokens=8, temperature=0, stop_token=stop)) == expected


def test_modes_are_restored_and_inference_mode_does_not_leak() -> None:
    model = network().train()
    model.transformer.drop.eval()  # a part that a user has frozen
    stream = stream_tokens(model, [1], max_new_tokens=3)
    assert model.training
    next(stream)
    assert not model.training
    assert not torch.is_inference_mode_enabled()
    stream.close()
    assert model.training
    assert model.transformer.h[0].training
    assert not model.transformer.drop.training
    model(torch.tensor([[1, 2]])).sum().backward()  # no inference tensors are left in the model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\nc é 哈利 🪄", "a\tb\nc é 哈利 🪄"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x9b31mred", "red"),
        ("\x9d0;title\x9ctext", "text"),
        ("\x1bcreset\x1b(Bset", "resetset"),
        ("a\rb\x08c\x07\x00\x7f\x85", "abc"),
        ("\u202eevil\u202c \u2066x\u2069", "evil x"),
        ("\x1b]never ended\nnext", "never ended\nnext"),
        ("\x1b", ""),
        ("[b]x[/b]", "[b]x[/b]"),
    ],
)
def test_plain_text_removes_terminal_control_sequences(text: str, expected: str) -> None:
    assert plain_text(text) == expected


SPECIALS = st.sampled_from(["\x1b", "[", "]", "3", ";", "m", "\x07", "\\", "\x9b", "\x9d", "\x9c", "(", "\n", "P", "é"])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(SPECIALS, st.characters(codec="utf-8")), max_size=30).map("".join), st.data())
@example("\x1b]0;t\x1b\\x", None)
def test_streamed_text_equals_the_whole_text(text: str, data: st.DataObject | None) -> None:
    raw = text.encode()
    cuts = range(len(raw)) if data is None else sorted(data.draw(st.sets(st.integers(0, len(raw)))))
    edges = [0, *cuts, len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(edges)]
    stream = TextStream(lambda tokens: b"".join(pieces[token] for token in tokens))
    shown = [stream.push([i]) for i in range(len(pieces))] + [stream.finish()]
    assert "".join(shown) == plain_text(text)
    assert all(plain_text(piece) == piece for piece in shown)


def test_an_incomplete_character_is_held_until_it_is_complete() -> None:
    stream = TextStream(bytes)
    assert [stream.push([byte]) for byte in "é哈".encode()] == ["", "é", "", "", "哈"]
    assert stream.push([0xE5]) == ""
    assert stream.finish() == "\ufffd"
    assert stream.push([0x61]) == "a"


def test_invalid_utf8_bytes_are_replaced() -> None:
    assert TextStream(bytes).push([0x61, 0xFF, 0x62]) == "a\ufffdb"


def test_an_incomplete_escape_sequence_is_held_and_dropped() -> None:
    stream = TextStream(bytes)
    assert [stream.push([byte]) for byte in b"a\x1b[31mb"] == ["a", "", "", "", "", "", "b"]
    assert stream.push(list(b"c\x1b[3")) == "c"
    assert stream.finish() == "3"


@settings(max_examples=200, deadline=None)
@given(st.text("ab\n", max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3), st.data())
def test_text_ends_before_the_first_stop_string_in_any_chunking(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    until, edges = UntilStop(stops), [0, *cuts, len(text)]
    shown = "".join(until.push(text[a:b]) for a, b in pairwise(edges)) + until.finish()
    rest = text[len(shown) :]
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert until.found == any(stop in text for stop in stops)
    assert rest.startswith(tuple(stops)) if until.found else rest == ""
