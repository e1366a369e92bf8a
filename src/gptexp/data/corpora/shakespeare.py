"""Tiny Shakespeare: 40,000 lines, downloaded or from a local copy (`data.path`)."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

from gptexp.data.corpora.text import TextCorpus
from gptexp.util.files import atomic_write

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
BYTES = 1_115_394
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TIMEOUT = 30  # seconds


class ShakespeareCorpus(TextCorpus):
    """One document. A download must equal the published text; a local copy may differ."""

    def check(self) -> None:
        """ValueError: the local copy that `data.path` names does not exist. Downloads nothing."""
        if self.config.path is not None:
            super().check()

    def files(self) -> list[Path]:
        """Return the local copy, or the downloaded one after downloading it if necessary."""
        if self.config.path is not None:
            return super().files()
        path = self.cache / "downloads" / "tinyshakespeare.txt"
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
            atomic_write(path, _download())
        return [path]


def _download() -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=TIMEOUT) as answer:
            data: bytes = answer.read(BYTES + 1)
    except OSError as error:  # includes URLError and timeouts
        raise ValueError(
            f"data=shakespeare: {URL} can't be reached ({error}); give a local copy with data.path=…, "
            "or use data=pydocs, which needs no network"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"data=shakespeare: {URL} returned another text (SHA-256 {found}, expected {SHA256}); "
            "give a local copy with data.path=…"
        )
    return data
