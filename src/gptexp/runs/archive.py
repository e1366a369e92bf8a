"""Loading untrusted files of torch.save: checked before torch reads them, with memory bounded by the file's size.

torch.load(weights_only=True) executes no code, but a small file can still cost it hours or terabytes, with compressed
records, many references to one object, or tensors with strides of 0. This module refuses all of these.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch

from gptexp.util.files import LFS_POINTER, require_no_pointer
from gptexp.util.text import first_line

PlainData = dict[str, Any]  # tensors, numbers, strings, and lists and dictionaries of them

ZIP = b"PK\x03\x04"
LEGACY_PICKLES = 5  # torch's format before 2020: magic number, version, machine, content, storage keys
# What tensors and plain data need. torch allows more, and some of that allocates any size that a file names.
ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16")),
    *(f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")),
}
MAX_DEPTH = 32  # settings have about five levels
MIN_VALUES = 2**16  # values that a file of any size may contain
EXPANSION = 4  # bytes of tensors per byte of the file: tied weights share their storage
SCALARS = (type(None), bool, int, float, str)


def open_archive(path: Path, *, legacy: bool = False) -> PlainData:
    """Return the content of an untrusted file of tensors and plain data.

    legacy: also accept torch's format before 2020, which is not a zip archive.

    Raises:
        ValueError: the file is damaged or compressed, contains other objects, or expands beyond its size.
        OSError: the file is missing or unreadable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
        require_no_pointer(path, start)
        zipped = start.startswith(ZIP) or not legacy
        check, what = (_check_zip, "not a complete checkpoint file") if zipped else (_check_legacy, "can't be read")
        _check_all(path, file, check, what)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a broken pickle raises exceptions of any kind
        raise ValueError(f"{path}: can't be read as a checkpoint ({_line(error)})") from None
    _require_bounded(path, content, path.stat().st_size)
    return content if isinstance(content, dict) else {}


def _check_all(path: Path, file: BinaryIO, check: Callable[[Path, BinaryIO], None], what: str) -> None:
    file.seek(0)
    try:
        check(path, file)
    except Refused as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # zipfile raises six kinds for a damaged directory
        raise ValueError(f"{path}: {what} ({_line(error)})") from None


class Refused(ValueError):
    """The reason why a file is not opened; the message completes "FILE: …"."""


# ---------------------------------------------------------------------------------- before torch reads the file


def _check_zip(path: Path, file: BinaryIO) -> None:
    """Refuse records that are compressed, damaged, duplicated or overlapping."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                raise Refused(
                    f"its record {record.filename!r} is compressed, so it was not opened; use the file as torch "
                    "wrote it"
                )
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise Refused("damaged (its records overlap)")
        if len({record.filename for record in records}) < len(records):
            raise Refused("damaged (two of its records have one name)")
        if (damaged := archive.testzip()) is not None:  # torch does not check it
            raise Refused(f"damaged (record {damaged} fails its checksum)")
        pickled = [record for record in records if record.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickled) != 1:
            raise Refused("not a complete checkpoint file (it has no data.pkl)")
        _check_pickle(io.BytesIO(archive.read(pickled[0])))


def _check_legacy(path: Path, file: BinaryIO) -> None:
    for _ in range(LEGACY_PICKLES):
        _check_pickle(file)


def _check_pickle(file: BinaryIO) -> None:
    """Check the operations of a pickle without executing them, and track the tuples on its stack.

    Tuples are hashed as keys: a tuple of tuples that all refer to one object takes exponential time to hash.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    operation: pickletools.OpcodeInfo
    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if memo[argument] == "tuple":
                raise Refused("refers to one tuple several times, which no checkpoint does, so it was not opened")
            stack.append(memo[argument])
        else:
            taken = list(_taken(operation, stack, marks))
            _require_known(name, argument, taken)
            stack.extend(_made(name, argument, taken))


def _taken(operation: pickletools.OpcodeInfo, stack: list[Any], marks: list[int]) -> Iterator[Any]:
    """Pop and yield the arguments of an operation."""
    before = operation.stack_before
    if pickletools.markobject in before:
        bottom = marks.pop() - before.index(pickletools.markobject)
    else:
        bottom = len(stack) - len(before)
    yield from stack[bottom:]
    del stack[bottom:]


def _require_known(name: str, argument: Any, taken: list[Any]) -> None:
    """Refuse an operation that creates other objects than tensors and plain data, or copies of a dictionary."""
    if name in ("GLOBAL", "STACK_GLOBAL", "INST") and argument not in ALLOWED:
        what = f" ({argument.replace(' ', '.')})" if argument else ""
        raise Refused(f"contains more than tensors and plain data{what}, so it was not opened")
    if name.startswith("LONG") and abs(argument) >= 2**64 and argument != torch.serialization.MAGIC_NUMBER:
        raise Refused("contains a number of more than 64 bits, so it was not opened")  # millions may have one hash
    if name == "REDUCE" and taken[0] == "collections OrderedDict" and taken[1] != "empty":
        raise Refused("contains a copy of a dictionary, so it was not opened")


def _made(name: str, argument: Any, taken: list[Any]) -> list[Any]:
    """Return what an operation pushes, as far as the checks need it."""
    if name == "GLOBAL":
        return [argument]
    if name == "EMPTY_TUPLE":
        return ["empty"]
    if name.startswith("TUPLE"):
        return ["tuple" if taken else "empty"]
    if name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
        return taken[:1]
    return [] if name in ("PROTO", "STOP", "POP", "POP_MARK") else [None]


# ---------------------------------------------------------------------------------- after torch has read the file


def _require_bounded(path: Path, content: object, size: int) -> None:
    """Refuse content that is much larger than its file: repeated values, tensors that share storage."""
    values, numbers = max(MIN_VALUES, size), EXPANSION * size
    pending: list[tuple[str, Any, int]] = [("its content", content, 0)]
    while pending:
        name, value, depth = pending.pop()
        values -= 1 + (len(value) // 64 if isinstance(value, str) else 0)
        if isinstance(value, torch.Tensor):
            require_dense(path, name, value)
            numbers -= value.numel() * value.element_size()
        elif isinstance(value, (dict, list, tuple)):
            pending += [(child, item, depth + 1) for child, item in _children(path, name, value)]
        elif type(value) not in SCALARS or (type(value) is int and not -(2**63) <= value < 2**64):
            raise ValueError(f"{path}: {name} is not a plain value, so it was not opened")
        if depth > MAX_DEPTH:
            raise ValueError(f"{path}: is nested more than {MAX_DEPTH} levels deep, so it was not opened")
        if values < 0 or numbers < 0:
            raise ValueError(f"{path}: expands to much more than the size of the file, so it was not opened")


def _children(path: Path, name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield from ((name, item) for item in value)
        return
    for key, item in value.items():
        if type(key) not in (str, int, float, bool, type(None)):
            raise ValueError(f"{path}: {name} has a key that is not a string, so it was not opened")
        yield (key if isinstance(key, str) else name), item


def require_dense(path: Path, name: object, value: object) -> None:
    """Refuse anything but a named, dense tensor of real numbers on the CPU that the file stores in full.

    With a stride of 0 a file of a kilobyte describes a tensor of terabytes, which the first copy would allocate.
    """
    if not isinstance(name, str) or not isinstance(value, torch.Tensor) or not _is_dense(value):
        _refuse_tensor(path, name)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"{path}: {name} has more numbers than the file contains")


def is_format(plain: PlainData, name: str, version: int | None = None) -> bool:
    """Return whether a file has this format, and this version of it."""
    found, its_version = plain.get("format"), plain.get("version")
    same = isinstance(found, str) and found == name
    return same and (version is None or (type(its_version) is int and its_version == version))


def require_weights(path: Path, model: PlainData) -> None:
    """Refuse a model unless it has only named, dense tensors, with one floating-point type."""
    for name, value in model.items():
        require_dense(path, name, value)
    types = {value.dtype for value in model.values() if value.is_floating_point()}
    if len(types) > 1:
        raise ValueError(f"{path}: its `model` contains tensors of {' and '.join(sorted(map(str, types)))}")


def _refuse_tensor(path: Path, name: object) -> NoReturn:
    raise ValueError(f"{path}: its `model` contains {name}, which is not a dense tensor of real numbers on the CPU")


def _is_dense(value: torch.Tensor) -> bool:
    strided = value.layout == torch.strided and value.device.type == "cpu"
    return strided and not value.is_complex() and not value.is_quantized


def _line(error: BaseException) -> str:
    return first_line(error)[:200]
