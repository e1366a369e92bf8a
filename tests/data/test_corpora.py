from __future__ import annotations

import hashlib
import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gptexp.config.data import (
    DataConfig,
    HarryPotterConfig,
    HuggingFaceConfig,
    PydocsConfig,
    PythonStdlibConfig,
    ShakespeareConfig,
    TextConfig,
)
from gptexp.config.tokenizer import GPT2TokenizerConfig
from gptexp.data.corpora import CorpusBase, _reading, open_corpus, shakespeare
from gptexp.tokenizers import train_tokenizer


def corpus_of(folder: Path, path: Any, **settings: Any) -> CorpusBase:
    return open_corpus(TextConfig(path=str(path), **settings), folder / "cache")


def documents(corpus: CorpusBase) -> list[str]:
    result: list[str] = []
    for starts, text in corpus.pieces():
        assert text
        if starts:
            result.append(text)
        else:
            result[-1] += text
    return result


def test_a_file_of_shared_code_is_no_corpus() -> None:
    with pytest.raises(ValueError, match="choose one of pydocs"):
        open_corpus(DataConfig(kind="_reading"), Path("cache"))


@pytest.mark.parametrize("name", ["books", "books/*.txt", "books/**/*.txt", "~/books"])
def test_books_are_read_in_natural_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    for number in (10, 2, 1, 9):
        (tmp_path / "books" / f"Book {number}.txt").write_text(f"book {number}\n")
    (tmp_path / "books" / "README.md").write_text("not a book")
    (tmp_path / "books" / "._Book 1.txt").write_text("left by macOS")
    assert documents(corpus_of(tmp_path, name)) == ["book 1\n", "book 2\n", "book 9\n", "book 10\n"]


def test_an_existing_name_with_brackets_is_used_literally(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("mine")
    (tmp_path / "a1.txt").write_text("not mine")
    assert documents(corpus_of(tmp_path, tmp_path / "a[1].txt")) == ["mine"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
def test_bom_is_dropped_and_every_newline_becomes_lf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(_reading, "CHUNK", chunk)
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\rthré\r\r\n\r".encode())
    assert documents(corpus_of(tmp_path, tmp_path / "a.txt")) == ["one\ntwo\nthré\n\n\n"]
    (tmp_path / "a.txt").write_bytes("one\r\n二".encode("utf-16"))
    assert documents(corpus_of(tmp_path, tmp_path / "a.txt", encoding="utf-16")) == ["one\n二"]
    (tmp_path / "a.txt").write_bytes("哈利\r\n波特".encode("gb18030"))
    assert documents(corpus_of(tmp_path, tmp_path / "a.txt", encoding="gb18030")) == ["哈利\n波特"]


CHINESE = "他们说,哈利。波特是一个很好的孩子。\n" * 40
FRENCH = "Le café était fermé, mais l'élève préférait déjà la forêt à l'école.\n" * 40


@pytest.mark.parametrize(
    ("text", "actual", "given", "place", "likely"),
    [
        (CHINESE, "gb18030", "utf-8", "byte 0 (line 1)", "gb18030"),
        ("plain\n" * 3 + FRENCH, "cp1252", "utf-8", "byte 24 (line 4)", "cp125"),
        (FRENCH, "utf-16", "utf-8", "byte 0 (line 1)", "utf-16"),
        ("x" * 3_000_000 + "\n" + CHINESE, "utf-8", "ascii", "byte 3000001 (line 2)", "utf-8"),
    ],
)
def test_a_wrong_encoding_names_file_position_and_likely_encoding(
    tmp_path: Path, text: str, actual: str, given: str, place: str, likely: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(actual))
    with pytest.raises(ValueError, match=r"data\.encoding") as caught:
        documents(corpus_of(tmp_path, path, encoding=given))
    assert type(caught.value) is ValueError
    assert str(path) in str(caught.value)
    assert place in str(caught.value)
    assert f"data.encoding={likely}" in str(caught.value).split("looks like")[1]


def test_a_character_cut_off_at_the_end_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café".encode()[:-1])
    with pytest.raises(ValueError, match=r"byte 3 \(line 1\)"):
        documents(corpus_of(tmp_path, tmp_path / "a.txt"))


def test_a_path_without_matches_names_the_folder_and_valid_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data\.path=books/\*\.txt") as caught:
        corpus_of(tmp_path, "books/*.txt").check()
    for part in (str(tmp_path / "books"), "data=pydocs", "data=python_stdlib"):
        assert part in str(caught.value)


def test_a_folder_with_only_a_readme_counts_as_empty(tmp_path: Path) -> None:
    folder = tmp_path / "harrypotter"
    folder.mkdir()
    (folder / "README.md").write_text("Put your books here.")
    corpus = open_corpus(HarryPotterConfig(path=str(folder)), tmp_path)
    with pytest.raises(ValueError, match="data=harrypotter: no text found") as caught:
        corpus.check()
    for part in (str(folder), "any number of .txt files", "data=pydocs"):
        assert part in str(caught.value)
    (folder / "book 1.txt").write_text("A boy.")
    corpus.check()
    assert documents(corpus) == ["A boy."]


def test_empty_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(ValueError, match=r"no text in .*a\.txt, .*b\.txt"):
        corpus_of(tmp_path, tmp_path).check()
    (tmp_path / "c.txt").write_text("x")
    corpus_of(tmp_path, tmp_path).check()
    assert documents(corpus_of(tmp_path, tmp_path)) == ["x"]


def test_the_fingerprint_depends_on_contents_order_and_encoding(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("ab")
    (tmp_path / "2.txt").write_text("c")
    first = corpus_of(tmp_path, tmp_path).fingerprint()
    assert corpus_of(tmp_path, tmp_path / "*.txt").fingerprint() == first
    assert corpus_of(tmp_path, tmp_path, encoding="latin-1").fingerprint() != first
    (tmp_path / "1.txt").write_text("a")
    (tmp_path / "2.txt").write_text("bc")
    second = corpus_of(tmp_path, tmp_path).fingerprint()
    (tmp_path / "1.txt").rename(tmp_path / "3.txt")
    assert len({first, second, corpus_of(tmp_path, tmp_path).fingerprint()}) == 3


def test_pieces_are_cut_at_boundaries_of_bpe_tokens() -> None:
    text = "It's  a line,\n\n  indented\t\tby   1234 spaces … 'tis 哈利\x1c x\x85 y" * 60
    tokenizer = train_tokenizer(GPT2TokenizerConfig())
    expected = tokenizer.encode(text).tolist()
    for size in range(70, 140):
        pieces = list(_reading.cut_pieces([text[i : i + 37] for i in range(0, len(text), 37)], size))
        assert len(pieces) > 20
        assert max(map(len, pieces)) <= size + 37
        assert "".join(pieces) == text
        assert [token for piece in pieces for token in tokenizer.encode(piece).tolist()] == expected


def test_text_without_white_space_is_also_read_in_pieces() -> None:
    pieces = list(_reading.cut_pieces(["x" * 50] * 100, size=100))
    assert "".join(pieces) == "x" * 5000
    assert max(map(len, pieces)) <= 1650


def test_pydocs_are_the_topics_sorted_by_name(tmp_path: Path) -> None:
    from pydoc_data.topics import topics

    corpus = open_corpus(PydocsConfig(), tmp_path)
    corpus.check()
    assert documents(corpus) == [topics[name] for name in sorted(topics)]


def test_the_standard_library_has_no_tests_and_keeps_its_encodings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "b.py": b"b = 1\r\n",
        "a/x.py": "# -*- coding: latin-1 -*-\n# é\n".encode("latin-1"),
        "a/broken.py": b"\xff\xfe\x00",
        "test/t.py": b"no",
        "a/tests/t.py": b"no",
        "site-packages/s.py": b"no",
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    corpus = open_corpus(PythonStdlibConfig(), tmp_path)
    monkeypatch.setattr(corpus, "_root", lambda: tmp_path)
    corpus.check()
    assert documents(corpus) == ["# -*- coding: latin-1 -*-\n# é\n", "b = 1\n"]


def test_shakespeare_is_downloaded_once_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.txt"
    source.write_text("To be, or not to be\n")
    monkeypatch.setattr(shakespeare, "URL", source.as_uri())
    corpus = open_corpus(ShakespeareConfig(), tmp_path / "cache")
    corpus.check()
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match=r"returned another text.*data\.path"):
        documents(corpus)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    assert documents(corpus) == ["To be, or not to be\n"]
    source.unlink()
    assert documents(corpus) == ["To be, or not to be\n"]
    (tmp_path / "cache/downloads/tinyshakespeare.txt").write_text("altered")
    with pytest.raises(ValueError, match=r"can't be reached.*data\.path"):
        documents(corpus)


def test_a_local_shakespeare_may_differ(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("O, for a Muse of fire\n")
    corpus = open_corpus(ShakespeareConfig(path=str(tmp_path / "mine.txt")), tmp_path)
    assert documents(corpus) == ["O, for a Muse of fire\n"]
    with pytest.raises(ValueError, match="no text file found"):
        open_corpus(ShakespeareConfig(path=str(tmp_path / "none.txt")), tmp_path).check()


ROWS = [f"Row {i} has a text.\r\nAnd a second line {i * i}." for i in range(30)]


def write_rows(folder: Path, builder: str) -> Path:
    path = folder / f"rows.{builder}"
    if builder == "text":
        path.write_text("".join(f"line {i}\n" for i in range(30)))
    elif builder == "json":
        path.write_text("".join(json.dumps({"id": i, "text": row}) + "\n" for i, row in enumerate(ROWS)))
    elif builder == "csv":
        path.write_text("text\n" + "".join(f'"{row}"\n' for row in ROWS), newline="")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": ROWS, "id": list(range(30))}), path)
    return path


def stream(folder: Path, path: Path, builder: str, **settings: Any) -> Any:
    config = HuggingFaceConfig(dataset=builder, data_files=str(path), **settings)
    return open_corpus(config, folder / "cache")


@pytest.mark.parametrize("builder", ["text", "json", "csv", "parquet"])
def test_a_stream_of_local_files_yields_its_rows_and_can_resume(tmp_path: Path, builder: str) -> None:
    path = write_rows(tmp_path, builder)
    expected = [f"line {i}\n" for i in range(30)] if builder == "text" else [row.replace("\r", "") for row in ROWS]
    corpus = stream(tmp_path, path, builder)
    corpus.check()
    assert documents(corpus) == expected
    rows = corpus.pieces()
    assert [next(rows)[1] for _ in range(11)] == expected[:11]
    state = json.loads(json.dumps(corpus.state_dict()))
    again = stream(tmp_path, path, builder)
    again.load_state_dict(state)
    assert documents(again) == expected[11:]


def test_a_missing_column_error_names_the_existing_columns(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "json")
    with pytest.raises(ValueError, match=r"data\.text_column=story: no such column; there are id, text"):
        documents(stream(tmp_path, path, "json", text_column="story"))
    with pytest.raises(ValueError, match=r"data\.text_column=id: holds int, not text"):
        documents(stream(tmp_path, path, "json", text_column="id"))


def test_local_files_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "json")
    first = stream(tmp_path, path, "json").fingerprint()
    assert stream(tmp_path, path, "json", text_column="id").fingerprint() != first
    path.write_text(path.read_text().replace("Row 7", "Row 8"))
    assert stream(tmp_path, path, "json").fingerprint() != first


def test_scripts_and_missing_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "set.py").write_text("raise SystemExit")
    for name in ("own/set.py", "own", "./own", "other.py", "/etc", "a/b/c"):
        with pytest.raises(ValueError, match="scripts and local folders are not supported"):
            open_corpus(HuggingFaceConfig(dataset=name), tmp_path).check()
    with pytest.raises(ValueError, match=r"data\.data_files=None"):
        open_corpus(HuggingFaceConfig(dataset="json"), tmp_path).check()
    with pytest.raises(ValueError, match=r"data\.data_files=.*none\.json: no such file"):
        stream(tmp_path, tmp_path / "none.json", "json").check()


def test_an_unreachable_hub_gives_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with pytest.raises(ValueError, match=r"owner/name: can't be read.*Name or service.*data=pydocs"):
        open_corpus(HuggingFaceConfig(dataset="owner/name"), tmp_path).check()


def test_a_damaged_local_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match=r"rows\.parquet: can't be read as parquet"):
        documents(stream(tmp_path, tmp_path / "rows.parquet", "parquet"))
