"""Opening a checkpoint file or a Hugging Face folder."""

from __future__ import annotations

import warnings
from pathlib import Path

from gptexp.runs.archive import open_archive
from gptexp.runs.checkpoint import Checkpoint, from_plain
from gptexp.runs.huggingface.weights import load_folder
from gptexp.runs.layout import GENERATIONS, LAST, PREVIOUS


def load(path: Path) -> Checkpoint:
    """Open a checkpoint file or a Hugging Face folder; this executes no code.

    Raises:
        ValueError: not a checkpoint, damaged, or of a later format.
        FileNotFoundError: the path does not exist.
    """
    return load_folder(path) if path.is_dir() else from_plain(path, open_archive(path))


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint as `load` does; if last.ckpt is damaged, open previous.ckpt with a warning.

    Raises:
        ValueError: as `load`, with the remedy if no generation is readable.
        FileNotFoundError: the path does not exist.
    """
    try:
        return load(path)
    except ValueError as error:
        if path.name not in GENERATIONS:
            raise
        return _previous_generation(path, error)


def _previous_generation(path: Path, damage: ValueError) -> Checkpoint:
    previous, also = path.with_name(PREVIOUS), ""
    if path.name == LAST and previous.is_file():
        try:
            found = load(previous)
        except ValueError as error:
            also = f"; {PREVIOUS}: {str(error).removeprefix(f'{previous}: ')}"
        else:
            warnings.warn(f"{damage}; using {PREVIOUS} instead", stacklevel=1)
            return found
    raise ValueError(
        f"{damage}{also}. Copy {LAST} or {PREVIOUS} back from a backup. Without a backup, delete both; the run then "
        "starts from step 0"
    )
