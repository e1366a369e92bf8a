"""The files of a corpus: each real file is used once, and an unreadable file is named and never skipped silently."""

from __future__ import annotations

import codecs
import os
import socket
from pathlib import Path

import pytest

from gptexp.config.data import TextConfig
from gptexp.data.corpora import open_corpus
from gptexp.data.corpora._encodings import likely_encoding
from gptexp.data.corpora._files import find_files


def names(path: object, root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in find_files(str(path))]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """books/{1,2,part/3}.txt with links: a loop, a second name of a file, and a folder elsewhere."""
    books = tmp_path / "books"
    (books / "part").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("books/1.txt", "books/2.txt", "books/part/3.txt", "elsewhere/4.txt", "beside.txt"):
        (tmp_path / name).write_text(name)
    (books / "part" / "loop").symlink_to(books)
    (books / "part" / "out").symlink_to(tmp_path)
    (books / "0 again.txt").symlink_to("1.txt")
    (books / "a link").symlink_to(tmp_path / "elsewhere")
    (books / "another link").symlink_to(tmp_path / "elsewhere")
    return books


@pytest.mark.parametrize("pattern", ["", "**/*.txt", "**/**/*.txt"])
def test_links_are_followed_and_each_real_file_counts_once(library: Path, pattern: str) -> None:
    assert names(library / pattern, library) == ["1.txt", "2.txt", "a link/4.txt", "part/3.txt"]
    assert len(find_files(str(library / "[0-9]*.txt"))) == 2  # the link is the same file as 1.txt


def test_glob_patterns_match_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import glob

    for name in ("a/1.txt", "a/b/2.txt", "a/.hidden/3.txt", ".dot.txt", "c[1]/4.txt", "a/b/c/d/5.TXT", "x.txt/6.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    for pattern in (
        "*",
        "**",
        "**/*.txt",
        "*/*",
        "a/**/d/*",
        "a/?/2.txt",
        "c[[]1]/*",
        ".*",
        "*/b/**",
        f"../{tmp_path.name}/a/*.txt",
    ):
        for start in ("", f"{tmp_path}/"):
            expected = glob.glob(start + pattern, recursive=True)  # noqa: PTH207
            assert set(find_files(start + pattern)) == {Path(n) for n in expected if Path(n).is_file()}, pattern
    assert find_files("none/**/*.txt") == find_files("a/1.txt/*") == []
    assert names(tmp_path, tmp_path) == ["a/1.txt", "a/b/2.txt", "a/b/c/d/5.TXT", "c[1]/4.txt", "x.txt/6.txt"]


@pytest.mark.parametrize("pattern", ["", "**/*.txt", "*/*.txt"])
def test_an_unreadable_folder_is_an_error(library: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    scandir = os.scandir

    def locked(folder: str) -> object:
        if str(folder).endswith("part"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(ValueError, match=r"data\.path=.*books/part: Permission denied; make it readable, or "):
        find_files(str(library / pattern))


def test_broken_links_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "gone.txt").symlink_to("nothing")
    for path in (tmp_path, tmp_path / "*.txt", tmp_path / "gone.txt"):
        with pytest.raises(ValueError, match=r"gone\.txt: No such file"):
            find_files(str(path))
    (tmp_path / "gone.txt").unlink()
    (tmp_path / "gone.txt").symlink_to("gone.txt")
    with pytest.raises(ValueError, match=r"gone\.txt: Too many levels of symbolic links"):
        find_files(str(tmp_path))


def test_pipes_and_sockets_are_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
        for path in ("pipe.txt", "socket.txt", "*.txt", ".", "/dev/zero"):
            with pytest.raises(ValueError, match="is not a regular file, and a text is read several times"):
                find_files(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("~nobody-of-this-name/x", "the home folder of ~nobody-of-this-name is unknown"),
        ("x" * 300, "the file name is too long"),
        ("a\0b", "contain a null character"),
    ],
)
def test_impossible_file_names_give_a_one_line_error(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        open_corpus(TextConfig(path=path), Path("cache")).check()
    assert "data.path=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")
    listed: list[str] = []

    def listing(path: str) -> list[Path]:
        listed.append(path)
        return find_files(path)

    monkeypatch.setattr("gptexp.data.corpora.text.find_files", listing)
    corpus = open_corpus(TextConfig(path=str(tmp_path)), tmp_path / "cache")
    corpus.check()
    corpus.fingerprint()
    assert [text for _, text in corpus.pieces()] == ["a"]
    assert len(listed) == 1


# ------------------------------------------------------------------------------ formats and encodings


def refusal(path: Path, content: bytes, encoding: str = "utf-8") -> str:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name) as caught:
        list(open_corpus(TextConfig(path=str(path), encoding=encoding), path.parent).pieces())
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.7\n...", "is a PDF document, not text; convert it to plain text"),
        (b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml", "is an Office document, not text; save it as plain text"),
        (b"PK\x03\x04" + b"\0" * 26 + b"mimetypeapplication/epub+zip", "is an EPUB book"),
        (b"PK\x03\x04" + b"\0" * 26 + b"book.txt", "is a zip archive, not text; unpack it"),
        (b"\x1f\x8b\x08\0", "is compressed (gzip), not text; unpack it"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image"),
        (b"{\\rtf1\\ansi", "is an RTF document, not text; save it as plain text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
            "is a git-lfs pointer, not the file",
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_files_of_another_format_are_named(tmp_path: Path, content: bytes, message: str, encoding: str) -> None:
    assert refusal(tmp_path / "a.txt", content, encoding).startswith(message)


@pytest.mark.parametrize("actual", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_text_full_of_null_bytes_is_refused_with_its_encoding(tmp_path: Path, actual: str) -> None:
    content = "Plain text without a byte order mark.\n".encode(actual)
    hint = f"it looks like {actual}: set data.encoding={actual}"
    assert hint in refusal(tmp_path / "a.txt", content)
    assert hint in refusal(tmp_path / "a.txt", content, "latin-1")
    (tmp_path / "one.txt").write_bytes(b"a null \0 among many other characters is text")
    corpus = open_corpus(TextConfig(path=str(tmp_path / "one.txt")), tmp_path)
    assert ["\0" in text for _, text in corpus.pieces()] == [True]


TEXTS = {
    "cp1252": "Le café était fermé, mais l’élève préférait déjà la forêt. Die Straße führt über die schöne Brücke.",
    "cp1251": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.",
    "koi8-r": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.",
    "cp1253": "Όλες οι ευτυχισμένες οικογένειες μοιάζουν μεταξύ τους.",
    "cp932": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "euc-jp": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "cp949": "모든 행복한 가정은 서로 닮았지만, 불행한 가정은 저마다의 이유로 불행하다.",
    "gb18030": "他们说哈利，波特是一个很好的孩子。话说天下大势，分久必合，合久必分。",
    "big5": "話說天下大勢，分久必合，合久必分：周末七國分爭，并入於秦。",
    "utf-16": "Le café était fermé.",
    "utf-32": "Le café était fermé.",
}
UNKNOWN = {  # decoded as cp1252, cp1251 or gb18030, these texts are garbage, so no hint is correct
    "cp1250": "Zażółć gęślą jaźń. Wczoraj poszedłem do sklepu; były świeże.",
    "iso8859-2": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "cp1254": "Bütün mutlu aileler birbirine benzer; şişe, ağaç, İstanbul, ılık, çocuk.",
    "cp1257": "Visas laimīgās ģimenes ir līdzīgas viena otrai.",
    "mac-roman": "Le café était fermé, mais l'élève préférait déjà la forêt.",
    "cp437": "Die Straße führte über die Brücke, und die Bäume blühten schön.",
}


@pytest.mark.parametrize("before", ["", "x = 1  # a line of code\n" * 40])
@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize("actual", [*TEXTS, *UNKNOWN])
def test_an_encoding_hint_is_correct_or_absent(actual: str, times: int, before: str) -> None:
    sample = (before + f"{(TEXTS | UNKNOWN)[actual]}\n" * times).encode(actual)
    for wrong in ("utf-8", "ascii"):
        assert likely_encoding(sample[:4096], sample, wrong) == (actual if actual in TEXTS else None)


def test_a_short_text_that_could_be_chinese_gets_no_hint_of_another_language() -> None:
    classical = "道可道，非常道；名可名，非常名。".encode("gb18030")  # its bytes are also valid Korean
    assert likely_encoding(classical, classical, "utf-8") == "gb18030"
    for encoding in ("gb18030", "big5", "utf-16-le", "utf-16-be"):
        sample = "可道\n".encode(encoding)
        assert likely_encoding(sample, sample, "utf-8") in (None, encoding)


def test_an_encoding_hint_never_names_the_failed_encoding(tmp_path: Path) -> None:
    assert likely_encoding(b"", TEXTS["gb18030"].encode("gb18030"), "gb18030") is None
    damaged = "他们说\n".encode() * 50 + b"\xff\n"
    assert refusal(tmp_path / "a.txt", damaged).endswith("the text around it is utf-8, so the file is damaged there")
    assert refusal(tmp_path / "b.txt", codecs.BOM_UTF8 + b"\xff\x01\x02\x03").endswith("it does not look like text")
    assert "for example cp1252, cp1250" in refusal(tmp_path / "c.txt", UNKNOWN["cp1250"].encode("cp1250"))
