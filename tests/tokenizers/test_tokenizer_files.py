"""Tokenizers in Hugging Face's files, compared with transformers and the tokenizers library."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")  # it needs newer packages than the lowest that gptexp allows

from transformers import AutoTokenizer

from gptexp.compose.commandline import check
from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.config.fingerprint import identity
from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig, FilesTokenizerConfig, GPT2TokenizerConfig
from gptexp.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from gptexp.tokenizers.byte_level import byte_symbols, in_order, joins_by_bytes
from gptexp.tokenizers.gpt2 import encoder_json, vocab_bpe
from gptexp.tokenizers.huggingface_export import files_of
from gptexp.tokenizers.huggingface_files import read_state, sha256_of
from support.runs import TINY, TINY_GPT, story
from support.tokenizer_files import HARD, learned, saved


def source_code(size: int) -> str:
    """The first `size` characters of Python's source code."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    return "".join(path.read_text(encoding="utf-8", errors="ignore") for path in files)[:size]


def read(folder: Path, size: int | None = None) -> Tokenizer:
    return load_tokenizer(read_state(folder, size))


def gpt2_files() -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab = json.loads(encoder_json(vocab_bpe()))
    lines = vocab_bpe().decode("utf-8").split("\n")[1:-1]
    return vocab, [(left, right) for left, right in (line.split(" ") for line in lines)]


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenAI's vocabulary as transformers saves it."""
    folder = tmp_path_factory.mktemp("gpt2")
    saved(folder, *gpt2_files())
    return folder


# ---------------------------------------------------------------------------------- GPT-2's vocabulary


def test_gpt2_tokens_equal_those_of_the_reference(gpt2_folder: Path) -> None:
    ours, reference = train_tokenizer(GPT2TokenizerConfig()), AutoTokenizer.from_pretrained(gpt2_folder)
    for text in (*HARD, source_code(1_000_000)):
        tokens = ours.encode(text).tolist()
        assert tokens == reference(text)["input_ids"]
        assert reference.decode(tokens, clean_up_tokenization_spaces=False) == text
    with pytest.raises(ValueError, match=r"U\+DC00"):
        ours.encode("half \udc00 a character")


def test_allowed_special_tokens_equal_those_of_the_reference(gpt2_folder: Path) -> None:
    ours, reference = train_tokenizer(GPT2TokenizerConfig()), AutoTokenizer.from_pretrained(gpt2_folder)
    for text in ("one<|endoftext|>two", "<|endoftext|>", "a <|endoftext|> b<|endoftext|><|endoftext|>", "none"):
        tokens = ours.encode_special(text).tolist()
        assert tokens == reference(text)["input_ids"]
        assert tokens.count(50256) == text.count("<|endoftext|>")
        assert 50256 not in ours.encode(text)


@pytest.mark.parametrize("older", [False, True])
def test_files_with_gpt2s_vocabulary_are_the_gpt2_tokenizer(gpt2_folder: Path, tmp_path: Path, older: bool) -> None:
    if older:
        vocab, merges = gpt2_files()
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
        (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    folder = tmp_path if older else gpt2_folder
    assert read_state(folder) == {"kind": "gpt2"}
    padded = read(folder, 50304)
    assert (padded.kind, padded.vocab_size, padded.eot) == ("files", 50304, 50256)
    assert padded.encode(HARD[3]).tolist() == train_tokenizer(GPT2TokenizerConfig()).encode(HARD[3]).tolist()
    assert padded.decode_bytes([50256, 50257, 50303]) == b""


# ------------------------------------------------------------------------------- any vocabulary


@pytest.mark.parametrize("shuffled", [False, True])
def test_special_ids_can_be_anywhere(tmp_path: Path, shuffled: bool) -> None:
    vocab, merges = learned(700)
    ids = list(range(len(vocab) + 40))  # some have no meaning
    if shuffled:
        random.Random(1).shuffle(ids)
    reference = saved(tmp_path, {token: ids[i] for token, i in vocab.items()}, merges)
    ours = read(tmp_path)
    assert ours.kind == "files"
    assert ours.eot == reference.eos_token_id == ids[0]
    for text in (*HARD, source_code(100_000)):
        assert ours.encode(text).tolist() == reference(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == text
    copy = load_tokenizer(json.loads(json.dumps(ours.state_dict())))
    assert copy.fingerprint == ours.fingerprint
    assert copy.encode(HARD[2]).tolist() == ours.encode(HARD[2]).tolist()
    assert int((ours.token_bytes == 0).sum()) == ours.vocab_size - len(vocab) + 1
    assert ours.decode([*ours.encode("a<|endoftext|>"), ours.eot]) == "a<|endoftext|>"


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CharConfig(), id="char"),
        pytest.param(ByteConfig(), id="byte"),
        pytest.param(BPEConfig(vocab_size=600), id="bpe"),
        pytest.param(GPT2TokenizerConfig(), id="gpt2", marks=pytest.mark.slow),
    ],
)
def test_every_kind_is_exported_to_transformers_and_read_back(tmp_path: Path, config: Any) -> None:
    text = "\n".join(HARD)
    ours = train_tokenizer(config, [text], [text])
    for name, data in files_of(ours, 64).items():
        (tmp_path / name).write_bytes(data)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    assert len(reference) == ours.vocab_size
    assert reference.eos_token_id == ours.eot
    for line in HARD:
        tokens = ours.encode(line).tolist()
        assert reference(line)["input_ids"] == tokens
        assert reference.decode(tokens) == line
    assert read(tmp_path).fingerprint == ours.fingerprint
    if config.kind != "char":
        (tmp_path / "tokenizer.json").unlink()
        assert read(tmp_path).fingerprint == ours.fingerprint
    else:
        with pytest.raises(Exception, match="UNK"):
            reference("ѫ")


def test_a_vocabulary_from_files_is_written_back_the_same(tmp_path: Path) -> None:
    reference = saved(tmp_path, *learned(400))
    ours = read(tmp_path, 450)
    (tmp_path / "out").mkdir()
    for name, data in files_of(ours, 64).items():
        (tmp_path / "out" / name).write_bytes(data)
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again.get_vocab() == reference.get_vocab()
    assert read(tmp_path / "out", 450).fingerprint == ours.fingerprint


def merged(text: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding of one word as the paper describes it: the first merge of the list first, from the left."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    parts = list(text)
    while known := [pair for pair in pairwise(parts) if pair in ranks]:
        place = list(pairwise(parts)).index(min(known, key=ranks.__getitem__))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def drawn_merges(draw: random.Random, once: bool) -> list[tuple[str, str]]:
    """Random merges over two letters, which need not result from a text. once: each token has only one merge."""
    pieces, merges = ["a", "b"], list[tuple[str, str]]()
    for _ in range(draw.randint(3, 14)):
        pair = draw.choice(pieces), draw.choice(pieces)
        piece = "".join(pair)
        if pair not in merges and len(piece) <= 9 and not (once and piece in pieces):
            merges.append(pair)
            pieces.append(piece)
    return merges


@pytest.mark.parametrize("seed", range(40))
def test_any_list_of_merges_is_applied_in_its_order(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    merges = drawn_merges(draw, once=False)
    pieces = list(dict.fromkeys([*byte_symbols(), *map("".join, merges)]))
    draw.shuffle(pieces)
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8")
    ours = load_tokenizer(json.loads(json.dumps(read(tmp_path).state_dict())))
    assert ours.kind == "files"
    for _ in range(60):
        word = "".join(draw.choices("ab", k=draw.randint(1, 30)))
        assert [pieces[token] for token in ours.encode(word)] == merged(word, merges)
        assert ours.decode(ours.encode(word)) == word


def test_merges_that_tiktoken_applies_differently_are_detected() -> None:
    seen = {True: 0, False: 0}
    for seed in range(150):
        draw = random.Random(seed)
        merges = drawn_merges(draw, once=True)
        ids = {chr(value): value for value in range(256)}
        ids |= {left + right: i for i, (left, right) in enumerate(merges, 256)}
        pairs = [[ids[left], ids[right]] for left, right in merges]
        tokenizer = load_tokenizer({"kind": "bpe", "merges": pairs})
        words = [*map("".join, merges), *("".join(draw.choices("ab", k=k)) for k in range(2, 40))]
        same = all(tokenizer.encode(word).tolist() == [ids[part] for part in merged(word, merges)] for word in words)
        assert joins_by_bytes(in_order(map(tuple, pairs))) == same
        seen[same] += 1
        if not same:
            with pytest.raises(ValueError, match=r"tokenizer\.kind=bpe: its merges cannot result from training"):
                files_of(tokenizer, 64)
    assert min(seen.values()) > 25


# --------------------------------------------------------------------------------- refusals


def edited(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "tokenizer.json") -> None:
    path = folder / name
    whole = json.loads(path.read_text(encoding="utf-8"))
    change(whole)
    path.write_text(json.dumps(whole), encoding="utf-8")


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(whole: Any) -> None:
        for key in keys[:-1]:
            whole = whole[key]
        whole[keys[-1]] = value

    return change


SEQUENCE = {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}
OTHERWISE = [
    (put("model", "type", value="Unigram"), "model.type=Unigram"),
    (put("model", value=None), "model.type=null"),
    (put("model", "dropout", value=0.1), "model.dropout: 0.1"),
    (put("model", "byte_fallback", value=True), "model.byte_fallback: true"),
    (put("model", "ignore_merges", value=True), "model.ignore_merges: true"),
    (put("model", "end_of_word_suffix", value="</w>"), "model.end_of_word_suffix: </w>"),
    (put("normalizer", value={"type": "NFC"}), "normalizer: NFC"),
    (put("pre_tokenizer", value=None), "pre_tokenizer: null"),
    (put("pre_tokenizer", value="ByteLevel"), "pre_tokenizer: ?"),
    (put("post_processor", value="TemplateProcessing"), "post_processor: ?"),
    (put("pre_tokenizer", value=SEQUENCE), "pre_tokenizer: Sequence"),
    (put("pre_tokenizer", "add_prefix_space", value=True), "pre_tokenizer.add_prefix_space: true"),
    (put("pre_tokenizer", "use_regex", value=False), "pre_tokenizer.use_regex: false"),
    (put("post_processor", value={"type": "RobertaProcessing"}), "post_processor: RobertaProcessing"),
    (put("post_processor", "special_tokens", value={"<s>": {}}), "post_processor: TemplateProcessing"),
    (put("post_processor", value={"type": "TemplateProcessing"}), "post_processor: TemplateProcessing"),
    (put("added_tokens", 0, "special", value=False), "added_tokens: '<|endoftext|>' isn't special"),
    (put("added_tokens", 0, "content", value="a"), "added_tokens: a is in the vocabulary as another token"),
    (put("added_tokens", value=[3]), "added_tokens: must be a list of objects"),
    (put("model", "vocab", value=[]), "must give a whole number"),
    (put("model", "vocab", "a", value="x"), "must give a whole number"),
    (put("model", "vocab", "a", value=-1), "token id -1 lies outside"),
    (put("model", "vocab", "a", value=2), "two tokens have the same id"),
    (put("model", "vocab", "a", value=10**12), "has 256 to 10,000,000 ids"),
    (put("model", "merges", value={}), "merges must be a list"),
    (put("model", "merges", 3, value="a b c"), "merges: a b c: must be two tokens"),
    (put("model", "merges", 3, value=["zz", "q"]), "merges: zz q: zz isn't in the vocabulary"),
    (lambda whole: whole["model"]["vocab"].pop("a"), "no token for the byte 0x61"),
    (lambda whole: whole["model"]["merges"].reverse(), "no merge before it makes them"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    saved(folder, *learned(400))
    return folder


@pytest.mark.parametrize(("change", "message"), OTHERWISE, ids=[message for _, message in OTHERWISE])
def test_files_that_would_give_other_tokens_are_refused_by_name(
    small: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((small / "tokenizer.json").read_bytes())
    edited(tmp_path, change)
    with pytest.raises(ValueError, match=r"tokenizer\.json") as caught:
        read_state(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_file_without_a_json_object_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json: "):
        read_state(tmp_path)


def test_older_files_give_the_same_tokens_as_transformers(tmp_path: Path) -> None:
    """tiktoken would merge a and bc, or ab and c, whichever of the two merges is in the list."""
    vocab = {token: i for i, token in enumerate([*byte_symbols(), "ab", "bc", "abc", "<|endoftext|>"])}
    for lines, parts in {"a b\nb c\na bc\n": ["ab", "c"], "a b\nb c\nab c\na bc\n": ["abc"]}.items():
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
        ours, reference = read(tmp_path), AutoTokenizer.from_pretrained(tmp_path, tokenizer_type="gpt2")
        assert ours.kind == "files"
        assert ours.encode("abc").tolist() == [vocab[part] for part in parts]
        for text in ("abc", "aabcbc cab", *HARD):
            assert ours.encode(text).tolist() == reference(text)["input_ids"]
            assert ours.decode(ours.encode(text)) == text
        (tmp_path / "out").mkdir(exist_ok=True)
        for name, data in files_of(ours, 64).items():
            (tmp_path / "out" / name).write_bytes(data)
        assert read(tmp_path / "out").fingerprint == ours.fingerprint


def test_older_files_of_another_class_are_refused(small: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes(files_of(read(small), 64)[name])
    assert read(tmp_path).encode("abc").tolist() == read(small).encode("abc").tolist()
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    with pytest.raises(ValueError, match="tokenizer_class: Qwen2Tokenizer"):
        read_state(tmp_path)


def test_the_end_of_text_token_is_the_named_token(small: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    edited(tmp_path, lambda whole: whole["added_tokens"].append({"id": 400, "content": "</s>", "special": True}))
    edited(tmp_path, put("eos_token", value={"content": "</s>"}), "tokenizer_config.json")
    assert read(tmp_path).eot == 400
    edited(tmp_path, put("eos_token", value=None), "tokenizer_config.json")
    assert read(tmp_path).eot is None
    assert read(tmp_path, 400).vocab_size == 400  # the model has no row for </s>, which does not occur in texts
    edited(tmp_path, put("eos_token", value="[END]"), "tokenizer_config.json")
    with pytest.raises(ValueError, match=r"eos_token: \[END\] is no special token"):
        read_state(tmp_path)


def test_a_model_with_fewer_ids_than_tokens_is_refused(small: Path) -> None:
    with pytest.raises(ValueError, match=r"needs 400 ids, but config\.json has vocab_size=399"):
        read_state(small, 399)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 1 << 60},
        {"size": 3},
        {"size": "400"},
        {"byte_ids": list(range(255))},
        {"byte_ids": [0] * 256},
        {"merges": [[1, 2]]},
        {"merges": [[1, 2, 10**9]]},
        {"merges": [[1, 2, 399], [1, 2, 398]]},
        {"merges": [[1, 2, 399], [2, 1, 399]]},
        {"merges": [[1, 2, 3]]},
        {"merges": [[398, 2, 399]]},
        {"merges": [[1, 1, 300], *([299 + i, 299 + i, 300 + i] for i in range(1, 40))]},
        {"special": {"x": "1"}},
        {"special": ["x"]},
        {"eot": 7},
        {"eot": "0"},
    ],
)
def test_an_invalid_saved_vocabulary_is_refused(small: Path, change: dict[str, Any]) -> None:
    state = read_state(small)
    assert load_tokenizer(state).vocab_size == 400
    with pytest.raises(ValueError, match=r"vocabulary|merge|token|end of a text"):
        load_tokenizer({**state, **change})


# ---------------------------------------------------------------------------------- settings


def test_a_run_is_identified_by_file_contents_not_by_paths(small: Path, workplace: Path) -> None:
    (workplace / "here").mkdir()
    (workplace / "there").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        for folder in ("here", "there"):
            (workplace / folder / name).write_bytes((small / name).read_bytes())
    line = [*TINY, "data.path=story.txt", "tokenizer=files"]
    here, there = (compose([*line, f"tokenizer.path={folder}"]) for folder in ("here", "there"))
    assert here.tokenizer.sha256 == sha256_of(small)  # type: ignore[attr-defined]
    assert identity(to_plain(here)) == identity(to_plain(there))
    edited(workplace / "there", lambda whole: whole["model"]["merges"].pop())
    assert identity(to_plain(here)) != identity(to_plain(compose([*line, "tokenizer.path=there"])))
    with pytest.raises(ValueError, match=r"tokenizer\.path=there: its files aren't those that were chosen"):
        train_tokenizer(there.tokenizer)


def test_training_from_scratch_works_with_tokenizer_files(
    small: Path, train_here: Callable[..., dict[str, Any]]
) -> None:
    from gptexp.runs.opening import load

    train_here("tokenizer=files", f"tokenizer.path={small}", *TINY_GPT)
    found = load(Path("run/checkpoints/last.ckpt"))
    assert found.tokenizer["kind"] == "files"
    assert str(small) not in json.dumps(found.tokenizer)
    tokens = load_tokenizer(found.tokenizer).encode(story(3))
    np.testing.assert_array_equal(tokens, read(small).encode(story(3)))


def test_a_folder_without_tokenizer_files_gives_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.path=: give the folder"):
        check(compose(["tokenizer=files"]))
    with pytest.raises(ValueError, match=r"tokenizer\.path=.*: no tokenizer\.json in it, nor vocab\.json and merges"):
        train_tokenizer(FilesTokenizerConfig(path=str(tmp_path)))


def test_a_tokenizer_that_is_not_byte_level_has_no_vocabulary_of_bytes() -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.kind=char: is not a byte-level"):
        train_tokenizer(CharConfig(), ["ab"], ["ab"]).vocabulary()
