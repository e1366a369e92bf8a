"""Chinese texts: their encodings are told apart, and a wrong one can't be missed."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from gptexp.config.data import TextConfig
from gptexp.data.corpora import open_corpus
from gptexp.data.corpora._encodings import doubtful, likely_encoding

PROSE = "他们说，这个孩子从来没有见过大海。第二天早上，我们一起去了火车站，天还没有亮。\n"
TRADITIONAL = "他們說，這個孩子從來沒有見過大海。第二天早上，我們一起去了火車站，天還沒有亮。\n"
CODE = "def read(path):\n    # 打开文件，返回每一行的内容；如果文件不存在，返回空列表\n    return list(open(path))\n"
MIXED = "用 GPT-2 生成文本时，temperature 越高，结果越随机；top_k=50 只保留概率最大的 50 个 token。\n"
SHORT = "我们的第一个模型\n"
TABLE = "│ 文件 │ 内容 │\n├──────┼──────┤\n│ 第一 │ 全部的设置 │\n"
TEXTS = [PROSE, CODE, MIXED, SHORT, TABLE]
CASES = [(text, encoding) for text in TEXTS for encoding in ("gb18030", "utf-16-le", "utf-16-be")]
CASES += [(text, encoding) for text in (TRADITIONAL, "我們的第一個模型\n") for encoding in ("big5", "utf-16-le")]


def corpus(path: Path, encoding: str) -> tuple[list[str], list[str], str]:
    """The documents, the notices, and the fingerprint of a text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = open_corpus(TextConfig(path=str(path), encoding=encoding), path.parent)
        return [text for _, text in opened.pieces()], [str(one.message) for one in caught], opened.fingerprint()


@pytest.mark.parametrize("times", [1, 50])
@pytest.mark.parametrize(("text", "encoding"), CASES)
def test_each_chinese_encoding_is_recognized(text: str, encoding: str, times: int) -> None:
    sample = (text * times).encode(encoding)
    assert likely_encoding(sample[:4096], sample, "utf-8") == encoding


@pytest.mark.parametrize(("text", "encoding"), [*CASES, (PROSE, "gbk"), (PROSE, "utf-16"), (TRADITIONAL, "cp950")])
def test_the_right_encoding_gives_no_notice(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert corpus(tmp_path / "a.txt", encoding)[:2] == ([text], [])


@pytest.mark.parametrize(
    ("text", "actual", "given"),
    [
        (PROSE, "gb18030", "latin-1"),
        (TRADITIONAL, "big5", "gb18030"),
        (SHORT, "gb18030", "big5"),
        (SHORT, "utf-16-be", "utf-16-le"),
        (CODE, "utf-8", "latin-1"),
    ],
)
def test_a_wrong_encoding_without_an_error_gives_a_notice(tmp_path: Path, text: str, actual: str, given: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(actual))
    (document,), notices, _ = corpus(path, given)
    assert document != text
    assert notices == [
        f"{path}: read as data.encoding={given} it does not look like text; it looks like {actual}: "
        f"set data.encoding={actual} unless the text is right"
    ]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", "cp932"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", "euc-jp"),
        ("모든 행복한 가정은 서로 닮았지만, 불행한 가정은 저마다의 이유로 불행하다.", "cp949"),
        ("Le café était fermé, mais l’élève préférait déjà la forêt.", "cp1252"),
        ("Все счастливые семьи похожи друг на друга.", "cp1251"),
        ("plain text", "latin-1"),
    ],
)
def test_texts_of_other_languages_are_never_doubted(text: str, encoding: str) -> None:
    assert doubtful((text * 20).encode(encoding), encoding) is None


def test_auto_reads_each_file_in_its_encoding_and_names_it(tmp_path: Path) -> None:
    texts = {"1": (PROSE, "utf-8"), "2": (MIXED, "gb18030"), "3": (CODE, "gb18030"), "4": (PROSE, "utf-16")}
    for name, (text, encoding) in texts.items():
        (tmp_path / f"{name}.txt").write_bytes(text.encode(encoding))
    documents, notices, _ = corpus(tmp_path, "auto")
    assert documents == [text for text, _ in texts.values()]
    assert notices == [
        f"data.encoding=auto: read as gb18030: {tmp_path / '2.txt'}, {tmp_path / '3.txt'}; "
        "if the text is wrong, set data.encoding=",
        f"data.encoding=auto: read as utf-16: {tmp_path / '4.txt'}; if the text is wrong, set data.encoding=",
    ]


def test_auto_refuses_a_file_whose_encoding_is_uncertain(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("甪甭\n".encode("gb18030"))
    with pytest.raises(ValueError, match=r"a\.txt: byte 0 \(line 1\).*set data\.encoding= to the right one"):
        corpus(tmp_path / "a.txt", "auto")


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "utf-16-le"])
def test_auto_has_the_fingerprint_of_the_encoding_that_it_finds(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(TRADITIONAL.encode(encoding))
    assert corpus(tmp_path / "a.txt", "auto")[2] == corpus(tmp_path / "a.txt", encoding)[2]
