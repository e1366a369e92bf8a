"""Folders of the cache: named by a fingerprint of their input, made by one process, and verified when opened."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gptexp.config.data import DataConfig
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.data import manifest
from gptexp.data.manifest import Manifest, damaged
from gptexp.tokenizers import Tokenizer, load_tokenizer
from gptexp.tokenizers.long_runs import LONGEST
from gptexp.util.files import atomic_write

TOKENIZER = "tokenizer.json"


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def request_digest(source: str, tokenizer: TokenizerConfig | Tokenizer) -> str:
    """Fingerprint of a source and of what determines the tokenizer.

    That is the tokenizer if it exists, else its settings and, for bpe, the version of the trainer.
    """
    if isinstance(tokenizer, Tokenizer):
        return digest([source, tokenizer.fingerprint])
    trainer = importlib.metadata.version("tokenizers") if tokenizer.kind == "bpe" else None
    return digest([source, [asdict(tokenizer), trainer]])


def data_fingerprint(found: Manifest) -> str:
    """Fingerprint of the tokens. The rule for cutting long words counts only for a text that has such words."""
    return digest([found.source, found.tokenizer, *([f"runs {LONGEST}"] if found.cuts_runs else [])])


def open_or_make(
    cache: Path, data: DataConfig, tokenizer: TokenizerConfig | Tokenizer, source: str, make: Callable[[Path], None]
) -> Path:
    """Return the folder of a source and tokenizer, after `make` filled it if it did not exist.

    Of processes that ask at the same time, one makes the folder and the others wait.
    """
    name = f"{data.kind}-{tokenizer.kind}-{request_digest(source, tokenizer)[:12]}"
    folder = _find(cache, data, tokenizer, source) or cache / name
    if not (folder / manifest.FILE).exists():
        with lock(folder):
            if not (folder / manifest.FILE).exists():
                print(f"preparing {data.kind} with {tokenizer.kind}: tokens go to {folder}", file=sys.stderr)
                make(folder)
    return folder


def _find(cache: Path, data: DataConfig, tokenizer: TokenizerConfig | Tokenizer, source: str) -> Path | None:
    """Return the folder that already contains this source with this tokenizer, whichever request made it."""
    if not isinstance(tokenizer, Tokenizer):
        return None
    for path in sorted(cache.glob(f"{data.kind}-{tokenizer.kind}-*/{manifest.FILE}")):
        with suppress(ValueError):
            found = Manifest.read(path.parent)
            if (found.source, found.tokenizer) == (source, tokenizer.fingerprint):
                return path.parent
    return None


def lock(folder: Path) -> AbstractContextManager[object]:
    """Acquire the lock beside the folder; print a notice if another process holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        return file.acquire(timeout=0.5)
    except Timeout:
        print(f"waiting for another process that prepares {folder.name}", file=sys.stderr)
        return file.acquire()


def read_manifest(folder: Path, source: str, *columns: str) -> Manifest:
    """Read the manifest of a folder that was made from `source` and has these columns. ValueError: it is damaged."""
    found = Manifest.read(folder)
    if found.source != source or not all({*columns} <= {*part.columns} for part in (found.train, found.val)):
        raise damaged(folder / manifest.FILE)
    return found


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Store the tokenizer of a folder atomically."""
    atomic_write(folder / TOKENIZER, json.dumps(tokenizer.state_dict()).encode())


def read_tokenizer(folder: Path, fingerprint: str | None = None) -> Tokenizer:
    """Read the tokenizer of a folder. ValueError: it is damaged, or does not have this fingerprint."""
    try:
        tokenizer = load_tokenizer(json.loads((folder / TOKENIZER).read_bytes()))
    except (OSError, ValueError):
        raise damaged(folder / TOKENIZER) from None
    if fingerprint is not None and tokenizer.fingerprint != fingerprint:
        raise damaged(folder / TOKENIZER)
    return tokenizer
