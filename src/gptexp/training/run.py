"""Train one experiment in this process and say what is happening."""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from pathlib import Path

import torch
from rich.console import Console

from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.data.batches import BatchPlan, largest_divisor
from gptexp.generation.streaming import plain_text
from gptexp.machine import hardware, rank_environment, ranks, slurm
from gptexp.models.kernels.fastest import fastest_kernels
from gptexp.report.run_curves import draw_run
from gptexp.runs import writing
from gptexp.runs.layout import BEST, CHECKPOINTS, LAST
from gptexp.runs.provenance import write_provenance
from gptexp.runs.result import Result, interrupted
from gptexp.training.build import Experiment, build
from gptexp.training.callbacks.bundle import bundle_path
from gptexp.training.callbacks.progress import duration, quantity, say
from gptexp.training.nonfinite import NonFiniteLoss
from gptexp.util.files import display_path, link, make_folder
from gptexp.util.signals import Interrupted
from gptexp.util.text import first_line

LONG = 3600.0  # seconds from which a run on a CPU gets a warning


def train(config: Config, folder: Path) -> Result:
    """Build, fit and record an experiment; return its outcome.

    Raises:
        ValueError: something the user can mend, in one line.
    """
    who = rank_environment.current()
    world_size, rank = (who.size, who.rank) if who else (1, 0)
    console = Console(highlight=False, quiet=rank != 0)
    if hardware.accelerator_of(config) == "cpu":
        hardware.keep_freed_memory()
    experiment = build(config, folder, console=console, world_size=world_size)
    if rank == 0:
        facts = {"fingerprint": experiment.data.fingerprint, "text_sha256": experiment.data.text_sha256}
        machine = hardware.describe(hardware.accelerator_of(config))
        writing.write_config(folder, to_plain(config))
        write_provenance(folder, experiment.lit.first_step, facts, machine)
        if experiment.best is not None:
            _keep_best(experiment.best, folder)
    announce(console, experiment)
    if not experiment.ended:
        fit(experiment)
    else:  # killed after its last checkpoint, before it could say how it ended
        experiment.record.take_over(experiment.lit, experiment.trainer)
    result = experiment.record.result(experiment.lit)
    if rank == 0:
        experiment.record.finish(experiment.lit)
        draw_run(folder)
        conclude(console, experiment, result)
    return result


def _keep_best(best: Path, folder: Path) -> None:
    """A run that goes on in a new folder has its best checkpoint there too."""
    own = make_folder(folder / CHECKPOINTS) / BEST
    if not own.exists():
        link(best, own)


def fit(experiment: Experiment) -> None:
    """Run Lightning's loop; what ends it early is told with what to do.

    Raises:
        ValueError: a loss or gradient became NaN or infinite, memory ran out, a process that loads data died, or
            the model can't be compiled.
        Interrupted: a signal came.
    """
    try:
        with fastest_kernels(experiment.model, hardware.accelerator_of(experiment.config)):
            experiment.trainer.fit(experiment.lit, datamodule=experiment.datamodule)
    except NonFiniteLoss as error:
        raise ValueError(_advice(error, experiment)) from None
    except torch.OutOfMemoryError as error:
        raise ValueError(_smaller(error, experiment.plan)) from None
    except RuntimeError as error:
        if said := _explained(error, experiment):
            raise ValueError(said) from None
        raise
    except SystemExit:  # what Lightning makes of a Ctrl-C before the first step
        raise interrupted(signal.SIGINT, experiment.folder) from None
    except Interrupted as stop:
        if stop.signum in slurm.PREEMPTION and experiment.trainer.is_global_zero:
            slurm.requeue()
        raise


def _advice(error: NonFiniteLoss, experiment: Experiment) -> str:
    config, folder = experiment.config, experiment.folder
    last, bundle = folder / CHECKPOINTS / LAST, bundle_path(folder, error.step)
    saved = f"the last good checkpoint is {display_path(last)}" if last.exists() else "no checkpoint was saved before"
    again = f" `python -m gptexp.replay {shlex.quote(display_path(bundle))}` runs that step again and names the module."
    clip = "null" if (most := config.trainer.gradient_clip) is None else f"{most} too large"
    return (
        f"{error}; {saved}.{again if bundle.exists() else ''} "
        f"Likely causes: optimizer.lr={config.lr:.1e} is too high, schedule.warmup_steps too short, "
        f"trainer.gradient_clip={clip}, or trainer.precision too coarse"
    )


def _explained(error: RuntimeError, experiment: Experiment) -> str | None:
    """One line for an error of torch's that the user can correct; None: a bug."""
    if "DataLoader worker" in str(error):
        return _lost_worker(error, experiment.config.data.num_workers)
    if experiment.compiled[0] and type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return _failed_compilation(error)
    return ranks.lost_contact(error)


def _failed_compilation(error: RuntimeError) -> str:
    """Without a compiler, or with what a killed compilation left in torch's cache."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return (
        f"trainer.compile: torch can't compile the model ({first_line(error)}); use trainer.compile=false, "
        f"or install a C++ compiler such as g++; if an earlier compilation was killed, delete {cache_dir()}"
    )


def _lost_worker(error: RuntimeError, workers: int) -> str:
    """A process that loads data died: often of a full /dev/shm, through which batches are handed over."""
    shm = Path("/dev/shm")
    size = f", which has {shutil.disk_usage(shm).total / 2**20:.4g} MiB" if shm.is_dir() else ""
    return (
        f"data.num_workers={workers}: {str(error).split('. ')[0]}; memory may have run out, or shared memory "
        f"(/dev/shm{size}); use data.num_workers=0, or give more (docker run --shm-size=1g)"
    )


def _smaller(error: torch.OutOfMemoryError, plan: BatchPlan) -> str:
    """What torch says of a full GPU's memory, and the next smaller micro-batch that makes the same step."""
    windows = plan.micro_batch
    smaller = largest_divisor(windows, windows - 1) if windows > 1 else None
    remedy = f"data.micro_batch_size={smaller} makes the same steps" if smaller else "take a smaller model"
    said = ". ".join(str(error).split(". ")[:2]).rstrip(".")  # the rest is of torch's allocator
    return f"{said}; a micro-batch has {windows} windows: {remedy}, or a smaller model.block_size"


def announce(console: Console, e: Experiment) -> None:
    """The few lines before the first step."""
    config, tokenizer = e.config, e.data.tokenizer
    steps, per_step = config.trainer.max_steps, e.record.tokens_per_step
    frozen = f", {quantity(e.trainable)} of them train" if e.trainable < e.parameters else ""
    tokens, left = steps * per_step, (steps - e.lit.first_step) * per_step
    unit = "symbols" if tokenizer.kind == "char" else "tokens"
    seconds = estimate_seconds(e, left)
    learned, scored = e.objective.describe(e.data, config, e.plan)
    device = {"cuda": "GPU", "mps": "Apple GPU", "cpu": "CPU"}[hardware.accelerator_of(config)]
    lines = [
        f"{config.name} · {tokenizer.kind}, {tokenizer.vocab_size:,} {unit} · "
        f"{quantity(e.parameters)} parameters{frozen}",
        learned,
        f"{tokens / e.parameters:.1f} tokens a parameter · {tokens * e.flops_per_token:.1e} FLOPs · "
        f"{duration(seconds)} on this {device}",
        f"learning rate {config.lr:.1e} · validation on {scored}",
        f"precision {e.precision[0]} ({e.precision[1]})",
        f"{'compiled' if e.compiled[0] else 'not compiled'} ({e.compiled[1]})",
        *([layout(e.plan)] if e.plan.world_size * e.plan.accumulate > 1 else []),
        display_path(e.folder),
    ]
    say(console, "\n".join(lines))
    if e.lit.first_step:
        say(console, f"going on from step {e.lit.first_step}")
    if former := e.record.history.former_code:
        now = e.record.history.current["code_sha256"]
        say(
            console, f"notice: the code has changed since step {e.lit.first_step}: it was {former[:8]}, it is {now[:8]}"
        )
    if device == "CPU" and seconds > LONG:
        say(
            console,
            f"warning: this is {duration(seconds)} of work for a CPU. Try model=mini_gpt, a smaller model.block_size, "
            "fewer trainer.max_steps, or a machine with a GPU",
        )


def layout(plan: BatchPlan) -> str:
    """How a step's windows are shared out, where they are."""
    processes = [f"{plan.world_size} processes"] if plan.world_size > 1 else []
    micro = [f"{plan.accumulate} micro-batches of {plan.micro_batch} a step"] if plan.accumulate > 1 else []
    return " · ".join(processes + micro)


def estimate_seconds(e: Experiment, tokens: int) -> float:
    """From the speed of a matrix product of this model's width; twice that for all that isn't a product."""
    width = getattr(e.config.model, "n_embd", 64)
    rows = min(2048, e.plan.micro_batch * e.config.model.block_size)
    device = e.trainer.strategy.root_device
    dtype = torch.bfloat16 if "bf16" in e.precision[0] else torch.float32
    a, b = torch.ones(rows, width, dtype=dtype, device=device), torch.ones(width, 4 * width, dtype=dtype, device=device)
    products = 1 if device.type == "cpu" else 64  # a GPU's are shorter than the time it takes to ask for one
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
    """Where the run lies, a sample, and what to type next."""
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
