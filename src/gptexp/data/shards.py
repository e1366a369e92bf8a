"""Token shards: raw little-endian files of token ids, written atomically and memory-mapped."""

from __future__ import annotations

import base64
import hashlib
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import xxhash

from gptexp.util.files import atomic_path

SHARD_TOKENS = 2**26


@dataclass(frozen=True, slots=True)
class Shard:
    """One complete file of tokens."""

    file: str
    tokens: int
    xxh3_128: str


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest unsigned type for all ids: uint16 up to 65,536 tokens, else uint32; little-endian."""
    return np.dtype("<u2" if vocab_size <= 65536 else "<u4")


class ShardWriter:
    """Writes <folder>/<prefix>-00000.bin, -00001.bin … with shard_tokens tokens each; the last may be shorter.

    A context manager: the last shard is completed at the end, and dropped after an error. A shard gets its name when it
    is complete.
    """

    def __init__(self, folder: Path, prefix: str, vocab_size: int, shard_tokens: int | None = None) -> None:
        self.folder, self.prefix, self.vocab_size = folder, prefix, vocab_size
        self.shard_tokens = SHARD_TOKENS if shard_tokens is None else shard_tokens
        self.dtype = token_dtype(vocab_size)
        self.shards: list[Shard] = []
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._filled = 0

    def __len__(self) -> int:
        return sum(shard.tokens for shard in self.shards) + self._filled

    def write(self, tokens: np.ndarray) -> None:
        """Append tokens (n,) of any integer type."""
        if tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) >= self.vocab_size):
            raise ValueError(f"tokens from {tokens.min()} to {tokens.max()} do not fit vocab_size={self.vocab_size}")
        while len(tokens):
            part = tokens[: self.shard_tokens - self._filled]
            self._append(part.astype(self.dtype))
            tokens = tokens[len(part) :]

    def state_dict(self) -> dict[str, Any]:
        """Return the complete shards and the tokens of the unfinished one, as plain data."""
        pending = b""
        if self._file is not None:
            self._file.flush()
            pending = self._temporary.read_bytes()
        return {"shards": [asdict(shard) for shard in self.shards], "pending": base64.b64encode(pending).decode()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another writer, whose complete shards are in the folder."""
        self.shards = [Shard(**shard) for shard in state["shards"]]
        self.write(np.frombuffer(base64.b64decode(state["pending"]), dtype=self.dtype))

    def _append(self, tokens: np.ndarray) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None
        data = tokens.tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._filled += len(tokens)
        if self._filled == self.shard_tokens:
            self._finish()

    def _open(self) -> None:
        self._name = f"{self.prefix}-{len(self.shards):05d}.bin"
        self._hash = xxhash.xxh3_128()
        self._temporary = self._stack.enter_context(atomic_path(self.folder / self._name))
        self._file = self._stack.enter_context(self._temporary.open("wb"))

    def _finish(self) -> None:
        self._stack.close()
        self.shards.append(Shard(self._name, self._filled, self._hash.hexdigest()))
        self._file, self._filled = None, 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            if self._file is not None:
                self._finish()
        else:
            self._stack.__exit__(kind, error, trace)
        return False


class TokenStore:
    """A read-only sequence of token ids over memory-mapped shards; cheap to pickle for loader workers."""

    def __init__(self, folder: Path, shards: list[Shard], dtype: str | np.dtype, length: int | None = None) -> None:
        """Map the shards; length: use only this many tokens.

        Raises:
            ValueError: a shard is missing or has the wrong size.
        """
        self.folder, self.shards, self.dtype = Path(folder), list(shards), np.dtype(dtype)
        for shard in self.shards:
            self._check_size(shard)
        self._arrays = [self._map(shard) for shard in self.shards]
        self._ends = np.cumsum([0] + [shard.tokens for shard in self.shards])
        self._length = int(self._ends[-1]) if length is None else min(length, int(self._ends[-1]))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice) -> np.ndarray:
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError(f"step={step}: a TokenStore can only be sliced in steps of 1")
        return self.read(start, stop)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return tokens start … stop - 1 across shards, at most to the end of the store, in the dtype of the store."""
        start, stop = max(start, 0), min(stop, len(self))
        if stop <= start:
            return np.empty(0, dtype=self.dtype)
        first = int(np.searchsorted(self._ends, start, side="right")) - 1
        if stop <= self._ends[first + 1]:
            return self._arrays[first][start - self._ends[first] : stop - self._ends[first]]
        parts = []
        while start < stop:
            end = min(stop, int(self._ends[first + 1]))
            parts.append(self._arrays[first][start - self._ends[first] : end - self._ends[first]])
            start, first = end, first + 1
        return np.concatenate(parts)

    def head(self, count: int) -> TokenStore:
        """Return a store of the first `count` tokens, over the same files."""
        return TokenStore(self.folder, self.shards, self.dtype, min(count, len(self)))

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return the windows at `starts`, (len(starts), length) int64; the first token follows the last one."""
        result = np.empty((len(starts), length), dtype=np.int64)
        starts = starts % len(self)
        shards = np.searchsorted(self._ends, starts, side="right") - 1
        whole = starts + length <= np.minimum(self._ends[shards + 1], len(self))
        places = zip(starts.tolist(), shards.tolist(), (starts - self._ends[shards]).tolist(), strict=True)
        for row, fits, (start, shard, first) in zip(result, whole.tolist(), places, strict=True):
            if fits:
                row[:] = self._arrays[shard][first : first + length]
            else:
                self._fill(row, start)
        return result

    def verify(self) -> None:
        """Compare every shard with its recorded size and checksum. ValueError: the first that differs."""
        for shard in self.shards:
            self._check_size(shard)
            with (self.folder / shard.file).open("rb") as file:  # not mapped, because mapped pages would stay in memory
                found = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
            if found != shard.xxh3_128:
                raise self._damaged(shard, f"has changed: xxh3_128 {found}, expected {shard.xxh3_128}")

    def _fill(self, row: np.ndarray, start: int) -> None:
        filled = 0
        while filled < len(row):
            part = self.read(start, start + len(row) - filled)
            row[filled : filled + len(part)] = part
            filled, start = filled + len(part), 0

    def _check_size(self, shard: Shard) -> None:
        path, expected = self.folder / shard.file, shard.tokens * self.dtype.itemsize
        if not path.is_file():
            raise self._damaged(shard, f"is missing; expected {expected:,} bytes")
        if (found := path.stat().st_size) != expected:
            raise self._damaged(shard, f"has {found:,} bytes, expected {expected:,}")

    def _damaged(self, shard: Shard, what: str) -> ValueError:
        return ValueError(f"{self.folder / shard.file} {what}; delete the folder {self.folder}, it is rebuilt")

    def _map(self, shard: Shard) -> np.ndarray:
        # An ndarray view, because slicing np.memmap takes three times as long.
        return np.memmap(self.folder / shard.file, dtype=self.dtype, mode="r").view(np.ndarray)

    def __getstate__(self) -> tuple[Path, list[Shard], str, int]:
        return self.folder, self.shards, self.dtype.str, len(self)

    def __setstate__(self, state: tuple[Path, list[Shard], str, int]) -> None:
        TokenStore.__init__(self, *state)
