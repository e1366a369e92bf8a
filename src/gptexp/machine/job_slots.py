"""How many jobs this machine runs at a time, and which GPU each gets (no torch)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SHARED = "GPTEXP_SHARE_GPUS"  # set where several jobs run at a time on several GPUs


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA numbers them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    try:
        return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
    except OSError:
        return []


def job_slots() -> int:
    """Jobs at a time: one a GPU, or, without, one a core: small models gain little from a second one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, len(gpus()) or cores)


_taken: list[Any] = []  # the lock of this process's GPU, held until it ends


def take_gpu(folder: Path) -> None:
    """Let this process, for all its jobs, see one GPU that no other job of the sweep uses."""
    from filelock import FileLock, Timeout

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
