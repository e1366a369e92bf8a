"""Loggers: metrics.csv, and TensorBoard with its HPARAMS tab."""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptexp.config.length import LENGTHS
from gptexp.config.training import NOVELTY
from gptexp.machine.lightning import pl
from gptexp.report.overrides import overrides
from gptexp.runs.layout import EVENTS, METRICS
from gptexp.util.files import atomic_write, flush, open_append, read_rows

rank_zero_only = pl.utilities.rank_zero_only

# HPARAMS shows these settings and those of the command line; a hundred constant columns would hide them.
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
    *(f"trainer.{name}" for name in LENGTHS),
    "seed",
)

COLUMNS = (
    "lr",
    "grad_norm",
    "tokens_per_second",
    "mfu",
    "seconds",  # of training, over all restarts
)

# The CUSTOM SCALARS tab: charts by category and title, each with a regular expression for the beginning of its tags.
# TensorBoard merges the charts of all runs and shows equal ones once. It loses charts of a category that its first run
# does not have, so each category has a chart that every run has.
CHARTS = {
    "loss": {
        "training and validation loss": r"(train|val)/(mlm_)?loss$",
        "bits per byte": r"val/bpb(/|$)",
        "accuracy": r"val/((mlm_)?accuracy|macro_f1)(/|$)",
    },
    "rates": {"learning rate": r"lr(/|$)", "tokens per second": r"tokens_per_second$"},
    "inside the model": {
        "norm of the gradient": r"grad_norm$",
        "norms of gradients": "norm/gradient/",
        "norms of weights": "norm/weight/",
        "norms of updates": "norm/update/",
        "norms of updates, relative to weights": "norm/relative_update/",
        "activations": "activation/",
        "entropy of attention in bits": "attention_entropy/",
    },
}


class MetricsCSV(pl.loggers.Logger):
    """Appends a row to metrics.csv for each logged step. The file is readable at any time.

    On resume the rows after `first_step` are removed, because these steps are repeated; all columns are kept. metrics:
    names of the validation metrics; the first one completes a row. also: names of further values of a step.
    """

    def __init__(self, folder: Path, metrics: Sequence[str], first_step: int = 0, also: Sequence[str] = ()) -> None:
        super().__init__()
        self.path = folder / METRICS
        self.columns, self.loss = ["step", "train/loss", *metrics, *COLUMNS, *also], metrics[0]
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
        """Do nothing: settings are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._start()
        known = {name: value for name, value in metrics.items() if name in self.columns}
        if not known:  # logged by a plug-in
            return
        if not self._row and step is not None and known.keys() <= {*NOVELTY}:
            self._row = self._take_back(step)
        if self._row.get("step") != step:
            self._write_row()
            self._row = {"step": step}
        self._row.update(known)
        if self.loss in self._row:
            self._write_row()

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        kept = self._rows_until(self.first_step) if self.first_step else []
        atomic_write(self.path, self._to_csv([self._head, *kept]).encode())

    def _take_back(self, step: int) -> dict[str, Any]:
        """Remove the row of the last step from the file, and return it: values of the trained model complete it."""
        *kept, row = self._rows_until(step) or [{}]
        atomic_write(self.path, self._to_csv([self._head, *kept]).encode())
        return {**row, "step": step}

    @property
    def _head(self) -> dict[str, Any]:
        return dict(zip(self.columns, self.columns, strict=True))

    @rank_zero_only
    def save(self) -> None:
        """Flush to disk; called before the checkpoint of the step is written."""
        self._write_row()
        if self.path.exists():
            flush(self.path)

    def _write_row(self) -> None:
        if self._row:
            with open_append(self.path) as file:
                new = not os.fstat(file.fileno()).st_size  # the file was deleted during the run
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
        rows = read_rows(self.path)
        self.columns += [name for name in (rows[0] if rows else ()) if name and name not in self.columns]
        return [
            {name: row.get(name) or "" for name in self.columns}
            for row in rows
            if (row.get("step") or "").isdigit() and int(row["step"]) <= step
        ]


def tensorboard(
    folder: Path, metrics: Sequence[str], first_step: int = 0, also: Sequence[str] = ()
) -> pl.loggers.Logger:
    """Return a TensorBoard logger that writes into the run folder.

    The HPARAMS tab shows final metrics, the CUSTOM SCALARS tab the curves of all runs. also: as in MetricsCSV.
    """

    class RunTensorBoard(pl.loggers.TensorBoardLogger):
        @property
        def log_dir(self) -> str:
            return str(folder)

        @property
        def experiment(self) -> Any:
            """The writer, created on rank 0 at the first access."""
            if self._experiment is None:
                self._date_files()
            return super().experiment

        @rank_zero_only
        def _date_files(self) -> None:
            date_before(folder, int(time.time()))

        @rank_zero_only
        def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
            """Declare settings and metrics, so that the HPARAMS tab shows metrics as they are logged."""
            given = overrides(folder)
            for summary in _hparams(_selected(_flat(params), given), list(given), metrics):
                self.experiment._get_file_writer().add_summary(summary)
            self.experiment.add_custom_scalars(custom_scalars(["train/loss", *metrics, *COLUMNS, *also]))

        @rank_zero_only
        def save(self) -> None:
            """Flush, without Lightning's hparams.yaml, which repeats config.yaml."""
            self.experiment.flush()

    purge = first_step + 1 if first_step else 0  # the step from which earlier points are dropped
    return RunTensorBoard(save_dir=str(folder), name="", version="", default_hp_metric=False, purge_step=purge)


def _selected(flat: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of the command line (presets by name), then those of COMPARED."""
    first = {key: flat.get(key, value) for key, value in given.items() if key != "seed"}
    return first | {key: flat[key] for key in COMPARED if flat.get(key, "None") != "None"}


def _hparams(settings: dict[str, Any], swept: Sequence[str], metrics: Sequence[str]) -> list[Any]:
    """Return the summaries of HPARAMS. It sorts settings that differ first; of the metrics val/bpb comes first."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    ordered = sorted(metrics, key=lambda name: name != "val/bpb")
    declare: Callable[..., tuple[Any, ...]] = hparams  # torch does not annotate it
    summaries = list(declare(settings, dict.fromkeys(ordered, 0.0)))
    about = summaries[0].value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(about.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in swept
    about.content = content.SerializeToString()
    return summaries


def custom_scalars(columns: Sequence[str]) -> dict[str, dict[str, tuple[str, list[str]]]]:
    """Return the charts of CHARTS that have at least one of the columns, as torch's add_custom_scalars takes them."""
    return {
        category: {
            title: ("Multiline", [tags]) for title, tags in charts.items() if any(re.match(tags, c) for c in columns)
        }
        for category, charts in CHARTS.items()
    }


def date_before(folder: Path, now: int) -> None:
    """Rename event files dated `now` or later to earlier dates, in the same order.

    TensorBoard reads files in the order of their names, which begin with the second of their creation. After a
    resume within that second, or with a clock that was set back, the newest file would come first.
    """
    latest = now - 1
    for path in sorted(folder.glob(EVENTS + "*"), reverse=True):
        made, dot, rest = path.name.removeprefix(EVENTS).partition(".")
        if not made.isdigit() or int(made) <= latest:
            break
        path.rename(folder / f"{EVENTS}{latest:010d}{dot}{rest}")
        latest -= 1


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"model": {"n_head": 4}}` as `{"model.n_head": 4}`, with the types that HPARAMS accepts."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
