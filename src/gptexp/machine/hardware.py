"""The hardware, and the choices that depend on it: device, precision, compilation, whether the model fits."""

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
from typing import Any, TypedDict, cast

import psutil
import torch

from gptexp.config import Config
from gptexp.config.training import Accelerator, Strategy
from gptexp.machine import rank_environment
from gptexp.machine.cgroups import available_memory

GIB = 2**30
GPUS = {"cuda": "CUDA GPU", "mps": "Apple GPU"}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)
WIDE, WIDE_FOR_AMX = 64, 256  # n_embd from which bf16 is faster in spite of its conversions
WORTH_COMPILING = 1e17  # FLOPs of a run: about ten minutes of a GPU; compiling takes about one minute


def accelerator_of(config: Config) -> str:
    """Return the device type of `trainer.accelerator` on this machine: cuda, mps or cpu.

    Raises:
        ValueError: the machine lacks the device.
    """
    wanted = config.trainer.accelerator
    device = "cuda" if wanted is Accelerator.gpu else wanted.name
    return find_device(device, f"trainer.accelerator={wanted.name}", "use trainer=cpu")


def find_device(wanted: str, setting: str | None = None, remedy: str | None = None) -> str:
    """Return the device type that a name means on this machine: cuda, mps or cpu. auto: a GPU if there is one.

    setting, remedy: for the message, if `wanted` is not the option --device.

    Raises:
        ValueError: the machine lacks the device; the message names it and those that there are.
    """
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = [*(name for name, found in gpus.items() if found), "cpu"]
    if wanted == "auto":
        return there[0]
    if wanted not in there:
        missing = f"torch finds no {GPUS[wanted]} on this machine" if wanted in GPUS else "no such device"
        remedy = remedy or f"available: {', '.join(there)}"
        raise ValueError(f"{setting or f'--device={wanted}'}: {missing}; {remedy}")
    return wanted


def processes_of(config: Config) -> int:
    """Return the number of processes on this node, as torchrun or srun started them or as `trainer.devices` sets it.

    Raises:
        ValueError: the setting contradicts the launcher, several nodes have no launcher, or there are fewer GPUs.
    """
    wanted, nodes, who = config.trainer.devices, config.trainer.num_nodes, rank_environment.current()
    if who is not None:
        if wanted not in ("auto", who.local_size):
            raise ValueError(
                f"trainer.devices={wanted}: the launcher started {who.local_size} processes per node; omit the setting"
            )
        if nodes not in (1, who.nodes):
            raise ValueError(f"trainer.num_nodes={nodes}: the launcher started {who.nodes}; omit the setting")
        return who.local_size
    if nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={nodes}: several nodes need torchrun or srun on each of them: "
            f"torchrun --nnodes {nodes} … -m gptexp.train …"
        )
    gpus = torch.cuda.device_count() if accelerator_of(config) == "cuda" else None
    if wanted == "auto":
        return 1 if gpus is None else _usable_gpus(config, gpus)
    if gpus is not None and int(wanted) > gpus:
        raise ValueError(f"trainer.devices={wanted}: torch finds {gpus} GPU{'s' * (gpus != 1)} on this machine")
    return int(wanted)


def _usable_gpus(config: Config, gpus: int) -> int:
    """Return the largest number of GPUs that divides the global batch evenly."""
    micro, windows = config.data.micro_batch_size or 1, config.windows_per_step
    taken = next(n for n in range(gpus, 0, -1) if windows % (n * micro) == 0)
    if taken < gpus:
        warnings.warn(
            f"trainer.devices=auto: uses {taken} of {gpus} GPUs, because more can't share a global batch of {windows} "
            f"windows evenly; a multiple of {gpus * micro} windows uses all of them",
            stacklevel=1,
        )
    return taken


def choose_precision(config: Config, source: str | None = None) -> tuple[str, str]:
    """Return the precision by Lightning's name, and the reason for the choice.

    source: precision of the run that is resumed. `auto` keeps it on every machine, so that a run has one precision.
    """
    wanted = config.trainer.precision
    if wanted != "auto":
        return wanted, "as set"
    chosen, why = fastest_precision(accelerator_of(config), getattr(config.model, "n_embd", 0))
    if source in (None, chosen):
        return chosen, why
    assert source is not None
    return source, f"as before; a new run would use {chosen} here: {why}"


def fastest_precision(device: str, width: int) -> tuple[str, str]:
    """Return the fastest precision that preserves the result on a device, and the reason. width: n_embd, or 0."""
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "this GPU supports bf16"
        return "32-true", "this GPU lacks bf16"
    if device == "mps":
        return "32-true", "on an Apple GPU"
    if not cpu_has_bf16():
        return "32-true", "this CPU lacks bf16 instructions"
    if width < (WIDE_FOR_AMX if cpu_has_amx() else WIDE):
        return "32-true", "layers this narrow gain nothing from bf16"
    return "bf16-mixed", "this CPU multiplies matrices in bf16"


def choose_compile(config: Config, total_flops: float) -> tuple[bool, str]:
    """Return whether to compile the model, and the reason for the choice.

    total_flops: of the whole run. The choice depends only on settings and device, so a resumed run keeps it.
    """
    wanted, device = config.trainer.compile, accelerator_of(config)
    if wanted != "auto":
        return bool(wanted), "as set"
    if device != "cuda":
        return False, "gains little on a CPU" if device == "cpu" else "not tested on an Apple GPU"
    if config.trainer.strategy is Strategy.fsdp:
        return False, "sharded parameters are compiled only if trainer.compile=true"
    if total_flops < WORTH_COMPILING:
        return False, "the run is too short"
    if missing := _missing_for_compiling():
        return False, f"{missing} is missing"
    return True, "the run is long enough"


def _missing_for_compiling() -> str | None:
    """Return what torch.compile needs on a GPU and this machine lacks."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    if not (os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))):
        return "a C compiler"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else str(header)


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 matrices natively (AMX or AVX512-BF16)."""
    return cpu_has_amx() or getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def cpu_has_amx() -> bool:
    """Return whether the CPU has bf16 tile instructions (Intel since 2023)."""
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def cpu_is_amd() -> bool:
    """Return whether AMD made the CPU, for which torch's default library, MKL, is not tuned."""
    return "AuthenticAMD" in _cpu_line("vendor_id")


@contextmanager
def full_width_products(device: str = "cpu") -> Iterator[bool]:
    """Compute float32 matrix products at the full vector width of an AMD CPU; yield whether they are.

    torch's default is MKL, which uses half the width of AVX-512 on CPUs that are not Intel's. oneDNN uses all of it,
    but torch calls it only where rounding to bf16 is allowed. oneDNN rounds only on CPUs with AMX; a product is
    computed first to verify that it does not. A setting that somebody made before stays as it is.
    """
    matmul = cast(Any, torch.backends.mkldnn).matmul  # missing in torch's stubs
    before = matmul.fp32_precision
    capable = device == "cpu" and not cpu_has_amx() and cpu_is_amd()
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
    """Return the bytes that can still be allocated on the device."""
    if device == "cuda":  # torch keeps what it has freed
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return min(psutil.virtual_memory().available, available_memory())


def activation_memory(config: Config) -> int:
    """Return the bytes that the activations of a micro-batch may use: a share of the GPU's memory.

    On a CPU it is a fixed number, the same on every machine. A larger one gains nothing there.
    """
    if accelerator_of(config) == "cuda":
        return int(0.4 * torch.cuda.get_device_properties(0).total_memory)
    return GIB


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, which allocates the same gigabytes again; no effect elsewhere.

    By default glibc returns large blocks at once, and each new page costs a fault and is filled with zeros. This takes
    an eighth of a training step of GPT-2 on a CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def require_memory(n_params: int, bytes_needed: int, config: Config, world_size: int) -> None:
    """Refuse a model whose weights, gradients and optimizer state do not fit into memory, before allocating it.

    bytes_needed: of all three, without sharding.

    Raises:
        ValueError: the message names both sizes and remedies.
    """
    device = accelerator_of(config)
    sharded = config.trainer.strategy.name == "fsdp" and world_size > 1
    needed = bytes_needed // (world_size if sharded else 1)
    free = free_memory(device)
    if needed > free:
        raise ValueError(
            f"model: {n_params:,} parameters need {needed / GIB:.1f} GiB for weights, gradients and optimizer, "
            f"but {free / GIB:.1f} GiB are free on this {'GPU' if device == 'cuda' else 'machine'}; "
            f"use a smaller model, a tokenizer with fewer tokens, or more devices with trainer=fsdp"
        )


class Hardware(TypedDict, total=False):
    """The hardware of a run, as provenance.json stores it. gpus, cuda: only with device=cuda."""

    machine: str
    system: str
    device: str
    cpu: str
    cores: int | None
    torch_threads: int
    memory_gib: float
    gpus: list[str]
    cuda: str | None


def describe(device: str) -> Hardware:
    """Return the hardware for provenance.json."""
    facts: Hardware = {"device": device, "cpu": _cpu_line("model name"), "cores": psutil.cpu_count(logical=True)}
    facts["torch_threads"] = torch.get_num_threads()
    facts["memory_gib"] = round(psutil.virtual_memory().total / GIB, 1)
    if device == "cuda":
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu_line(field: str) -> str:
    """Return a field of /proc/cpuinfo; outside Linux, Python's name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return platform.processor()
