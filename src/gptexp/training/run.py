"""Train one experiment in this process and print its progress."""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from gptexp.config import Config, Recompute
from gptexp.config.conversion import to_plain
from gptexp.data.batches import BatchPlan, largest_divisor
from gptexp.generation.streaming import plain_text
from gptexp.machine import hardware, rank_environment, ranks, slurm
from gptexp.machine.lightning import pl
from gptexp.models.kernels.fastest import fastest_kernels
from gptexp.report.run_curves import draw_run
from gptexp.runs import writing
from gptexp.runs.layout import BEST, CHECKPOINTS, LAST
from gptexp.runs.provenance import write_provenance
from gptexp.runs.result import Result, interrupted
from gptexp.training.basis import Basis, cost_of, length_of
from gptexp.training.build import Experiment, build_experiment
from gptexp.training.callbacks.bundle import bundle_path
from gptexp.training.callbacks.progress import duration, say
from gptexp.training.nonfinite import NonFiniteLoss
from gptexp.training.sharing import Sharing
from gptexp.training.timing import steps_by_time
from gptexp.util.files import display_path, link, make_folder
from gptexp.util.signals import Interrupted
from gptexp.util.text import first_line, quantity

LONG = 3600.0  # seconds from which a run on a CPU gets a warning


def train(
    config: Config,
    folder: Path,
    *,
    steps: int | None = None,
    resolution: Path | None = None,
    sharing: Sharing | None = None,
) -> Result:
    """Build, fit and record an experiment; return its outcome.

    Args:
        config: the settings.
        folder: the run folder.
        steps: the number of steps of the whole run, if the caller has resolved it.
        resolution: a file in which the runs of a configuration share the number that trainer.max_time gives.
        sharing: what a job of a sweep shares with others.

    Raises:
        ValueError: an error that the user can correct, in one line.
    """
    who = rank_environment.current()
    world_size, rank = (who.size, who.rank) if who else (1, 0)
    console = Console(highlight=False, quiet=rank != 0)
    if hardware.accelerator_of(config) == "cpu":
        hardware.keep_freed_memory()

    def measure(basis: Basis) -> int:
        say(console, f"measuring the steps of trainer.max_time={config.trainer.max_time} …")
        train_briefly = partial(_train_briefly, folder, basis.first_step, world_size)
        return steps_by_time(config, cost_of(config, basis), train_briefly, resolution)

    resolve = partial(length_of, steps=steps, measure=measure)
    experiment = build_experiment(
        config, folder, console=console, world_size=world_size, resolve=resolve, sharing=sharing
    )
    config = experiment.config  # it resumes, if the first steps come from another job
    _begin(experiment, console)
    if not experiment.ended:
        fit(experiment)
    else:  # killed after its last checkpoint, before result.json was written
        experiment.record.take_over(experiment.lit, experiment.trainer)
        experiment.novelty.on_train_end(experiment.trainer, experiment.lit)
    result = experiment.record.result(experiment.lit)
    if rank == 0:
        experiment.record.finish(experiment.lit)
        draw_run(folder)
        conclude(console, experiment, result)
    return result


def _begin(e: Experiment, console: Console) -> None:
    """Write settings and provenance, and print what follows."""
    if e.trainer.is_global_zero:
        facts = {"fingerprint": e.data.fingerprint, "text_sha256": e.data.text_sha256}
        writing.write_config(e.folder, to_plain(e.config))
        write_provenance(
            e.folder, e.lit.first_step, facts, hardware.describe(hardware.accelerator_of(e.config)), e.config
        )
        if e.best is not None:
            _keep_best(e.best, e.folder)
    announce(console, e)


def _train_briefly(
    folder: Path, first_step: int, world_size: int, config: Config, steps: int, also: list[pl.Callback]
) -> float:
    """Train some steps in a temporary folder, which is removed; return the seconds that result.json would have.

    folder: of the run, for the message of a signal.
    """
    console = Console(quiet=True)
    resolve = partial(length_of, steps=first_step + steps)
    with TemporaryDirectory(prefix="gptexp-measure-") as place:
        e = build_experiment(
            config, Path(place) / "run", console=console, world_size=world_size, resolve=resolve, also=also
        )
        _begin(e, console)
        try:
            fit(e)
        except Interrupted as stop:
            raise interrupted(stop.signum, folder) from None
        seconds = e.record.result(e.lit).seconds
    assert seconds is not None
    return seconds


def _keep_best(best: Path, folder: Path) -> None:
    """Link the best checkpoint of the source into the new folder of a resumed run."""
    target = make_folder(folder / CHECKPOINTS) / BEST
    if not target.exists():
        link(best, target)


def fit(experiment: Experiment) -> None:
    """Run Lightning's loop.

    Raises:
        ValueError: a loss or gradient became NaN or infinite, memory ran out, a data loader process died, or
            the model cannot be compiled.
        Interrupted: a signal arrived.
    """
    try:
        with fastest_kernels(experiment.model, hardware.accelerator_of(experiment.config)):
            experiment.trainer.fit(experiment.lit, datamodule=experiment.datamodule)
    except NonFiniteLoss as error:
        raise ValueError(_advice(error, experiment)) from None
    except torch.OutOfMemoryError as error:
        raise ValueError(_out_of_memory(error, experiment.plan, experiment.config)) from None
    except RuntimeError as error:
        if message := _explained(error, experiment):
            raise ValueError(message) from None
        raise
    except SystemExit:  # Lightning raises it for a Ctrl-C before the first step
        raise interrupted(signal.SIGINT, experiment.folder) from None
    except Interrupted as stop:
        if stop.signum in slurm.PREEMPTION and experiment.trainer.is_global_zero:
            slurm.requeue()
        raise


def _advice(error: NonFiniteLoss, experiment: Experiment) -> str:
    config, folder = experiment.config, experiment.folder
    last, bundle = folder / CHECKPOINTS / LAST, bundle_path(folder, error.step)
    saved = f"the last good checkpoint is {display_path(last)}" if last.exists() else "no checkpoint was saved"
    again = f" `gptexp replay {shlex.quote(display_path(bundle))}` repeats that step and names the module."
    clip = "null" if (limit := config.trainer.gradient_clip) is None else f"{limit} is too large"
    return (
        f"{error}; {saved}.{again if bundle.exists() else ''} "
        f"Likely causes: optimizer.lr={config.lr:.1e} is too high, schedule.warmup_steps is too small, "
        f"trainer.gradient_clip={clip}, or trainer.precision is too low"
    )


def _explained(error: RuntimeError, experiment: Experiment) -> str | None:
    """Return one line for an error of torch that the user can correct; None for a bug."""
    if "DataLoader worker" in str(error):
        return _dead_worker(error, experiment.config.data.num_workers)
    if experiment.compiled[0] and type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return _failed_compilation(error)
    return ranks.lost_contact(error)


def _failed_compilation(error: RuntimeError) -> str:
    """Explain a failed compilation: no compiler, or a damaged cache after a killed compilation."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # slow to import

    return (
        f"trainer.compile: torch cannot compile the model ({first_line(error)}); use trainer.compile=false, "
        f"or install a C++ compiler such as g++; if an earlier compilation was killed, delete {cache_dir()}"
    )


def _dead_worker(error: RuntimeError, workers: int) -> str:
    """Explain the death of a data loader process; often /dev/shm, which transports batches, is full."""
    shm = Path("/dev/shm")
    size = f", which has {shutil.disk_usage(shm).total / 2**20:.4g} MiB" if shm.is_dir() else ""
    return (
        f"data.num_workers={workers}: {str(error).split('. ')[0]}; memory may have run out, or shared memory "
        f"(/dev/shm{size}); use data.num_workers=0, or provide more shared memory (docker run --shm-size=1g)"
    )


def _out_of_memory(error: torch.OutOfMemoryError, plan: BatchPlan, config: Config) -> str:
    """Return torch's message, the next smaller micro-batch that gives the same steps, and other remedies."""
    windows = plan.micro_batch
    smaller = largest_divisor(windows, windows - 1) if windows > 1 else None
    remedy = f"use data.micro_batch_size={smaller} (gives the same steps)" if smaller else "use a smaller model"
    reason = ". ".join(str(error).split(". ")[:2]).rstrip(".")  # further sentences concern torch's allocator
    possible = config.model.has_blocks and config.trainer.recompute is Recompute.none
    recompute = "trainer.recompute=blocks, " if possible else ""
    return f"{reason}; a micro-batch has {windows} windows: {remedy}, {recompute}or a smaller model.block_size"


def announce(console: Console, e: Experiment) -> None:
    """Print the settings and the estimated cost before the first step."""
    config, tokenizer = e.config, e.data.tokenizer
    steps, per_step = e.lit.max_steps, e.record.tokens_per_step
    frozen = f", {quantity(e.trainable)} trainable" if e.trainable < e.parameters else ""
    tokens, left = steps * per_step, (steps - e.lit.first_step) * per_step
    unit = "symbols" if tokenizer.kind == "char" else "tokens"
    seconds = estimate_seconds(e, left)
    length = e.record.facts.length
    learned, scored = e.objective.describe(e.data, config, e.plan, steps)
    device = {"cuda": "GPU", "mps": "Apple GPU", "cpu": "CPU"}[hardware.accelerator_of(config)]
    lines = [
        f"{config.name} · {tokenizer.kind}, {tokenizer.vocab_size:,} {unit} · "
        f"{quantity(e.parameters)} parameters{frozen}",
        *([] if "max_steps" in length.asked else [f"{length.text}: {steps:,} steps"]),
        *(
            [f"data.exhausted=stop: {steps:,} steps; the next one would repeat data.parts.{length.exhausts}"]
            if length.exhausts
            else []
        ),
        learned,
        f"{tokens / e.parameters:.1f} tokens per parameter · {tokens * e.flops_per_token:.1e} FLOPs · "
        f"{duration(seconds)} on this {device}",
        f"learning rate {config.lr:.1e} · validation on {scored}",
        f"precision {e.precision[0]} ({e.precision[1]})",
        *([_compilation(e)] if e.compiled[0] or config.trainer.compile != "auto" else []),
        *([layout(e.plan)] if e.plan.world_size * e.plan.accumulate > 1 else []),
        display_path(e.folder),
    ]
    say(console, "\n".join(lines))
    if e.lit.first_step:
        say(console, f"resuming from step {e.lit.first_step}")
    if former := e.record.history.former_code:
        now = e.record.history.current["code_sha256"] or "unknown"
        change = f"it was {former[:8]}, it is {now[:8]}"
        say(console, f"notice: the code has changed since step {e.lit.first_step}: {change}")
    if device == "CPU" and seconds > LONG:
        say(
            console,
            f"warning: this takes {duration(seconds)} on a CPU. Try model=mini_gpt, a smaller model.block_size, "
            f"a smaller {length.setting}, or a machine with a GPU",
        )


def _compilation(e: Experiment) -> str:
    compiled, reason = e.compiled
    return f"{'compiled' if compiled else 'not compiled'} ({reason})"


def layout(plan: BatchPlan) -> str:
    """Return how the windows of a step are divided among processes and micro-batches."""
    processes = [f"{plan.world_size} processes"] if plan.world_size > 1 else []
    micro = [f"{plan.accumulate} micro-batches of {plan.micro_batch} per step"] if plan.accumulate > 1 else []
    return " · ".join(processes + micro)


def estimate_seconds(e: Experiment, tokens: int) -> float:
    """Estimate from the speed of a matrix product of the model's width, doubled for all other operations."""
    width = getattr(e.config.model, "n_embd", 64)
    rows = min(2048, e.plan.micro_batch * e.config.model.block_size)
    device = e.trainer.strategy.root_device
    dtype = torch.bfloat16 if "bf16" in e.precision[0] else torch.float32
    a, b = torch.ones(rows, width, dtype=dtype, device=device), torch.ones(width, 4 * width, dtype=dtype, device=device)
    products = 1 if device.type == "cpu" else 64  # on a GPU, launching one takes longer than computing it
    seconds = min(_timed(a, b, products) for _ in range(5)) / products
    rate = 2 * rows * width * 4 * width / seconds
    return 2 * tokens * e.flops_per_token / (rate * e.plan.world_size)


def _timed(a: torch.Tensor, b: torch.Tensor, products: int) -> float:
    start = time.perf_counter()
    for _ in range(products):
        product = a @ b
    float(product[0, 0])  # waits for the device
    return time.perf_counter() - start


def conclude(console: Console, e: Experiment, result: Result) -> None:
    """Print a sample, the final metrics, the run folder and the next command."""
    values = {name: result.metrics[name] for name in e.objective.headline}
    metrics = " · ".join(f"{name} {'not finite' if x is None else f'{x:.4f}'}" for name, x in values.items())
    run = "latest" if e.config.paths.logs == "logs" else shlex.quote(display_path(e.folder))
    if e.samples and e.samples.text:
        say(console, f"\n{plain_text(e.samples.text)}\n")
    say(
        console,
        f"{metrics} · {result.steps:,} steps · {result.seconds:.0f} s · {display_path(e.folder)}\n"
        f"next: tensorboard --logdir {e.config.paths.logs} · {e.objective.next_command(run, e.data)}",
    )
