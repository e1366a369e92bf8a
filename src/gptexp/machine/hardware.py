"""What the machine has, and what follows from it: device, precision, whether the model fits."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from gptexp.config import Accelerator, Config, Strategy
from gptexp.machine import rank_environment
from gptexp.machine.cgroups import memory_room

GIB = 2**30
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)
WIDE, WIDE_FOR_AMX = 64, 256  # n_embd from which bf16 gains more than its conversions cost
WORTH_COMPILING = 1e17  # FLOPs of a run: some ten minutes of a GPU; compiling takes about one


def accelerator_of(config: Config) -> str:
    """The device type that `trainer.accelerator` means here: cuda, mps or cpu.

    Raises:
        ValueError: asked for, but not there.
    """
    wanted = config.trainer.accelerator
    if wanted is Accelerator.gpu and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator=gpu: this machine has no CUDA GPU that torch sees; use trainer=cpu")
    if wanted is Accelerator.mps and not torch.backends.mps.is_available():
        raise ValueError("trainer.accelerator=mps: no Apple GPU that torch sees; use trainer=cpu")
    if wanted is Accelerator.auto:
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return "cuda" if wanted is Accelerator.gpu else wanted.name


def processes_of(config: Config) -> int:
    """Processes on this node: as torchrun or srun started them, else as `trainer.devices` says.

    Raises:
        ValueError: the setting and the launcher contradict each other, several nodes have no launcher, or there are
            fewer GPUs.
    """
    wanted, nodes, who = config.trainer.devices, config.trainer.num_nodes, rank_environment.current()
    if who is not None:
        if wanted not in ("auto", who.local_size):
            raise ValueError(
                f"trainer.devices={wanted}: the launcher started {who.local_size} processes a node; leave it out"
            )
        if nodes not in (1, who.nodes):
            raise ValueError(f"trainer.num_nodes={nodes}: the launcher started {who.nodes}; leave it out")
        return who.local_size
    if nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={nodes}: several nodes are started by torchrun or srun on each of them; "
            f"torchrun --nnodes {nodes} … -m gptexp.train …"
        )
    gpus = torch.cuda.device_count() if accelerator_of(config) == "cuda" else None
    if wanted == "auto":
        return 1 if gpus is None else _gpus_that_share_the_batch(config, gpus)
    if gpus is not None and int(wanted) > gpus:
        raise ValueError(f"trainer.devices={wanted}: torch sees {gpus} GPU{'s' * (gpus != 1)} on this machine")
    return int(wanted)


def _gpus_that_share_the_batch(config: Config, gpus: int) -> int:
    """The most of them that divide the global batch evenly."""
    micro, windows = config.data.micro_batch_size or 1, config.windows_per_step
    taken = next(n for n in range(gpus, 0, -1) if windows % (n * micro) == 0)
    if taken < gpus:
        warnings.warn(
            f"trainer.devices=auto: takes {taken} of {gpus} GPUs, because a global batch of {windows} windows can't be "
            f"shared evenly by more; a multiple of {gpus * micro} windows would use all of them",
            stacklevel=1,
        )
    return taken


def choose_precision(config: Config, began: str | None = None) -> tuple[str, str]:
    """`trainer.precision` as Lightning's name, and why `auto` chose it.

    began: of the run that is resumed. It goes on in that, on whichever machine: its curve is of one precision.
    """
    wanted = config.trainer.precision
    if wanted != "auto":
        return wanted, "as asked"
    chosen, why = _precision_for(config)
    if began is None or began == chosen:
        return chosen, why
    return began, f"as the run began; a new one would take {chosen} here: {why}"


def _precision_for(config: Config) -> tuple[str, str]:
    """The fastest for this model on this device that keeps what is learned, and why."""
    device = accelerator_of(config)
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "this GPU computes in bf16"
        return "32-true", "this GPU has no bf16"
    if device == "mps":
        return "32-true", "on an Apple GPU"
    if not cpu_has_bf16():
        return "32-true", "this CPU has no bf16 instructions"
    if getattr(config.model, "n_embd", 0) < (WIDE_FOR_AMX if cpu_has_amx() else WIDE):
        return "32-true", "layers this narrow gain nothing from bf16"
    return "bf16-mixed", "this CPU multiplies matrices in bf16"


def choose_compile(config: Config, total_flops: float) -> tuple[bool, str]:
    """`trainer.compile`, and why `auto` chose it; total_flops: of the whole run.

    It follows from settings and device alone, so that a run that is resumed goes on as it began.
    """
    wanted, device = config.trainer.compile, accelerator_of(config)
    if wanted != "auto":
        return bool(wanted), "as asked"
    if device != "cuda":
        return False, "gains little on a CPU" if device == "cpu" else "not tried on an Apple GPU"
    if config.trainer.strategy is Strategy.fsdp:
        return False, "with sharded parameters only where asked"
    if total_flops < WORTH_COMPILING:
        return False, "the run is too short to pay it back"
    if lacking := _lacks_for_compiling():
        return False, f"{lacking} is not there"
    return True, "pays back in a run this long"


def _lacks_for_compiling() -> str | None:
    """What torch.compile needs on a GPU and this machine doesn't have; a long run is not to die of it."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    if not (os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))):
        return "a C compiler"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else str(header)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices natively (AMX or AVX512-BF16)."""
    return cpu_has_amx() or getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def cpu_has_amx() -> bool:
    """Whether the CPU multiplies tiles of bf16 (Intel's since 2023)."""
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


@contextmanager
def full_width_products(device: str = "cpu") -> Iterator[bool]:
    """Compute float32 matrix products at the full vector width of an AMD CPU; yield whether they are.

    torch's default is MKL, which uses half the width of AVX-512 on CPUs that are not Intel's. oneDNN uses all of it,
    but torch calls it only where rounding to bf16 is allowed. oneDNN rounds only on CPUs with AMX; a product is
    computed first to verify that it does not. A setting that somebody made before stays as it is.
    """
    matmul = cast(Any, torch.backends.mkldnn).matmul  # torch's stubs leave it out
    before = matmul.fp32_precision
    capable = device == "cpu" and not cpu_has_amx() and "AuthenticAMD" in _cpu_line("vendor_id")
    if not capable or before not in ("none", "ieee"):
        yield capable and before == "bf16"  # inside another such block
        return
    matmul.fp32_precision = "bf16"
    try:
        fine = torch.full((64, 64), 1 + 2**-20)
        exact = torch.equal(fine @ torch.eye(64), fine)
        if not exact:
            matmul.fp32_precision = before
        yield exact
    finally:
        matmul.fp32_precision = before


def free_memory(device: str) -> int:
    """Bytes that can still be allocated on the device."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return min(psutil.virtual_memory().available, memory_room())


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for the next step: a step frees and takes the same gigabytes again.

    GNU's gives large pieces back at once, and each page that comes anew costs a fault and is filled with zeros: of
    GPT-2's step on a CPU, an eighth. Elsewhere nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def require_memory(n_params: int, bytes_needed: int, config: Config, world_size: int) -> None:
    """Refuse, before allocating, a model whose weights, gradients and optimizer can't fit.

    Raises:
        ValueError: naming both sizes and what to try.
    """
    device = accelerator_of(config)
    sharded = config.trainer.strategy.name == "fsdp" and world_size > 1
    needed = bytes_needed // (world_size if sharded else 1)
    free = free_memory(device)
    if needed > free:
        raise ValueError(
            f"model: {n_params:,} parameters need {needed / GIB:.1f} GiB for weights, gradients and optimizer, "
            f"but {free / GIB:.1f} GiB are free on this {'GPU' if device == 'cuda' else 'machine'}; "
            f"take a smaller model, a tokenizer with fewer tokens, or more devices with trainer=fsdp"
        )


def describe(device: str) -> dict[str, Any]:
    """Hardware for provenance.json."""
    facts: dict[str, Any] = {"device": device, "cpu": _cpu_line("model name"), "cores": psutil.cpu_count(logical=True)}
    facts["torch_threads"] = torch.get_num_threads()
    facts["memory_gib"] = round(psutil.virtual_memory().total / GIB, 1)
    if device == "cuda":
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu_line(field: str) -> str:
    """What Linux says of the CPU; elsewhere what Python knows, which names make and maker."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return platform.processor()
