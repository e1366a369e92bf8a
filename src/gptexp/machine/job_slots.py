"""The number of concurrent jobs on this machine, and the GPU of each (no torch)."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

SHARED = "GPTEXP_SHARE_GPUS"  # environment variable: the GPUs that concurrent jobs share


def gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, by their CUDA numbers."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    try:
        return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
    except OSError:
        return []


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def job_slots() -> int:
    """Return the number of concurrent jobs: one per GPU, or one per core without a GPU."""
    return max(1, len(gpus()) or cores())


_taken: list[FileLock] = []  # the lock of this process's GPU, held until the process ends


def take_gpu(folder: Path) -> None:
    """Give this process one GPU that no other job of the sweep uses."""
    if _taken or not os.environ.get(SHARED):
        return
    for gpu in os.environ[SHARED].split(","):
        lock = FileLock(folder / f".gpu-{gpu}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _taken.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        return
