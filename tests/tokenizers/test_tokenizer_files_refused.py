"""Hugging Face's files that are refused, and the settings of a run with such files."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")  # it needs newer packages than the lowest that gptexp allows


from gptexp.compose.commandline import check
from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.config.fingerprint import identity
from gptexp.config.tokenizer import FilesTokenizerConfig
from gptexp.tokenizers import load_tokenizer, train_tokenizer
from gptexp.tokenizers.huggingface_export import files_of
from gptexp.tokenizers.huggingface_files import read_state, sha256_of
from support.runs import TINY, TINY_GPT, story
from support.tokenizer_files import HARD, learned, read, saved

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
    (put("added_tokens", 0, "special", value=False), "added_tokens: '<|endoftext|>' is not special"),
    (put("added_tokens", 0, "content", value="a"), "added_tokens: a is in the vocabulary as another token"),
    (put("added_tokens", value=[3]), "added_tokens: must be a list of objects"),
    (put("model", "vocab", value=[]), "must give a whole number"),
    (put("model", "vocab", "a", value="x"), "must give a whole number"),
    (put("model", "vocab", "a", value=-1), "token id -1 lies outside"),
    (put("model", "vocab", "a", value=2), "two tokens have the same id"),
    (put("model", "vocab", "a", value=10**12), "has 256 to 10,000,000 ids"),
    (put("model", "merges", value={}), "merges must be a list"),
    (put("model", "merges", 3, value="a b c"), "merges: a b c: must be two tokens"),
    (put("model", "merges", 3, value=["zz", "q"]), "merges: zz q: zz is not in the vocabulary"),
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
    with pytest.raises(ValueError, match=r"eos_token: \[END\] is not a special token"):
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


VALUES: list[Any] = [0, 1, 255, 256, 399, 400, -1, 2**31, 2**63, True, None, "a", 1.0, [], {}, [1, 2, 3], [[1, 2, 3]]]
PLACES = [("size",), ("eot",), ("byte_ids",), ("byte_ids", 97), ("merges",), ("merges", 5), ("merges", 5, 0),
          ("merges", 5, 2), ("merges", 142, 1), ("special",), ("special", "<|endoftext|>")]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_changed_saved_vocabulary_is_refused_or_encodes(small: Path, place: tuple[Any, ...]) -> None:
    outcomes = []
    for value in VALUES:
        state = copy.deepcopy(read_state(small))
        put(*place, value=value)(state)
        try:
            tokenizer = load_tokenizer(state)
        except ValueError as error:
            outcomes.append(str(error))
        else:
            assert [tokenizer.decode(tokenizer.encode(text)) for text in HARD] == HARD
    assert len(outcomes) >= len(VALUES) // 2
    assert not any("\n" in outcome for outcome in outcomes)


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
    with pytest.raises(ValueError, match=r"tokenizer\.path=there: its files do not match tokenizer"):
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
