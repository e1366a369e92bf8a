"""The run's record: metrics at their steps, and result.json at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gptexp.machine.lightning import pl
from gptexp.runs.history import History
from gptexp.runs.result import COMPLETED, Result, finite, write_result
from gptexp.training.length import Length
from gptexp.training.module import LitGPT


class Throughput:
    """Measures training time without validation, sampling and checkpoints, over all restarts, and tokens per second."""

    def __init__(self, tokens_per_step: int, first_step: int, seconds: float) -> None:
        self.tokens_per_step = tokens_per_step
        self.seconds = seconds  # of training, over all restarts
        self.paused = False
        self._since = time.perf_counter()
        self._mark = (seconds, first_step)

    def pause(self) -> None:
        """Stop the clock."""
        self._count()
        self.paused = True

    def resume(self) -> None:
        """Restart the clock."""
        self._since, self.paused = time.perf_counter(), False

    def _count(self) -> None:
        now = time.perf_counter()
        if not self.paused:
            self.seconds += now - self._since
        self._since = now

    def elapsed(self) -> float:
        """Return the seconds of training until now."""
        self._count()
        return self.seconds

    def rate(self, step: int) -> float:
        """Return the tokens per second since the last call."""
        self._count()
        (seconds, steps), self._mark = self._mark, (self.seconds, step)
        return (step - steps) * self.tokens_per_step / max(self.seconds - seconds, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the record of a run contains besides its measurements.

    text_sha256: of the scored text. bytes_per_token: of the training text. best, seconds: of a resumed run, the score
    of its best step if that checkpoint exists, and its training time until now. inherited: first steps that another
    job of the sweep computed.
    """

    settings: dict[str, Any]
    length: Length
    parameters: int
    trainable_parameters: int
    text_sha256: str
    bytes_per_token: float
    best: dict[str, float] | None = None
    seconds: float = 0.0
    inherited: int = 0


def step_row(
    loss: float, rates: Mapping[str, float], speed: float, seconds: float, grad_norm: float | None
) -> dict[str, float]:
    """Return what is logged for a step. rates: of learning. speed: tokens per second. grad_norm: None if none."""
    row = {"train/loss": loss, **rates, "tokens_per_second": speed, "seconds": seconds}
    return row if grad_norm is None else {**row, "grad_norm": grad_norm}


class RunRecord(pl.Callback):
    """Logs every `log_every_steps`-th step and each validation, and writes result.json at the end.

    flops_per_token, peak_flops: for MFU, which is logged if the peak of the device is known.
    peaks: the peak learning rates that are logged by kind of parameter. best_by: the metric that selects the best
    step. history: code and learning rates, including those of earlier processes of the run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tokens_per_step: int,
        best_by: str,
        flops_per_token: float,
        peak_flops: float | None,
        peaks: Mapping[str, float],
        facts: RunFacts,
        history: History,
        first_step: int,
    ) -> None:
        self.folder, self.facts, self.first_step = folder, facts, first_step
        self.tokens_per_step, self.best_by, self.history = tokens_per_step, best_by, history
        self.flops_per_token, self.peak_flops, self.peaks = flops_per_token, peak_flops, peaks
        self.best = facts.best
        self.last: dict[str, float] = {}
        self.added: dict[str, float] = {}  # metrics of the trained model that validation does not compute
        self.throughput: Throughput
        self.is_best = False
        self.started = time.perf_counter()

    def take_over(self, lit: LitGPT, trainer: pl.Trainer) -> None:
        """Continue the counters of the earlier processes of the run."""
        lit.trainer = trainer
        self.throughput = Throughput(self.tokens_per_step, lit.step, self.facts.seconds)

    def on_train_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        self.take_over(lit, trainer)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.facts.settings)

    def on_train_batch_start(self, *_: Any) -> None:
        if self.throughput.paused:  # validation, sample and checkpoint are done
            self.throughput.resume()

    def on_train_batch_end(self, trainer: pl.Trainer, lit: pl.LightningModule, *_: Any) -> None:
        assert isinstance(lit, LitGPT)
        step = lit.step
        if step == self.last.get("step") or (trainer.fit_loop.batch_idx + 1) % lit.plan.accumulate:
            return
        if lit.logs(step):
            self._log_step(trainer, lit, step)

    def _log_step(self, trainer: pl.Trainer, lit: LitGPT, step: int) -> None:
        loss = lit.train_loss()
        rate = self.throughput.rate(step)
        norm = None if lit.grad_norm is None else float(lit.grad_norm)
        rates = {"lr": lit.lr, **{name: peak * lit.multiplier for name, peak in self.peaks.items()}}
        self.last = {"step": step, **step_row(loss, rates, rate, self.throughput.seconds, norm)}
        if self.peak_flops:
            self.last["mfu"] = rate * self.flops_per_token / (self.peak_flops * lit.plan.world_size)
        self._log(trainer, self.last, step)

    def on_validation_start(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        if lit.device.type != "cpu":  # steps that a GPU has not yet completed count as training
            torch.accelerator.synchronize(lit.device)
        self.throughput.pause()

    def on_validation_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        assert isinstance(lit, LitGPT)
        assert lit.score is not None
        metrics = lit.score.metrics()
        self.is_best = self.best is None or metrics[self.best_by] < self.best[self.best_by]
        if self.is_best:
            self.best = {**metrics, "step": lit.step}
        self._log(trainer, {**metrics, "seconds": self.throughput.seconds}, lit.step)

    def add(self, metrics: dict[str, float], trainer: pl.Trainer, step: int) -> None:
        """Log further metrics of the trained model, and record them in result.json."""
        self.added |= metrics
        self._log(trainer, metrics, step)

    @staticmethod
    def _log(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in metrics.items() if k != "step"}, step=step)

    def result(self, lit: LitGPT) -> Result:
        """Return the outcome of the completed run."""
        assert lit.score is not None
        tokens = lit.step * self.throughput.tokens_per_step
        seconds, history = self.throughput.seconds, self.history.until(lit.step)
        return Result(
            status=COMPLETED,
            metrics=finite({**lit.score.metrics(), **self.added}),
            best=finite(self.best or {}),
            val={**lit.score.record(), "text_sha256": self.facts.text_sha256},
            steps=lit.step,
            tokens=tokens,
            seconds=round(time.perf_counter() - self.started, 3),
            training_seconds=round(seconds, 3),
            tokens_per_second=round(tokens / max(seconds, 1e-9), 1),
            parameters=self.facts.parameters,
            trainable_parameters=self.facts.trainable_parameters,
            precision=lit.trainer.precision,
            flops_per_token=self.flops_per_token,
            bytes_per_token=self.facts.bytes_per_token,
            resumed_from=self.first_step or None,
            steps_computed=lit.step - self.facts.inherited,
            mixture=lit.objective.used(lit.config, lit.plan, lit.step),
            length={"asked": self.facts.length.asked, "max_steps": lit.max_steps},
            peak_lr=history[-1]["peak_lr"],
            code_sha256=history[-1]["code_sha256"],
            history=history,
        )

    def finish(self, lit: LitGPT) -> Result:
        """Write result.json with the status `completed`."""
        result = self.result(lit)
        write_result(self.folder, result)
        return result
