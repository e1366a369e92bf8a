"""metrics.csv, and TensorBoard with its HPARAMS tab."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptexp.machine.lightning import pl
from gptexp.report.overrides import overrides
from gptexp.runs.layout import EVENTS, METRICS
from gptexp.util.files import atomic_write, flush, open_append, read_rows

rank_zero_only = pl.utilities.rank_zero_only

# Shown by HPARAMS beside what was typed; a column of each of a hundred constants would hide both from the reader.
COMPARED = (
    "model.kind",
    "model.n_layer",
    "model.n_head",
    "model.n_embd",
    "model.block_size",
    "model.dropout",
    "model.position",
    "tokenizer.kind",
    "tokenizer.vocab_size",
    "data.kind",
    "data.global_batch_size",
    "objective.kind",
    "optimizer.kind",
    "optimizer.lr",
    "schedule.kind",
    "finetune.kind",
    "trainer.max_steps",
    "seed",
)

COLUMNS = (
    "lr",
    "grad_norm",
    "tokens_per_second",
    "mfu",
    "seconds",  # of training, over all restarts
)


class MetricsCSV(pl.loggers.Logger):
    """metrics.csv: a row for each step with something to say, appended, readable at any moment.

    On resume the rows after `first_step` are taken out, because those steps are run again. metrics: the
    names of what a validation says, the first of which ends a row.
    """

    def __init__(self, folder: Path, metrics: Sequence[str], first_step: int = 0) -> None:
        super().__init__()
        self.path = folder / METRICS
        self.columns, self.loss = ["step", "train/loss", *metrics, *COLUMNS], metrics[0]
        self.first_step = first_step
        self._row: dict[str, Any] = {}
        self._started = False

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Settings stand in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._start()
        known = {name: value for name, value in metrics.items() if name in self.columns}
        if not known:  # a plug-in's own
            return
        if self._row.get("step") != step:
            self._write_row()
            self._row = {"step": step}
        self._row.update(known)
        if self.loss in known:
            self._write_row()

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        kept = self._rows_until(self.first_step) if self.first_step else []
        atomic_write(self.path, self._to_csv([self._head, *kept]).encode())

    @property
    def _head(self) -> dict[str, Any]:
        return dict(zip(self.columns, self.columns, strict=True))

    @rank_zero_only
    def save(self) -> None:
        """Everything logged is on the disk: called before the checkpoint of its step is written."""
        self._write_row()
        if self.path.exists():
            flush(self.path)

    def _write_row(self) -> None:
        if self._row:
            with open_append(self.path) as file:
                new = not os.fstat(file.fileno()).st_size  # somebody deleted the file meanwhile
                file.write(self._to_csv([self._head] * new + [self._row]))
        self._row = {}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._write_row()

    def _to_csv(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n", restval="").writerows(rows)
        return text.getvalue()

    def _rows_until(self, step: int) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        return [
            {name: row.get(name) or "" for name in self.columns}
            for row in read_rows(self.path)
            if (row.get("step") or "").isdigit() and int(row["step"]) <= step
        ]


def tensorboard(folder: Path, metrics: Sequence[str], first_step: int = 0) -> pl.loggers.Logger:
    """A TensorBoard logger that writes straight into the run folder, with HPARAMS that show final metrics."""

    class RunTensorBoard(pl.loggers.TensorBoardLogger):
        @property
        def log_dir(self) -> str:
            return str(folder)

        @property
        def experiment(self) -> Any:
            """The writer; made on rank 0 when it is first asked for."""
            if self._experiment is None:
                self._date_files()
            return super().experiment

        @rank_zero_only
        def _date_files(self) -> None:
            date_before(folder, int(time.time()))

        @rank_zero_only
        def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
            """Names the metrics too, so that the HPARAMS tab fills as they come in."""
            given = overrides(folder)
            for summary in _hparams(_shown(_flat(params), given), list(given), metrics):
                self.experiment._get_file_writer().add_summary(summary)

        @rank_zero_only
        def save(self) -> None:
            """Lightning would write a hparams.yaml; config.yaml says it all."""
            self.experiment.flush()

    purge = first_step + 1 if first_step else 0  # the first session says its start too: only later ones drop points
    return RunTensorBoard(save_dir=str(folder), name="", version="", default_hp_metric=False, purge_step=purge)


def _shown(flat: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """What was typed for this run first, presets by their names; then the settings that most comparisons are about."""
    first = {key: flat.get(key, value) for key, value in given.items() if key != "seed"}
    return first | {key: flat[key] for key in COMPARED if flat.get(key, "None") != "None"}


def _hparams(settings: dict[str, Any], swept: Sequence[str], metrics: Sequence[str]) -> list[Any]:
    """The summaries of HPARAMS, which puts first what `differs`, and of the metrics the first; val/bpb where it is."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    ordered = sorted(metrics, key=lambda name: name != "val/bpb")
    summaries = list(hparams(settings, dict.fromkeys(ordered, 0.0)))
    about = summaries[0].value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(about.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in swept
    about.content = content.SerializeToString()
    return summaries


def date_before(folder: Path, now: int) -> None:
    """Give event files that are dated from `now` on earlier names, in the same order.

    TensorBoard reads a folder's files in the order of their names, which begin with the second in which they were
    made. After a resume within that second, or with a clock that was set back, the newest file would come first.
    """
    latest = now - 1
    for path in sorted(folder.glob(EVENTS + "*"), reverse=True):
        made, dot, rest = path.name.removeprefix(EVENTS).partition(".")
        if not made.isdigit() or int(made) <= latest:
            break
        path.rename(folder / f"{EVENTS}{latest:010d}{dot}{rest}")
        latest -= 1


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"n_head": 4}}` as `{"model.n_head": 4}`, in types that HPARAMS takes."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
