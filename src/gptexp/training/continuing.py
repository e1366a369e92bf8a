"""Starting a job from a stored prefix: its run folder gets the files that it would have after those steps.

Then the job resumes from there as from a kill. Only settings of validation and early stopping differ between the job
and the one that computed the prefix, so the curve, the best checkpoint and the state of early stopping are rebuilt
from what that job recorded.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.config.plugins import computing
from gptexp.config.schedule import lr_multiplier
from gptexp.machine import rank_environment, ranks
from gptexp.machine.lightning import pl
from gptexp.objectives import Objective, Score
from gptexp.runs import checkpoint as ckpt
from gptexp.runs.code_hash import code_sha256
from gptexp.runs.history import segment
from gptexp.runs.layout import (
    BEST,
    CHECKPOINTS,
    EVENTS,
    LAST,
    METRICS,
    PREFIX,
    PROVENANCE,
    SAMPLES,
    best_every,
    has_checkpoint,
)
from gptexp.runs.provenance import provenance_files, read_provenance, save_provenance
from gptexp.runs.writing import write_config
from gptexp.training.callbacks.checkpoints import plain_state
from gptexp.training.callbacks.confusion import log_confusion
from gptexp.training.callbacks.progress import say
from gptexp.training.callbacks.record import step_row
from gptexp.training.callbacks.samples import TextSamples
from gptexp.training.loggers import MetricsCSV, tensorboard
from gptexp.training.plugins import load_plugins
from gptexp.training.prefixes import Curve, Prefixes, best_step
from gptexp.util.files import link, make_folder
from gptexp.util.text import first_line


@dataclass(kw_only=True)
class Start:
    """What a job needs to start from a stored prefix.

    identity: config, tokenizer and data as a checkpoint stores them. peaks: the peak learning rates that are logged by
    kind of parameter. mfu_per_rate: MFU for each token per second; None if the peak of the device is unknown.
    """

    prefixes: Prefixes
    folder: Path
    config: Config
    max_steps: int
    objective: Objective[Any]
    identity: dict[str, Any]
    samples: TextSamples | None
    tokens_per_step: int
    peaks: dict[str, float]
    mfu_per_rate: float | None

    def run(self, console: Console) -> bool:
        """Continue the longest usable prefix; return whether there is one, on all ranks."""
        with ranks.first_then_others("continued"):
            if (who := rank_environment.current()) is None or who.rank == 0:
                self._find(console)
        return has_checkpoint(self.folder)

    def _find(self, console: Console) -> None:
        discard(self.folder)
        for step in self.prefixes.sharing.starts:
            place = self.prefixes.place(step)
            if not place.is_dir():
                continue
            try:
                self._continue(place, step)
            except (ValueError, OSError, LookupError, TypeError, RuntimeError) as error:
                say(console, f"notice: the stored prefix of {step} steps is not used: {first_line(error)}")
                discard(self.folder)
            else:
                by = read_provenance(provenance_files(self.folder)[-1]).computed_by
                say(console, f"continuing job {by} from step {step}")
                return

    def _continue(self, place: Path, step: int) -> None:
        """Write the run folder; the checkpoint to resume from comes last."""
        source = self.prefixes.open(place / PREFIX, step)
        assert source.shared is not None
        curve = self._own(Curve.from_plain(source.shared), step)
        best = best_step(curve, 1, self.objective, self.config.objective.best_by)
        of_best = None
        if best is not None:
            of_best = self.prefixes.open(place / best_every(self.config.trainer.val_every_steps), best)
        states = self._early_stopping(curve)
        checkpoints = make_folder(self.folder / CHECKPOINTS)
        for path in provenance_files(place):
            save_provenance(self.folder / path.name, read_provenance(path))
        write_config(self.folder, to_plain(self.config))  # a checkpoint belongs to a run only beside its settings
        self._write_curves(curve)
        for path in place.glob(best_every("*")):
            link(path, checkpoints / path.name)
        if best is not None and of_best is not None:
            ckpt.save(self._checkpoint(of_best, curve, states), checkpoints / BEST)
        ckpt.save(self._checkpoint(source, curve, states), checkpoints / LAST)

    def _own(self, curve: Curve, step: int) -> Curve:
        """Return the part of a curve that this job would have recorded itself.

        Raises:
            ValueError: a step is missing.
        """
        trainer = self.config.trainer
        logged = [s for s in range(1, step + 1) if s % trainer.log_every_steps == 0 or s == 1]
        scored = range(trainer.val_every_steps, step + 1, trainer.val_every_steps)
        if missing := [s for s in logged if s not in curve.train] + [s for s in scored if s not in curve.val]:
            raise ValueError(f"the curve of step {missing[0]} is missing in it")
        return Curve({s: curve.train[s] for s in logged}, {s: curve.val[s] for s in scored})

    def _score(self, curve: Curve, step: int) -> Score:
        score = self.objective.score(curve.val[step].sums)
        if not math.isfinite(score.metrics()[self.config.objective.metrics[0]]):
            raise ValueError(f"the validation after step {step} is not finite")
        return score

    def _early_stopping(self, curve: Curve) -> dict[int, dict[str, Any]]:
        """Return the stored states of early stopping after each validation, and at step 0.

        Raises:
            ValueError: it would have stopped the run.
        """
        settings = computing(self.config.callbacks.plugins)
        plugins, states = load_plugins("callbacks", settings), dict[int, dict[str, Any]]()
        for step in (0, *curve.val):
            for name, plugin in plugins.items():
                if step:
                    value = self._score(curve, step).metrics()[settings[name]["monitor"]]
                    if plugin._evaluate_stopping_criteria(torch.tensor(value))[0]:
                        raise ValueError(f"callbacks.plugins.{name} stops this job after step {step}")
            states[step] = {
                name: {"settings": settings[name], "state": plain_state(plugin)} for name, plugin in plugins.items()
            }
        return states

    def _checkpoint(self, source: ckpt.Checkpoint, curve: Curve, states: dict[int, dict[str, Any]]) -> ckpt.Checkpoint:
        """Return a checkpoint with the weights of another job and everything else of this one."""
        step = source.step
        last = max((s for s in curve.val if s <= step), default=0)
        best = best_step(Curve(val={s: row for s, row in curve.val.items() if s <= step}), 1, self.objective, self._by)
        metrics = {
            "last": self._score(curve, last).metrics() if last else None,
            "best": {**self._score(curve, best).metrics(), "step": best} if best else None,
            "seconds": source.metrics["seconds"],
            "sums": curve.val[step].sums if step in curve.val else None,
            "inherited": step,
        }
        history = [segment(self.config, self.max_steps, 0, step, code_sha256(self.config))]
        own = {**self.identity, "metrics": metrics, "history": history, "callbacks": states[last], "stopped": False}
        return replace(source, **own)

    @property
    def _by(self) -> str:
        return self.config.objective.best_by

    def _write_curves(self, curve: Curve) -> None:
        """Write metrics.csv, TensorBoard's curves and samples.md."""
        names = self.config.metrics
        loggers: list[pl.loggers.Logger] = [MetricsCSV(self.folder, names, also=list(self.peaks))]
        if self.config.logger.tensorboard:
            loggers.append(tensorboard(self.folder, names))
        for step, metrics in self._rows(curve):
            for logger in loggers:
                logger.log_metrics(metrics, step=step)
            if names[0] in metrics:
                log_confusion(loggers, self._score(curve, step), step)
                if self.samples is not None and (text := curve.val[step].text) is not None:
                    self.samples.record(loggers, step, text)
        for logger in loggers:
            logger.save()
            logger.finalize("success")

    def _rows(self, curve: Curve) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield (step, metrics) in the order in which a run logs them."""
        before = (0, 0.0)
        for step in sorted({*curve.train, *curve.val}):
            if (row := curve.train.get(step)) is not None:
                rate = (step - before[0]) * self.tokens_per_step / max(row.seconds - before[1], 1e-9)
                multiplier = lr_multiplier(self.config.schedule, self.max_steps, step - 1)
                rates = {name: peak * multiplier for name, peak in {"lr": self.config.lr, **self.peaks}.items()}
                norm = None if math.isnan(row.norm) else row.norm
                mfu = {"mfu": rate * self.mfu_per_rate} if self.mfu_per_rate else {}
                yield step, step_row(row.loss, rates, rate, row.seconds, norm) | mfu
                before = (step, row.seconds)
            if step in curve.val:
                yield step, {**self._score(curve, step).metrics(), "seconds": curve.val[step].seconds}


def discard(folder: Path) -> None:
    """Delete what a run left that died before its first checkpoint, or while it was started from a prefix."""
    named = [path for start in (EVENTS, Path(PROVENANCE).stem) for path in folder.glob(f"{start}*")]
    for path in (folder / METRICS, folder / SAMPLES, *named):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
