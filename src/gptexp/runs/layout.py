"""The files of a run folder. Each name is defined here and nowhere else."""

from __future__ import annotations

from pathlib import Path

CONFIG = "config.yaml"  # the settings, resolved and complete
PROVENANCE = "provenance.json"  # provenance-<step>.json for a run resumed at that step
RESULT = "result.json"  # written last
METRICS = "metrics.csv"
SAMPLES = "samples.md"
DIGESTS = "digests.jsonl"  # with trainer.digests=true
CURVES = "curves.png"
EVENTS = "events.out.tfevents."  # prefix of TensorBoard's files
CHECKPOINTS = "checkpoints"
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"  # inside CHECKPOINTS
GENERATIONS = (LAST, PREVIOUS)  # a run resumes from the first one that it has
LOCK = ".lock"
JOB_LOG = "log.txt"  # output of a sweep's job
NOTE = "note.txt"  # by `gptexp runs note`, also in the folder of a sweep

WRITTEN = (LOCK, CHECKPOINTS, CONFIG, RESULT, PROVENANCE, METRICS, SAMPLES, DIGESTS)

PREFIXES = ".prefixes"  # in the folder of a sweep: states that its jobs continue from, each in a folder with PREFIX
PREFIX = "prefix.ckpt"
RESOLUTIONS = ".lengths"  # in the folder of a sweep: the steps that a length was resolved to, by configuration
SWEEP = "sweep.yaml"  # in the folder of a sweep, which holds the run folders of its jobs
SWEEP_LOCK = ".sweep.lock"  # beside it
RUNS_INDEX = ".runs-index.json"  # below logs/: what `gptexp runs` has read, which can be deleted at any time
VERIFY = "verify"  # folder below logs/ for the runs of verify-resume, which `latest` skips


def best_every(steps: int | str) -> str:
    """Return the name of the best checkpoint of a job that validates every so many steps, beside PREFIX."""
    return f"best-every-{steps}.ckpt"


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run folder has a checkpoint to resume from."""
    return any((folder / CHECKPOINTS / name).is_file() for name in GENERATIONS)


def run_folder(checkpoint: Path) -> Path | None:
    """Return the run folder that contains a checkpoint file; None if the file is not in a run folder."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == CHECKPOINTS and (folder / CONFIG).is_file() else None
