"""The files of a run folder, each name once."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS, CONFIG, RESULT, PROVENANCE = "checkpoints", "config.yaml", "result.json", "provenance.json"


LOCK = ".lock"


WRITTEN = (LOCK, CHECKPOINTS, CONFIG, RESULT, PROVENANCE, "metrics.csv", "samples.md")  # by a run, in its folder


VERIFY = "verify"  # below logs/: runs of verify_resume, which nobody means by `latest`


NAMES = ("last.ckpt", "previous.ckpt")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can go on in its folder."""
    return any((folder / CHECKPOINTS / name).is_file() for name in NAMES)


def run_folder(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint file stands in, if it stands in one."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == CHECKPOINTS and (folder / CONFIG).is_file() else None
