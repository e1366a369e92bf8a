"""Files that torch.save wrote, opened without trust: checked before torch reads them, and bounded by their own size.

torch.load(weights_only=True) runs no code, but a small file can still ask it for hours or terabytes: compressed
records, objects that refer to one object many times, tensors whose strides are 0. All of these are refused here.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch

from gptexp.util.files import POINTER, require_no_pointer
from gptexp.util.text import first_line

Plain = dict[str, Any]

ZIP = b"PK\x03\x04"
LEGACY_PICKLES = 5  # torch's format of before 2020: magic number, version, machine, content, keys of the storages
# What tensors and plain data need; torch itself allows more, and some of that allocates whatever a file asks for.
ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16")),
    *(f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")),
}
DEEPEST = 32  # settings are nested about five deep
LEAST_VALUES = 2**16  # so many values may be found in a file of any size
EXPANSION = 4  # tied weights share a place in the file, other values have a place each
SCALARS = (type(None), bool, int, float, str)


def open_plain(path: Path, *, legacy: bool = False) -> Plain:
    """A file of tensors and plain data; nothing else is ever made of it.

    legacy: it may also have torch's format of before 2020, which is no zip.

    Raises:
        ValueError: damaged, compressed, larger than the file itself when opened, or holds more than that.
        OSError: nothing there, or not readable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(len(POINTER))
        require_no_pointer(path, start)
        zipped = start.startswith(ZIP) or not legacy
        check, what = (_check_zip, "not a whole checkpoint file") if zipped else (_check_legacy, "can't be read")
        _check_all(path, file, check, what)
    try:
        plain = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a broken pickle fails in every way that there is
        raise ValueError(f"{path}: can't be read as a checkpoint ({_line(error)})") from None
    _require_bounded(path, plain, path.stat().st_size)
    return plain if isinstance(plain, dict) else {}


def _check_all(path: Path, file: BinaryIO, check: Callable[[Path, BinaryIO], None], what: str) -> None:
    file.seek(0)
    try:
        check(path, file)
    except Refused as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # zipfile alone has six kinds for a directory that is damaged
        raise ValueError(f"{path}: {what} ({_line(error)})") from None


class Refused(ValueError):
    """Why a file isn't opened; the message completes "FILE: …"."""


# ---------------------------------------------------------------------------------- before torch reads it


def _check_zip(path: Path, file: BinaryIO) -> None:
    """Every record as it was written: stored, whole, and once. torch reads compressed ones as they lie there."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                raise Refused(
                    f"its record {record.filename!r} is compressed, so it was not opened; take the file as torch wrote "
                    "it, not packed again"
                )
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise Refused("damaged (its records overlap)")
        if len({record.filename for record in records}) < len(records):
            raise Refused("damaged (two of its records have one name)")
        if (damaged := archive.testzip()) is not None:  # torch takes a flipped bit in silence, a checksum doesn't
            raise Refused(f"damaged (record {damaged} fails its checksum)")
        pickled = [record for record in records if record.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickled) != 1:
            raise Refused("not a whole checkpoint file (it has no data.pkl)")
        _check_pickle(io.BytesIO(archive.read(pickled[0])))


def _check_legacy(path: Path, file: BinaryIO) -> None:
    for _ in range(LEGACY_PICKLES):
        _check_pickle(file)


def _check_pickle(file: BinaryIO) -> None:
    """Walk through a pickle without carrying it out, keeping track only of tuples, which are hashed as keys.

    A tuple of tuples that are all one object takes as long to hash as the tree that it stands for.
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
    """What an operation takes from the stack."""
    before = operation.stack_before
    if pickletools.markobject in before:
        bottom = marks.pop() - before.index(pickletools.markobject)
    else:
        bottom = len(stack) - len(before)
    yield from stack[bottom:]
    del stack[bottom:]


def _require_known(name: str, argument: Any, taken: list[Any]) -> None:
    """Refuse what would make anything but tensors and plain data, or copies of what is there already."""
    if name in ("GLOBAL", "STACK_GLOBAL", "INST") and argument not in ALLOWED:
        what = f" ({argument.replace(' ', '.')})" if argument else ""
        raise Refused(f"holds more than tensors and plain data{what}, so it was not opened")
    if name.startswith("LONG") and abs(argument) >= 2**64 and argument != torch.serialization.MAGIC_NUMBER:
        raise Refused("holds a number of more than 64 bits, so it was not opened")  # millions may share one hash
    if name == "REDUCE" and taken[0] == "collections OrderedDict" and taken[1] != "empty":
        raise Refused("holds a copy of a dictionary, so it was not opened")


def _made(name: str, argument: Any, taken: list[Any]) -> list[Any]:
    """What an operation leaves on the stack, as far as it matters."""
    if name == "GLOBAL":
        return [argument]
    if name == "EMPTY_TUPLE":
        return ["empty"]
    if name.startswith("TUPLE"):
        return ["tuple" if taken else "empty"]
    if name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
        return taken[:1]
    return [] if name in ("PROTO", "STOP", "POP", "POP_MARK") else [None]


# ---------------------------------------------------------------------------------- after


def _require_bounded(path: Path, plain: object, size: int) -> None:
    """Refuse what is larger than its file: values that stand in many places, tensors that share their numbers."""
    values, numbers = max(LEAST_VALUES, size), EXPANSION * size
    pending: list[tuple[str, Any, int]] = [("its content", plain, 0)]
    while pending:
        name, value, depth = pending.pop()
        values -= 1 + (len(value) // 64 if isinstance(value, str) else 0)
        if isinstance(value, torch.Tensor):
            require_dense(path, name, value)
            numbers -= value.numel() * value.element_size()
        elif isinstance(value, (dict, list, tuple)):
            pending += [(child, item, depth + 1) for child, item in _children(path, name, value)]
        elif type(value) not in SCALARS or (type(value) is int and not -(2**63) <= value < 2**64):
            raise ValueError(f"{path}: {name} is no plain value, so it was not opened")
        if depth > DEEPEST:
            raise ValueError(f"{path}: is nested more than {DEEPEST} deep, so it was not opened")
        if values < 0 or numbers < 0:
            raise ValueError(f"{path}: stands for much more than the file holds, so it was not opened")


def _children(path: Path, name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield from ((name, item) for item in value)
        return
    for key, item in value.items():
        if type(key) not in (str, int, float, bool, type(None)):
            raise ValueError(f"{path}: {name} has a key that is no text, so it was not opened")
        yield (key if isinstance(key, str) else name), item


def require_dense(path: Path, name: object, value: object) -> None:
    """Refuse what is no named tensor of real numbers on the CPU, each with a place of its own in the file.

    A stride of 0 lets a file of a kilobyte stand for terabytes, which the first copy would ask for.
    """
    if not isinstance(name, str) or not isinstance(value, torch.Tensor) or not _is_dense(value):
        _refuse_tensor(path, name)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"{path}: {name} has more numbers than the file holds")


def is_format(plain: Plain, name: str, version: int | None = None) -> bool:
    """Whether a file says of itself that it is of this format, and of this version of it."""
    found = plain.get("format"), plain.get("version")
    same = isinstance(found[0], str) and found[0] == name
    return same and (version is None or (type(found[1]) is int and found[1] == version))


def require_weights(path: Path, model: Plain) -> None:
    """Refuse what is no set of named, dense tensors, those of real numbers all of one type."""
    for name, value in model.items():
        require_dense(path, name, value)
    types = {value.dtype for value in model.values() if value.is_floating_point()}
    if len(types) > 1:
        raise ValueError(f"{path}: its `model` holds tensors of {' and '.join(sorted(map(str, types)))}")


def _refuse_tensor(path: Path, name: object) -> NoReturn:
    raise ValueError(f"{path}: its `model` holds {name}, which is no dense tensor of real numbers on the CPU")


def _is_dense(value: torch.Tensor) -> bool:
    plain = value.layout == torch.strided and value.device.type == "cpu"
    return plain and not value.is_complex() and not value.is_quantized


def _line(error: BaseException) -> str:
    return first_line(error)[:200]
