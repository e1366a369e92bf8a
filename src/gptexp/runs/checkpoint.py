"""One file that carries a run whole: weights, optimizer, step, settings, tokenizer, data fingerprint.

    format       "gptexp checkpoint"          version      1
    step         optimizer steps taken        metrics      of the last validation, and which step is best
    model        {name: tensor}: weights, tied ones once, and persistent buffers; no wrapper's prefix
    optimizer    {parameter name: {"step", "exp_avg", …: tensor}}
    config       the experiment's settings, resolved        tokenizer    its state, plain data
    data         {"fingerprint", "text_sha256"}, and what the objective must know of it: a classifier's labels
    precision    what it was trained in, where the settings may say `auto`; none in files of before it was kept
    history      which code and which learning rates trained it (gptexp.runs.history); none in older files
    callbacks    {name: {"settings", "state"}} of plug-ins that change what is computed, such as early stopping and
                 its patience; none in older files
    stopped      whether a plug-in had ended the training after this step

Everything in it is a tensor or plain data, so it opens with `weights_only=True`: a stranger's file runs
no code. It is written under another name, flushed and renamed (law 2), and a previous generation stays.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gptexp.config.training import PRECISIONS
from gptexp.runs.archive import is_format, require_weights
from gptexp.runs.history import checked
from gptexp.util.files import atomic_path, flush, fsync_dir, link, open_new, own_folder, sweep_leftovers

FORMAT = "gptexp checkpoint"
VERSION = 1

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

Plain = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """What a checkpoint file holds, in memory."""

    step: int
    model: dict[str, torch.Tensor]
    optimizer: Plain
    config: Plain
    tokenizer: Plain
    data: Plain
    metrics: Plain
    precision: str | None = None
    history: list[Plain] | None = None
    callbacks: Plain | None = None
    stopped: bool = False

    @property
    def plugins(self) -> Plain | None:
        """The settings of plug-ins that change what is computed, by name; None where the file doesn't say."""
        return None if self.callbacks is None else {name: part["settings"] for name, part in self.callbacks.items()}

    def as_plain(self) -> Plain:
        values = {name: getattr(self, name) for name in self.__slots__}
        return {"format": FORMAT, "version": VERSION, **values}


_TYPES: dict[str, type] = {
    "step": int,
    "model": dict,
    "optimizer": dict,
    "config": dict,
    "tokenizer": dict,
    "data": dict,
    "metrics": dict,
}


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically: `path` is the old file or the new one, whole, at every moment."""
    plain = _checked(checkpoint)
    with atomic_path(path, needs=_size(checkpoint)) as temporary:
        _write(plain, temporary)


def _write(plain: Plain, path: Path) -> None:
    with open_new(path) as file:
        try:
            torch.save(plain, file)
        except RuntimeError as error:  # how torch's writer reports that a write fell short
            raise OSError(errno.ENOSPC, str(error)) from None


def rotate(checkpoint: Checkpoint, folder: Path, *, best: bool) -> None:
    """Save as last.ckpt; the former last becomes previous.ckpt, and best.ckpt is a second name of the best.

    At every moment two whole generations stand, from the second save on. best.ckpt comes first: a process
    killed before last.ckpt follows takes the same steps again, and finds the same best.
    """
    sweep_leftovers(own_folder(folder))
    last, former = folder / LAST, folder / f".{LAST}.former.tmp"
    plain = _checked(checkpoint)
    with atomic_path(last, needs=_size(checkpoint)) as temporary:
        _write(plain, temporary)
        flush(temporary)
        if best:
            link(temporary, folder / BEST)  # the same step is written once
        if last.exists():
            link(last, former)
    if former.exists():
        former.replace(folder / PREVIOUS)
        fsync_dir(folder)


def _checked(checkpoint: Checkpoint) -> Plain:
    plain = checkpoint.as_plain()
    _require_plain("", plain)
    return plain


def _size(checkpoint: Checkpoint) -> int:
    """Bytes of its tensors, which are nearly all of the file."""
    return sum(t.numel() * t.element_size() for t in [*checkpoint.model.values(), *_tensors(checkpoint.optimizer)])


def _tensors(state: Plain) -> list[torch.Tensor]:
    return [value for part in state.values() for value in part.values() if isinstance(value, torch.Tensor)]


def _from_plain(path: Path, plain: Plain) -> Checkpoint:
    if not is_format(plain, FORMAT):
        raise ValueError(f"{path}: not a gptexp checkpoint")
    if not is_format(plain, FORMAT, VERSION):
        raise ValueError(f"{path}: has format {plain.get('version')}, this gptexp reads {VERSION}")
    for name, kind in _TYPES.items():
        if not isinstance(plain.get(name), kind):
            raise ValueError(f"{path}: its `{name}` is {type(plain.get(name)).__name__}, not {kind.__name__}")
    require_weights(path, plain["model"])
    _require_metrics(path, plain["metrics"])
    chosen = [name for name in PRECISIONS if name != "auto"]
    precision = plain.get("precision")
    if not (precision is None or (isinstance(precision, str) and precision in chosen)):
        raise ValueError(f"{path}: its `precision` is none of {', '.join(chosen)}")
    return Checkpoint(**{name: plain[name] for name in _TYPES}, precision=precision, **_younger(path, plain))


def _require_metrics(path: Path, metrics: Plain) -> None:
    best, sums = metrics.get("best"), metrics.get("sums")
    if not (best is None or (_are_numbers(best) and any(str(name).startswith("val/") for name in best))):
        raise ValueError(f"{path}: its `metrics` hold no score for the best step")
    numbers = {name: metrics[name] for name in ("seconds", "nats") if metrics.get(name) is not None}
    if not (_are_numbers(numbers) and (sums is None or _are_numbers(dict(enumerate(_list(sums)))))):
        raise ValueError(f"{path}: its `metrics` are not those of a checkpoint")


def _are_numbers(values: object) -> bool:
    return isinstance(values, dict) and all(type(value) in (int, float) for value in values.values())


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _younger(path: Path, plain: Plain) -> Plain:
    """The parts that files of before they were kept don't have."""
    history, callbacks, stopped = (plain.get(name) for name in ("history", "callbacks", "stopped"))
    parts = list(callbacks.values()) if isinstance(callbacks, dict) else [callbacks] * (callbacks is not None)
    whole = all(isinstance(part, dict) and isinstance(part.get("settings"), dict) for part in parts)
    if not whole or type(stopped) not in (type(None), bool):
        raise ValueError(f"{path}: its `callbacks` or `stopped` are not those of a checkpoint")
    try:
        history = None if history is None else checked(history)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return {"history": history, "callbacks": callbacks, "stopped": bool(stopped)}


def _require_plain(where: str, value: object) -> None:
    """Our own bug if it fails: numpy scalars, paths and enums would break `weights_only=True`."""
    if isinstance(value, dict):
        for key, child in value.items():
            assert type(key) in (str, int), f"{where}: key {key!r}"
            _require_plain(f"{where}.{key}", child)
    elif isinstance(value, list):
        for i, child in enumerate(value):
            _require_plain(f"{where}[{i}]", child)
    else:
        assert value is None or type(value) in (str, int, float, bool, torch.Tensor), f"{where}: {type(value)}"
