"""Recognize a file that is not text in the given encoding: another format, or text in another encoding."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from gptexp.data.corpora._chinese import ENCODINGS, LEAST, chinese_encoding, could_be_chinese, share_of_frequent
from gptexp.util.files import require_no_pointer

HEAD = 4096  # bytes that are enough to recognize a format

_AS_TEXT = "save it as plain text"
_MAGIC = {
    b"%PDF-": ("a PDF document", "convert it to plain text, for example with pdftotext"),
    b"{\\rtf": ("an RTF document", _AS_TEXT),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an Office document", _AS_TEXT),
    b"\x89PNG\r\n": ("a PNG image", "give files of text"),
    b"\xff\xd8\xff": ("a JPEG image", "give files of text"),
    b"PAR1": ("a Parquet file", "data=huggingface data.dataset=parquet reads such files"),
    b"SQLite format 3\0": ("an SQLite database", "export it as text"),
}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
}
_ZIPS = {
    b"mimetypeapplication/epub+zip": ("an EPUB book", "convert it to plain text, for example with pandoc"),
    b"mimetypeapplication/vnd.oasis.opendocument": ("an OpenDocument file", _AS_TEXT),
    b"[Content_Types].xml": ("an Office document", _AS_TEXT),
    b"": ("a zip archive", "unpack it"),
}
_MARKS = {  # those of UTF-32 begin with those of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8",
}
_HAN, _KANA, _HANGUL = r"\u3400-\u9fff", r"\u3041-\u30ff", r"\uac00-\ud7a3"
_WIDE = r"\u2010-\u203b\u3000-\u303f\uff01-\uff60·×"
_QUOTES = "«»„“”‘’–—…\u00a0"
_MIXED = r"[A-Za-z][^\W\d_A-Za-z]|[^\W\d_A-Za-z][A-Za-z]"  # an accented letter beside ASCII letters
_RUSSIAN = "а-яА-ЯёЁіїєґІЇЄҐўЎ№"


@dataclass(frozen=True)
class _Looks:
    """Signs of text in an encoding, as regular expressions.

    usual: the characters beyond ASCII that it consists of. has: what it contains. never: what it does not contain.
    """

    usual: str
    has: str
    never: str = "\ufffd"


_LOOKS = {
    "cp932": _Looks(_HAN + _KANA + _WIDE, f"[{_KANA}]"),
    "euc-jp": _Looks(_HAN + _KANA + _WIDE, f"[{_KANA}]"),
    "cp949": _Looks(_HANGUL + _WIDE, f"[{_HANGUL}]{{2}}", "[，。；：！？]"),
    "cp1251": _Looks(_RUSSIAN + _QUOTES, "[ыьэюя]", f"[а-я][А-Я]|{_MIXED}"),
    "koi8-r": _Looks(_RUSSIAN, "[ыьэюя]", f"[а-я][А-Я]|{_MIXED}"),
    "cp866": _Looks(_RUSSIAN, "[ыьэюя]", f"[а-я][А-Я]|{_MIXED}"),
    "cp1253": _Looks(r"\u0386-\u03ce΄΅·" + _QUOTES, "[άέήίόύώ]", f"[α-ω][Α-Ω]|{_MIXED}"),
    "cp1255": _Looks(r"\u05b0-\u05ea" + _QUOTES, "[א-ת]{2}", _MIXED),
    "cp1256": _Looks(r"\u060c-\u06d2" + _QUOTES, "[ء-ي]{2}", _MIXED),
    # Western European languages. Signs between letters, and letters in unusual positions, indicate another encoding.
    "cp1252": _Looks(
        "àáâãäåæçèéêëìíîïñòóôõöøùúûüœßÿÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖØÙÚÛÜŒªº¿¡‚‹›€£§°©®™½¼²³´\u00ad·" + _QUOTES,
        "[^\\x00-\\x7f]",
        "[a-zß-ÿ][¿¡ªº£§°©®½¼²³€À-Þ][a-zß-ÿ]|[a-zß-ÿ][À-Þ]|õ(?!e)|ì(?=[a-zß-ÿ])|ç(?![aouàáâãóôõúû])|[ªº£§°©®½¼²³]{2}",
    ),
}
# First bytes of common Korean characters.
_COMMON_KOREAN = range(0xB0, 0xC9)


def require_text(path: Path, head: bytes, compressed: bool = False) -> None:
    """Refuse a file that is in another format by its first bytes.

    compressed: the file may be compressed, because the reader unpacks it.

    Raises:
        ValueError: what the file is, and the remedy.
    """
    require_no_pointer(path, head)
    found = next((known for magic, known in _MAGIC.items() if head.startswith(magic)), None)
    if head.startswith(b"PK\x03\x04"):
        found = next(known for name, known in _ZIPS.items() if name in head)
        found = None if compressed and found[0] == "a zip archive" else found
    if not compressed and (name := is_compressed(head)):
        found = (f"compressed ({name})", "unpack it")
    if found:
        raise ValueError(f"{path}: is {found[0]}, not text; {found[1]}")


def is_compressed(head: bytes) -> str:
    """Return the name of a file's compression; empty if it is not compressed."""
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), "")


def require_no_nulls(path: Path, text: str, head: bytes, encoding: str, setting: str) -> None:
    """Refuse text with many null characters: the bytes are in another encoding, or are not text.

    Raises:
        ValueError: the likely encoding.
    """
    if text.count("\0") * 10 > len(text) or text.startswith("\ufffe"):
        hint = advice(head, head, encoding, setting)
        raise ValueError(f"{path}: read as {setting}={encoding} it is full of null characters; {hint}")


def advice(head: bytes, sample: bytes, wrong: str, setting: str) -> str:
    """Return the remedy for bytes that are not text in the encoding `wrong`. head: the first bytes of the file."""
    if likely := likely_encoding(head, sample, wrong):
        return f"it looks like {likely}: set {setting}={likely}"
    if _is_utf8(wrong) and _mostly_utf8(sample):
        return "the text around it is utf-8, so the file is damaged there"
    if _is_binary(sample):
        return "it does not look like text"
    return f"set {setting}= to the right one, for example cp1252, cp1250, gb18030, cp932 or utf-16-le"


def likely_encoding(head: bytes, sample: bytes, wrong: str) -> str | None:
    """Return the encoding in which the sample is plausible text; None if that is not certain."""
    if marked := next((name for mark, name in _MARKS.items() if head.startswith(mark)), None):
        guess: str | None = marked
    elif b"\0" in sample:
        guess = _by_nulls(head) or chinese_encoding(head)
    elif _mostly_utf8(sample):
        guess = "utf-8"
    else:
        guess = _by_looks(sample) or _as_utf16(head)
    return guess if guess and codecs.lookup(guess).name != codecs.lookup(wrong).name else None


def doubtful(head: bytes, encoding: str) -> str | None:
    """Return the likely encoding of a file that can be decoded as `encoding`, but not to text; None without doubt.

    head: the beginning of the file. UTF-8 is never in doubt, because other text is hardly ever valid in it.
    """
    if _is_utf8(encoding):
        return None
    likely = likely_encoding(head, head, encoding)
    doubted = likely in (*ENCODINGS, "utf-8") and share_of_frequent(head, encoding) < LEAST
    return likely if doubted else None


def _by_nulls(head: bytes) -> str | None:
    """Recognize two or four bytes per character: Latin text has nulls at certain positions."""
    at = [i for i in range(4) if len(head[i::4]) and head[i::4].count(0) > 0.6 * len(head[i::4])]
    names = {(1, 3): "utf-16-le", (0, 2): "utf-16-be", (1, 2, 3): "utf-32-le", (0, 1, 2): "utf-32-be"}
    return names.get(tuple(at))


def _mostly_utf8(sample: bytes) -> bool:
    """Whether the sample, which may cut characters, has UTF-8 beyond ASCII and is nearly all UTF-8."""
    body = sample.lstrip(bytes(range(0x80, 0xC0)))
    text = codecs.getincrementaldecoder("utf-8")(errors="replace").decode(body)
    beyond = [symbol for symbol in text if symbol > "\x7f"]
    return bool(beyond) and beyond.count("\ufffd") * 10 < len(beyond)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _is_binary(sample: bytes) -> bool:
    controls = sum(sample.count(value) for value in range(32) if value not in b"\t\n\r\f\v\x1b")
    return controls * 50 > len(sample)


def _by_looks(sample: bytes) -> str | None:
    lines = sample[: sample.rfind(b"\n") + 1] or sample  # a character cut at the end would exclude the encoding
    found = [name for name in _LOOKS if _is_plausible(lines, name)]
    chinese = chinese_encoding(lines)
    if chinese and not chinese.startswith("utf-16"):
        found.append(chinese)
    elif could_be_chinese(lines):
        return None
    return found[0] if len(found) == 1 else None


def _as_utf16(head: bytes) -> str | None:
    """Recognize Chinese in UTF-16 without a null, which only the beginning of the file shows: two bytes are a unit."""
    guess = chinese_encoding(head)
    return guess if guess and guess.startswith("utf-16") else None


def _is_plausible(sample: bytes, encoding: str) -> bool:
    looks = _LOOKS[encoding]
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return False
    beyond = "".join(symbol for symbol in text if symbol > "\x7f")
    share = 1.0 if encoding == "cp1252" else 0.95
    usual = len(re.findall(f"[{looks.usual}]", beyond)) >= share * len(beyond)
    found = usual and bool(re.search(looks.has, text)) and not re.search(looks.never, text)
    return found and (encoding != "cp949" or _is_common_korean(text))


def _is_common_korean(text: str) -> bool:
    """Whether most Korean characters are common; in a wrong encoding most are rare."""
    leads = [symbol.encode("cp949")[0] for symbol in re.findall(f"[{_HANGUL}]", text)]
    return sum(lead in _COMMON_KOREAN for lead in leads) > 0.85 * len(leads)
