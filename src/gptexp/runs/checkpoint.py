"""A checkpoint: one self-contained file with weights, optimizer state, settings, tokenizer and data fingerprint.

    format       "gptexp checkpoint"          version      1
    step         optimizer steps taken        metrics      of the last validation, and the best step
    model        {name: tensor}: weights (tied ones once) and persistent buffers
    optimizer    {parameter name: {"step", "exp_avg", …: tensor}}
    config       settings of the experiment, resolved
    tokenizer    its state as plain data
    data         {"fingerprint", "text_sha256"}, and facts for the objective, such as a classifier's labels
    precision    of the training, where the settings may say `auto`
    history      code and learning rates of each step (gptexp.runs.history)
    callbacks    {name: {"settings", "state"}} of plug-ins that affect the computation, such as early stopping
    stopped      whether a plug-in ended the training after this step
    shared       what another job of the sweep needs to continue from here (gptexp.training.prefixes); usually None
    packages     {group: name and version} of installed packages that the kinds of settings come from

A file contains only tensors and plain data, so loading an untrusted checkpoint executes no code. A key that an older
file lacks has the default of `Checkpoint`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gptexp.config.kinds import require_installed
from gptexp.runs.archive import PlainData, is_format, require_weights
from gptexp.runs.history import Segment, checked
from gptexp.runs.layout import BEST, LAST, PREVIOUS
from gptexp.util.files import atomic_path, flush, fsync_dir, link, make_folder, open_new, sweep_leftovers
from gptexp.util.options import PRECISIONS

FORMAT = "gptexp checkpoint"
VERSION = 1


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """The content of a checkpoint file."""

    step: int
    model: dict[str, torch.Tensor]
    optimizer: PlainData
    config: PlainData
    tokenizer: PlainData
    data: PlainData
    metrics: PlainData
    precision: str | None = None
    history: list[Segment] | None = None
    callbacks: PlainData | None = None
    stopped: bool = False
    shared: PlainData | None = None
    packages: PlainData | None = None

    def require_installed(self, source: object, **kinds: object) -> None:
        """Refuse kinds, by group, that are not installed, naming the package that this checkpoint records."""
        require_installed(kinds, self.packages, source)

    @property
    def plugins(self) -> PlainData | None:
        """The settings of plug-ins that affect the computation, by name; None in older files."""
        return None if self.callbacks is None else {name: part["settings"] for name, part in self.callbacks.items()}

    def as_plain(self) -> PlainData:
        values = {name: getattr(self, name) for name in self.__slots__}
        return {"format": FORMAT, "version": VERSION, **values}


_REQUIRED: dict[str, type] = {
    "step": int,
    "model": dict,
    "optimizer": dict,
    "config": dict,
    "tokenizer": dict,
    "data": dict,
    "metrics": dict,
}


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: at every moment `path` is the complete old file or the complete new one."""
    plain = _checked(checkpoint)
    with atomic_path(path, needs=_size(checkpoint)) as temporary:
        _write(plain, temporary)


def _write(plain: PlainData, path: Path) -> None:
    with open_new(path) as file:
        try:
            torch.save(plain, file)
        except RuntimeError as error:  # torch reports an incomplete write like this
            raise OSError(errno.ENOSPC, str(error)) from None


def rotate(checkpoint: Checkpoint, folder: Path, *, best: bool, also: Iterable[str] = ()) -> None:
    """Save as last.ckpt and rename the former last.ckpt to previous.ckpt.

    best: also hard-link the file as best.ckpt (or copy it). also: further such names. This comes before last.ckpt: a
    process killed in between repeats the same steps when resumed and finds the same best. From the second save on, two
    complete generations exist at every moment.
    """
    sweep_leftovers(make_folder(folder))
    last, former = folder / LAST, folder / f".{LAST}.former.tmp"
    plain = _checked(checkpoint)
    with atomic_path(last, needs=_size(checkpoint)) as temporary:
        _write(plain, temporary)
        flush(temporary)
        for name in [*([BEST] if best else []), *also]:
            link(temporary, folder / name)  # written once, with several names
        if last.exists():
            link(last, former)
    if former.exists():
        former.replace(folder / PREVIOUS)
        fsync_dir(folder)


def _checked(checkpoint: Checkpoint) -> PlainData:
    plain = checkpoint.as_plain()
    _require_plain("", plain)
    return plain


def _size(checkpoint: Checkpoint) -> int:
    """Return the bytes of the tensors, which are nearly the whole file."""
    return sum(t.numel() * t.element_size() for t in [*checkpoint.model.values(), *_tensors(checkpoint.optimizer)])


def _tensors(state: PlainData) -> list[torch.Tensor]:
    return [value for part in state.values() for value in part.values() if isinstance(value, torch.Tensor)]


def from_plain(path: Path, plain: PlainData) -> Checkpoint:
    """Check the content of the file `path` and return it as a checkpoint.

    Raises:
        ValueError: not a checkpoint, or of a later version.
    """
    if not is_format(plain, FORMAT):
        raise ValueError(f"{path}: not a gptexp checkpoint")
    if not is_format(plain, FORMAT, VERSION):
        raise ValueError(f"{path}: has format {plain.get('version')}, this gptexp reads {VERSION}")
    for name, kind in _REQUIRED.items():
        if not isinstance(plain.get(name), kind):
            raise ValueError(f"{path}: its `{name}` is {type(plain.get(name)).__name__}, not {kind.__name__}")
    require_weights(path, plain["model"])
    _require_metrics(path, plain["metrics"])
    chosen = [name for name in PRECISIONS if name != "auto"]
    precision = plain.get("precision")
    if not (precision is None or (isinstance(precision, str) and precision in chosen)):
        raise ValueError(f"{path}: its `precision` is not one of {', '.join(chosen)}")
    return Checkpoint(**{name: plain[name] for name in _REQUIRED}, precision=precision, **_optional(path, plain))


def _require_metrics(path: Path, metrics: PlainData) -> None:
    best, sums = metrics.get("best"), metrics.get("sums")
    if not (best is None or (_are_numbers(best) and any(str(name).startswith("val/") for name in best))):
        raise ValueError(f"{path}: its `metrics` have no score for the best step")
    numbers = {name: metrics[name] for name in ("seconds", "nats", "inherited") if metrics.get(name) is not None}
    if not (_are_numbers(numbers) and (sums is None or _are_numbers(dict(enumerate(_list(sums)))))):
        raise ValueError(f"{path}: its `metrics` are not those of a checkpoint")


def _are_numbers(values: object) -> bool:
    return isinstance(values, dict) and all(type(value) in (int, float) for value in values.values())


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _optional(path: Path, plain: PlainData) -> PlainData:
    """Return the parts that older files lack."""
    history, callbacks, stopped = (plain.get(name) for name in ("history", "callbacks", "stopped"))
    parts = list(callbacks.values()) if isinstance(callbacks, dict) else [callbacks] * (callbacks is not None)
    valid = all(isinstance(part, dict) and isinstance(part.get("settings"), dict) for part in parts)
    if not valid or type(stopped) not in (type(None), bool):
        raise ValueError(f"{path}: its `callbacks` or `stopped` are not those of a checkpoint")
    try:
        history = None if history is None else checked(history)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    shared, packages = plain.get("shared"), plain.get("packages")
    if not isinstance(shared, (dict, type(None))):
        raise ValueError(f"{path}: its `shared` is {type(shared).__name__}, not dict")
    if not isinstance(packages, (dict, type(None))):
        raise ValueError(f"{path}: its `packages` are not those of a checkpoint")
    further = {"shared": shared, "packages": packages}
    return {"history": history, "callbacks": callbacks, "stopped": bool(stopped), **further}


def _require_plain(where: str, value: object) -> None:
    """Assert that a value is plain data: NumPy scalars, paths and enums would break `weights_only=True`."""
    if isinstance(value, dict):
        for key, child in value.items():
            assert type(key) in (str, int), f"{where}: key {key!r}"
            _require_plain(f"{where}.{key}", child)
    elif isinstance(value, list):
        for i, child in enumerate(value):
            _require_plain(f"{where}[{i}]", child)
    else:
        assert value is None or type(value) in (str, int, float, bool, torch.Tensor), f"{where}: {type(value)}"
