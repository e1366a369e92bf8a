from __future__ import annotations

import pickle
import resource
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gptexp.data.shards import ShardWriter, TokenStore
from gptexp.util.files import DiskFullError, atomic_path, atomic_write


def store_of(folder: Path, tokens: np.ndarray, vocab_size: int = 1000, shard_tokens: int = 10) -> TokenStore:
    with ShardWriter(folder, "train", vocab_size, shard_tokens) as writer:
        for part in np.array_split(tokens, 4):
            writer.write(part)
    return TokenStore(folder, writer.shards, writer.dtype)


def test_tokens_are_read_across_shard_boundaries(tmp_path: Path) -> None:
    tokens = np.arange(37)
    store = store_of(tmp_path, tokens)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train-0000{i}.bin" for i in range(4)]
    assert len(store) == 37
    for start in range(38):
        for stop in range(start, 40):
            assert store.read(start, stop).tolist() == tokens[start:stop].tolist()
            assert store[start:stop].tolist() == tokens[start:stop].tolist()
    store.verify()


def test_windows_wrap_around_the_end(tmp_path: Path) -> None:
    store = store_of(tmp_path, np.arange(37))
    windows = store.windows(np.array([0, 8, 30, 36]), 15)
    assert windows.dtype == np.int64
    assert windows.tolist() == [[(start + i) % 37 for i in range(15)] for start in (0, 8, 30, 36)]
    assert store_of(tmp_path / "small", np.arange(3)).windows(np.array([2]), 8).tolist() == [[2, 0, 1, 2, 0, 1, 2, 0]]


def test_the_first_part_of_a_store_is_a_store(tmp_path: Path) -> None:
    head = store_of(tmp_path, np.arange(37)).head(23)
    for store in (head, pickle.loads(pickle.dumps(head))):
        assert len(store) == 23
        assert store.read(18, 99).tolist() == [18, 19, 20, 21, 22]
        assert store.windows(np.array([20]), 5).tolist() == [[20, 21, 22, 0, 1]]


@pytest.mark.parametrize(("vocab_size", "width"), [(65536, 2), (65537, 4)])
def test_tokens_use_the_smallest_type_in_little_endian(tmp_path: Path, vocab_size: int, width: int) -> None:
    store_of(tmp_path, np.array([1, 2, vocab_size - 1]), vocab_size)
    data = (tmp_path / "train-00000.bin").read_bytes()
    assert data == b"".join(value.to_bytes(width, "little") for value in (1, 2, vocab_size - 1))


@pytest.mark.parametrize("wrong", [-1, 1000])
def test_tokens_beyond_the_vocabulary_are_not_stored(tmp_path: Path, wrong: int) -> None:
    with pytest.raises(ValueError, match="vocab_size=1000"):
        store_of(tmp_path, np.array([1, wrong, 3, 4]))
    assert list(tmp_path.iterdir()) == []


def test_an_altered_shard_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, np.arange(37))
    path = tmp_path / "train-00002.bin"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"train-00002\.bin has changed.*delete the folder {tmp_path}"):
        store.verify()


def test_a_truncated_or_missing_shard_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, np.arange(37))
    path = tmp_path / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"train-00001\.bin has 18 bytes, expected 20"):
        TokenStore(tmp_path, store.shards, store.dtype)
    path.unlink()
    with pytest.raises(ValueError, match=r"train-00001\.bin is missing"):
        TokenStore(tmp_path, store.shards, store.dtype)


def test_a_store_can_be_sent_to_worker_processes(tmp_path: Path) -> None:
    store = store_of(tmp_path, np.arange(37))
    data = pickle.dumps(store)
    assert len(data) < 2000
    assert pickle.loads(data).read(0, 37).tolist() == list(range(37))


def test_a_writer_resumes_from_its_saved_state(tmp_path: Path) -> None:
    states = []
    with suppress(KeyboardInterrupt), ShardWriter(tmp_path, "train", 1000, 10) as writer:
        writer.write(np.arange(25))
        states.append(writer.state_dict())
        writer.write(np.arange(3))
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-00000.bin", "train-00001.bin"]
    with ShardWriter(tmp_path, "train", 1000, 10) as resumed:
        resumed.load_state_dict(states[0])
        resumed.write(np.arange(25, 37))
    assert resumed.shards == store_of(tmp_path / "whole", np.arange(37)).shards


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    atomic_write(path, b"old")
    with suppress(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_names_file_and_size(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # writing more than this limit fails as on a full disk
    try:
        with pytest.raises(DiskFullError, match=r"/file: the disk is full; the file needs 5,000 bytes"):
            atomic_write(tmp_path / "file", b"x" * 5000)
        with pytest.raises(DiskFullError, match=r"train-00000\.bin"):
            store_of(tmp_path, np.arange(100_000), 100_000, 10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
