"""Opening a checkpoint file or a folder in Hugging Face's form."""

from __future__ import annotations

import warnings
from pathlib import Path

from gptexp.runs.archive import open_plain
from gptexp.runs.checkpoint import LAST, PREVIOUS, Checkpoint, _from_plain


def load(path: Path) -> Checkpoint:
    """Open a checkpoint, or a folder in Hugging Face's form; no code in it can run.

    Raises:
        ValueError: not a checkpoint, damaged (the record is named), or of a later format.
        FileNotFoundError: nothing there.
    """
    if Path(path).is_dir():
        from gptexp.runs.huggingface.weights import load_folder

        return load_folder(Path(path))
    return _from_plain(Path(path), open_plain(Path(path)))


def open_checkpoint(path: Path) -> Checkpoint:
    """`load`, but where a run's last checkpoint is damaged the generation before it, with a notice.

    Raises:
        ValueError: as `load`; with the remedy where no generation can be read.
        FileNotFoundError: nothing there.
    """
    try:
        return load(path)
    except ValueError as error:
        if path.name not in (LAST, PREVIOUS):
            raise
        return _generation_before(path, error)


def _generation_before(path: Path, damage: ValueError) -> Checkpoint:
    previous, also = path.with_name(PREVIOUS), ""
    if path.name == LAST and previous.is_file():
        try:
            found = load(previous)
        except ValueError as error:
            also = f"; {PREVIOUS}: {str(error).removeprefix(f'{previous}: ')}"
        else:
            warnings.warn(f"{damage}; taking {PREVIOUS} instead", stacklevel=1)
            return found
    raise ValueError(
        f"{damage}{also}. Copy {LAST} or {PREVIOUS} back from a backup, or delete both, and the run starts from its "
        "beginning when its command is given again"
    )
