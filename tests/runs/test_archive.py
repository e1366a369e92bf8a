"""A torch archive is read as it was written or refused in one line, and never needs more memory than its size."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from gptexp.runs.archive import open_archive


def write(path: Path, **more: Any) -> Path:
    torch.save({"format": "f", "weights": torch.arange(6.0), **more}, path)
    return path


def content(plain: dict[str, Any]) -> list[Any]:
    return [(name, value.tolist() if isinstance(value, torch.Tensor) else value) for name, value in plain.items()]


def opened(path: Path) -> list[Any] | str:
    """The contents of a file, or the error message."""
    try:
        return content(open_archive(path))
    except ValueError as error:
        return str(error)


def pack_again(path: Path, out: Path, compression: int) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_records_are_refused_by_name(tmp_path: Path, compression: int, legacy: bool) -> None:
    pack_again(write(tmp_path / "a.ckpt"), tmp_path / "b.ckpt", compression)
    with pytest.raises(ValueError, match=r"b\.ckpt: its record '.*' is compressed, so it was not opened"):
        open_archive(tmp_path / "b.ckpt", legacy=legacy)


def test_compressed_records_are_refused_before_they_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_again(write(tmp_path / "a.ckpt", bomb="0" * 10**6), tmp_path / "b.ckpt", zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("a record was read"))
    with pytest.raises(ValueError, match="is compressed"):
        open_archive(tmp_path / "b.ckpt")


def test_repacked_uncompressed_records_are_read_correctly(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt")
    pack_again(path, tmp_path / "b.ckpt", zipfile.ZIP_STORED)
    assert content(open_archive(tmp_path / "b.ckpt")) == content(open_archive(path))


def test_any_flipped_bit_of_the_zip_directory_is_harmless_or_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt")
    whole, expected = path.read_bytes(), content(open_archive(path))
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
    for bit in range(8 * directory, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found = opened(path)
        assert found == expected if isinstance(found, list) else found.startswith(f"{path}: ")


def nested(depth: int) -> list[Any]:
    value: list[Any] = ["leaf"]
    for _ in range(depth):
        value = [value, value]
    return value


LONG = "x" * 10**6


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"config": nested(30)}, "expands to much more than the size of the file"),
        ({"config": [LONG] * 2000}, "expands to much more than the size of the file"),
        ({"config": {1: {2: {3: [nested(1)] * 3}}}, "deep": nested(1)}, ""),
        ({"weights": torch.zeros(1).expand(10**9)}, "has more numbers than the file contains"),
        ({"weights": [torch.zeros(10**4)[n % 9 :] for n in range(9)]}, ""),
        ({"weights": dict.fromkeys(map(str, range(2000)), torch.zeros(10**5))}, "expands to much more"),
        ({"weights": torch.eye(3).to_sparse()}, "more than tensors and plain data"),
        ({"weights": torch.zeros(3, device="meta")}, "more than tensors and plain data"),
        ({"weights": torch.zeros(3, dtype=torch.complex64)}, "more than tensors and plain data"),
        ({"n": 2**64}, "more than 64 bits"),
        ({"n": 10**400}, "more than 64 bits"),
        ({"n": bytearray(3)}, "more than tensors and plain data"),
        ({(1, 2): 3}, "has a key that is not a string"),
    ],
)
def test_a_small_file_cannot_claim_more_data_than_it_contains(tmp_path: Path, more: dict[Any, Any], why: str) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"format": "f", **more}, path)
    if why:
        with pytest.raises(ValueError, match=rf"a\.ckpt: .*{why}"):
            open_archive(path)
    else:
        assert open_archive(path)["format"] == "f"


def test_a_too_deeply_nested_value_is_refused(tmp_path: Path) -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(ValueError, match=r"nested more than 32 levels deep"):
        open_archive(write(tmp_path / "a.ckpt", config=value))


def _with_pickle(path: Path, pickled: bytes) -> Path:
    source = write(path.with_name("source.ckpt"))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for record in old.infolist():
            new.writestr(record.filename, pickled if record.filename.endswith("data.pkl") else old.read(record))
    return path


def test_a_key_that_is_too_expensive_to_hash_is_refused_unread(tmp_path: Path) -> None:
    key: Any = ()
    for _ in range(60):
        key = (key, key)
    head = pickle.dumps([key], protocol=2).removesuffix(b"ae.").removesuffix(b"a.")
    pickled = b"\x80\x02}" + head[2:].split(b"q\x00", 1)[1] + b"K\x01s."
    with pytest.raises(ValueError, match="refers to one tuple several times"):
        open_archive(_with_pickle(tmp_path / "a.ckpt", pickled))


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x40\x85R.",  # bytearray(2**38)
        b"\x80\x02ctorch\nTensor\nJ\x00\x00\x00\x40\x85R.",  # Tensor(2**30)
        b"\x80\x02]q\x00(K\x01K\x02e\x80\x02ccollections\nOrderedDict\nh\x00\x85R.",  # a copy of existing data
        b"\x80\x04\x95.",
        b"0",
        b"",
    ],
)
def test_a_pickle_that_allocates_what_it_names_is_refused_unread(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(ValueError, match=r"a\.ckpt: "):
        open_archive(_with_pickle(tmp_path / "a.ckpt", pickled))


def test_a_pointer_of_git_lfs_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: is a git-lfs pointer.*git lfs pull"):
        open_archive(path, legacy=True)
