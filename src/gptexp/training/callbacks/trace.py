"""A plug-in that records each step exactly, so that `gptexp verify-resume` can compare two runs."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

from gptexp.machine.lightning import pl
from gptexp.training.module import LitGPT
from gptexp.util.files import open_append, read_text

COLUMNS = ["step", "micro", "windows", "loss", "grad_norm", "lr"]


class Trace(pl.Callback):
    """Writes trace-<rank>.csv into the run folder: a row for each forward pass, immediately, with exact numbers.

    windows: a hash of each window of the micro-batch. After a resume rows are appended, so a repeated step has
    several rows. kill_at: the step in which this process kills itself with SIGKILL, after the update and before
    logs and checkpoints; null: never. It has no effect in a resumed run.
    """

    def __init__(self, kill_at: int | None = None) -> None:
        if kill_at is not None and (type(kill_at) is not int or kill_at < 1):
            raise ValueError(f"kill_at={kill_at} must be a step from 1, or null")
        self.kill_at = kill_at
        self._path = Path()

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        self._path = Path(trainer.default_root_dir) / f"trace-{trainer.global_rank}.csv"
        if not self._path.exists():
            self._append(COLUMNS)

    def on_train_batch_end(
        self, trainer: pl.Trainer, lit: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(lit, LitGPT)
        micro = batch_idx % lit.plan.accumulate
        last = micro == lit.plan.accumulate - 1
        step = lit.step if last else lit.step + 1
        tokens = batch[0].cpu().numpy()
        windows = " ".join(hashlib.sha256(window.tobytes()).hexdigest()[:16] for window in tokens)
        norm = float(lit.grad_norm).hex() if last and lit.grad_norm is not None else ""
        self._append([step, micro, windows, float(outputs["loss"]).hex(), norm, lit.lr.hex() if last else ""])
        if last and step == self.kill_at and lit.first_step == 0:  # a resumed run has the plug-ins of its source
            os.kill(os.getpid(), signal.SIGKILL)

    def _append(self, row: list[Any]) -> None:
        with open_append(self._path) as file:
            csv.writer(file, lineterminator="\n").writerow(row)


def read_trace(folder: Path) -> dict[tuple[int, int, int], set[tuple[str, ...]]]:
    """Return {(rank, step, micro): its different rows}; one row if a repeated step gave the same values.

    An incomplete last row, after a kill, is ignored.
    """
    rows: dict[tuple[int, int, int], set[tuple[str, ...]]] = {}
    for path in sorted(folder.glob("trace-*.csv")):
        rank = int(path.stem.partition("-")[2])
        text = read_text(path)
        whole = text[: text.rfind("\n") + 1]
        for row in csv.DictReader(whole.splitlines()):
            if None not in row.values():
                key = (rank, int(row["step"]), int(row["micro"]))
                rows.setdefault(key, set()).add(tuple(row[name] for name in COLUMNS[2:]))
    return rows
