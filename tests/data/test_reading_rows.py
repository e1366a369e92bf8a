"""Rows of csv, json and text files: every reader returns the same cells and reports the same errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptexp import predict
from gptexp.commands.predict import _texts
from gptexp.config.data import HuggingFaceConfig, LabelledConfig
from gptexp.data.corpora import open_corpus
from gptexp.data.corpora.labelled import LabelledCorpus, texts_of

CELLS = ["NA", "null", "None", "nan", "12", "他们说"]


def texts(path: Path, builder: str, cache: Path, encoding: str = "utf-8") -> list[list[str]]:
    """The result of each of the three readers for a file."""
    stream = HuggingFaceConfig(dataset=builder, data_files=str(path), encoding=encoding)
    streamed = [text for _, text in open_corpus(stream, cache).pieces()]
    labelled = open_corpus(LabelledConfig(path=str(path), encoding=encoding), cache)
    assert isinstance(labelled, LabelledCorpus)
    return [streamed, [text for text, _ in labelled.rows("train")], list(texts_of(str(path), "text", encoding))]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_cells_that_look_missing_are_text_for_every_reader(tmp_path: Path, encoding: str) -> None:
    lines = "".join(f"{cell},a\n" for cell in CELLS)
    (tmp_path / "rows.csv").write_bytes(f"text,label\n{lines}".encode(encoding))
    assert texts(tmp_path / "rows.csv", "csv", tmp_path, encoding) == [CELLS] * 3
    (tmp_path / "rows.tsv").write_bytes(f"text,label\n{lines}".replace(",", "\t").encode(encoding))
    assert texts(tmp_path / "rows.tsv", "csv", tmp_path, encoding) == [CELLS] * 3


def test_rows_of_json_also_use_the_encoding(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": cell, "label": 1}, ensure_ascii=False) + "\n" for cell in CELLS)
    (tmp_path / "rows.jsonl").write_bytes(lines.encode("gb18030"))
    assert texts(tmp_path / "rows.jsonl", "json", tmp_path, "gb18030") == [CELLS] * 3


def test_rows_in_another_encoding_name_file_position_and_hint(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(("text,label\n" + "他们说哈利波特是一个很好的孩子。,a\n" * 9).encode("gb18030"))
    pattern = r"rows\.csv: byte 11 \(line 2\) can't be read as {0}=utf-8; it looks like gb18030: set {0}=gb18030"
    stream = open_corpus(HuggingFaceConfig(dataset="csv", data_files=str(path)), tmp_path)
    with pytest.raises(ValueError, match=pattern.format(r"data\.encoding")):
        list(stream.pieces())
    labelled = open_corpus(LabelledConfig(path=str(path)), tmp_path)
    with pytest.raises(ValueError, match=pattern.format(r"data\.encoding")):
        list(labelled.pieces())
    with pytest.raises(ValueError, match=pattern.format("--encoding")):
        list(texts_of(str(path), "text"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nabc,a\n".encode("utf-16-le"), "full of null characters; it looks like utf-16-le"),
        (b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml", "is an Office document, not text; save it as plain text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a git-lfs pointer"),
    ],
)
def test_rows_of_another_format_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        open_corpus(HuggingFaceConfig(dataset="csv", data_files=str(path)), tmp_path).check()
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        list(texts_of(str(path), "text"))


def test_a_text_on_the_command_line_is_read_like_a_row(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('text\n"one\r\ntwo"\n', newline="")
    arguments = predict.parser().parse_args(["run", "--text", "\ufeffone\r\ntwo", "--file", str(tmp_path / "rows.csv")])
    assert list(_texts(arguments, {})) == ["one\ntwo"] * 2


def test_rows_without_a_text_or_a_label_are_reported(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nyes,a\n,b\nno,\n")
    corpus = open_corpus(LabelledConfig(path=str(tmp_path / "rows.csv")), tmp_path)
    with pytest.warns(UserWarning, match=r"rows\.csv: 2 of 3 rows lack a text or a label and are skipped"):
        assert [text for _, text in corpus.pieces()] == ["yes"]
    stream = HuggingFaceConfig(dataset="csv", data_files=str(tmp_path / "rows.csv"))
    with pytest.warns(UserWarning, match=r"data\.text_column=text: 1 of 3 rows have no text and are skipped"):
        assert [text for _, text in open_corpus(stream, tmp_path).pieces()] == ["yes", "no"]


def test_the_fingerprint_of_rows_depends_on_their_encoding(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nyes,a\n")
    path = str(tmp_path / "rows.csv")
    labelled = [LabelledConfig(path=path, encoding=encoding) for encoding in ("utf-8", "latin-1")]
    streams = [
        HuggingFaceConfig(dataset="csv", data_files=path, encoding=encoding) for encoding in ("utf-8", "latin-1")
    ]
    for configs in (labelled, streams):
        assert len({open_corpus(config, tmp_path).fingerprint() for config in configs}) == 2
    with pytest.raises(ValueError, match=r"data\.encoding=latin-1: requires data\.path"):
        LabelledConfig(dataset="owner/name", encoding="latin-1")
