"""When and what a run saves, and how a signal ends it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from gptexp.config import CheckpointConfig
from gptexp.config.plugins import computing
from gptexp.machine import ranks, slurm
from gptexp.machine.agreement import Agreement
from gptexp.machine.lightning import pl
from gptexp.models.weights import model_tensors, persistent
from gptexp.runs import checkpoint
from gptexp.runs.result import INTERRUPTED, Result, interrupted, write_result
from gptexp.training.background import SHARDS, Background, gathered, local_copies
from gptexp.training.callbacks.prefixes import StorePrefixes
from gptexp.training.callbacks.record import RunRecord
from gptexp.training.module import LitGPT
from gptexp.training.optimizer_state import named_optimizer_state
from gptexp.util.signals import ENDING, Interrupted, is_ignored


class Checkpoints(pl.Callback):
    """Saves last.ckpt after each validation and every so many steps or minutes, and best.ckpt by the objective's loss.

    A signal (see Signals) ends the run after the current step, with a checkpoint. If a validation follows that step,
    it runs first, so that the resumed curve includes it.
    identity: config, tokenizer and data fingerprint, as plain data. plugins: the user's callbacks by name; they run
    before this one, so a checkpoint contains their decisions at its step. prefixes: stores states for other jobs.

    With `asynchronous`, what is saved is a copy, which a thread writes. The run waits for it before the next copy, and
    before it ends. An error of the thread ends the run at the next step, as it would have ended it at once.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        identity: dict[str, Any],
        record: RunRecord,
        plugins: dict[str, pl.Callback] | None = None,
        prefixes: StorePrefixes | None = None,
    ) -> None:
        self.folder, self.config, self.identity, self.record = folder, config, identity, record
        self.plugins, self.prefixes = plugins or {}, prefixes
        self.signals = Signals()
        self._background = Background() if config.asynchronous and prefixes is None else None
        self._saved_at = time.monotonic()
        self._stopping = 0

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        self._agreement = Agreement()
        self._group = distributed.new_group(backend="gloo") if self._background and trainer.world_size > 1 else None
        if trainer.is_global_zero:
            for leftover in self.folder.glob(f"{SHARDS}*"):  # of a killed process
                shutil.rmtree(leftover, ignore_errors=True)
        self._saved_at = time.monotonic()
        self.signals.catch(quietly=not trainer.is_global_zero)

    def on_train_batch_end(
        self, trainer: pl.Trainer, lit: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(lit, LitGPT)
        if (batch_idx + 1) % lit.plan.accumulate:
            return
        if self._background:
            self._background.check()
        self._stopping, due = self._agreement.exchange(self.signals.received, self._is_late())
        every = self.config.every_steps
        if lit.validates(lit.step):
            return  # on_validation_end saves, with the score
        due = due or (self.prefixes is not None and self.prefixes.saves(lit.step))
        if due or self._stopping or (every is not None and lit.step % every == 0):
            self._save(lit, best=False)
        self._stop_if_asked(lit)

    def on_validation_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        self._save(lit, best=self.record.is_best)
        if lit.step < lit.max_steps:
            self._stop_if_asked(lit)

    def on_train_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        self._agreement.settle()
        self._finish()
        self.signals.release()

    def on_exception(self, trainer: pl.Trainer, lit: pl.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, Interrupted):  # which comes after the checkpoint
            with suppress(Exception):  # the first error is reported
                self._finish()
        self.signals.release()

    def _finish(self) -> None:
        """Wait until the checkpoint is written."""
        if self._background:
            self._background.finish()

    def _is_late(self) -> bool:
        minutes = self.config.every_minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def _save(self, lit: LitGPT, *, best: bool) -> None:
        """A collective: sharded tensors are gathered on every rank or, in a thread, by their files; rank 0 writes."""
        lit.train_loss()  # raises if weights are not finite
        for logger in lit.trainer.loggers:  # logs up to this step must be on disk before its checkpoint
            logger.save()
        whole = self._background is None
        state = checkpoint.Checkpoint(
            step=lit.step,
            model=model_tensors(lit.model) if whole else local_copies(persistent(lit.model)),
            optimizer=named_optimizer_state(lit.model, lit.trainer.optimizers[0], gather=whole),
            metrics={
                "last": lit.score.metrics() if lit.score else None,
                "best": self.record.best,
                "seconds": self.record.throughput.elapsed(),
                "sums": lit.score.sums() if lit.score and lit.validates(lit.step) else None,
                "inherited": self.record.facts.inherited,
            },
            precision=str(lit.trainer.precision),
            history=self.record.history.until(lit.step),
            callbacks={
                name: {"settings": settings, "state": plain_state(self.plugins[name])}
                for name, settings in computing(lit.config.callbacks.plugins).items()
                if name in self.plugins
            },
            stopped=bool(lit.trainer.should_stop),
            shared=self.prefixes.shared(lit.step) if self.prefixes else None,
            **self.identity,
        )
        if self._background:
            self._background.start(partial(self._write, state, best, lit.trainer.is_global_zero))
        elif lit.trainer.is_global_zero:
            checkpoint.rotate(state, self.folder, best=best, also=self.prefixes.names(lit) if self.prefixes else ())
            if self.prefixes:
                self.prefixes.store(state)
        self._saved_at = time.monotonic()

    def _write(self, state: checkpoint.Checkpoint, best: bool, writes: bool) -> None:
        """Write what this rank has, and on rank 0 the whole checkpoint."""
        found = gathered(state, self.folder, self._group)
        if writes and found is not None:
            checkpoint.rotate(found, self.folder, best=best)

    def _stop_if_asked(self, lit: LitGPT) -> None:
        """Raise Interrupted, on all ranks after the same step, if a signal has arrived."""
        if not self._stopping:
            return
        self._finish()
        run = self.folder.parent
        with ranks.first_then_others(f"stopped after step {lit.step}"):  # the others wait while rank 0 writes
            if lit.trainer.is_global_zero:
                name = signal.Signals(self._stopping).name
                write_result(run, Result(status=INTERRUPTED, signal=name, steps=lit.step))
        raise interrupted(self._stopping, run)


def plain_state(plugin: pl.Callback) -> Any:
    """Return a callback's state as plain data."""
    return _plain(plugin.state_dict())


def _plain(state: Any) -> Any:
    """Return a callback's state as plain data; a member of a string enumeration becomes its text."""
    if isinstance(state, dict):
        return {_plain(key): _plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_plain(value) for value in state]
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    return next((kind(state) for kind in (bool, int, float, str) if isinstance(state, kind)), None)


class Signals:
    """Records SIGINT, SIGTERM, SIGHUP and SLURM's preemption signals; a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.received = 0
        self._former: dict[int, Any] = {}
        self._quietly = False

    def catch(self, *, quietly: bool) -> None:
        """Install the handlers. Python allows this in the main thread only; elsewhere nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._quietly = quietly
        caught = [*ENDING, *(slurm.PREEMPTION if slurm.job_id() else ())]
        self._former = {signum: signal.signal(signum, self._note) for signum in caught if not is_ignored(signum)}

    def release(self) -> None:
        """Restore the handlers from before `catch`."""
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
        self._former = {}

    def _note(self, signum: int, frame: object) -> None:
        if signum == self.received == signal.SIGINT:
            os._exit(128 + signum)  # files are complete at any time, so no cleanup is needed
        if not self.received and not self._quietly:
            again = "; press Ctrl-C again to quit at once" if signum == signal.SIGINT else ""
            print(f"{signal.Signals(signum).name}: completing this step, then saving{again}", file=sys.stderr)
        self.received = signum
