"""Folders of the cache: named by what made them, made by one process while the others wait, checked when opened."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gptexp.config.data import DataConfig
from gptexp.config.tokenizer import TokenizerConfig
from gptexp.tokenizers import Tokenizer, load_tokenizer
from gptexp.tokenizers.long_runs import LONGEST


def tokenizer_key(tokenizer: TokenizerConfig | Tokenizer) -> Any:
    """What decides the tokenizer: itself if it exists, else its settings and, for bpe, the trainer's version."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.fingerprint
    trainer = importlib.metadata.version("tokenizers") if tokenizer.kind == "bpe" else None
    return [asdict(tokenizer), trainer]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def data_fingerprint(source: str, tokenizer: Tokenizer, cuts_runs: bool) -> str:
    """Fingerprint of the tokens. How long runs are cut counts only for a text that has some: others have one way."""
    return digest([source, tokenizer.fingerprint, *([f"runs {LONGEST}"] if cuts_runs else [])])


def find(cache: Path, data: DataConfig, tokenizer: TokenizerConfig | Tokenizer, source: str) -> Path | None:
    """The folder that already holds this corpus by this very tokenizer, whoever trained it."""
    if not isinstance(tokenizer, Tokenizer):
        return None
    for path in sorted(cache.glob(f"{data.kind}-{tokenizer.kind}-*/manifest.json")):
        manifest = read_json(path)
        if manifest.get("source") == source and manifest.get("tokenizer") == tokenizer.fingerprint:
            return path.parent
    return None


def lock(folder: Path) -> Any:
    """The lock beside the folder, held; says so once when another process has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        return lock.acquire(timeout=0.5)
    except Timeout:
        print(f"waiting for another process that prepares {folder.name}", file=sys.stderr)
        return lock.acquire()


def saved_tokenizer(folder: Path, fingerprint: str) -> Tokenizer:
    try:
        tokenizer = load_tokenizer(read_json(folder / "tokenizer.json"))
    except ValueError:
        tokenizer = None
    if tokenizer is None or tokenizer.fingerprint != fingerprint:
        raise ValueError(f"{folder / 'tokenizer.json'} is damaged; delete the folder {folder}, it is rebuilt")
    return tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; {} where there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
