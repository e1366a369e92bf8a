"""What SLURM says of a job in its environment, and how a job is queued again (no torch at import)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, MutableMapping

# What comes before a job's time is up: what sbatch's --signal asks for, by habit, and what submitit asks for.
PREEMPTION = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))  # not on Windows


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """The job's number, the same after a requeue; None outside of SLURM."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


def adopt(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let the tasks of an `srun` with several of them speak of themselves as torchrun's do.

    A script that sbatch runs has a SLURM_PROCID too, but no step: it is no rank.
    """
    # The step's own numbers: an interactive shell is a step of one task in a job of several.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "1"))
    nodes = int(environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES", "1"))
    if "RANK" in environment or "SLURM_STEP_ID" not in environment or tasks < 2:
        return
    environment.update(
        RANK=environment["SLURM_PROCID"],
        WORLD_SIZE=str(tasks),
        LOCAL_RANK=environment["SLURM_LOCALID"],
        LOCAL_WORLD_SIZE=str(tasks // nodes),
        GROUP_RANK=environment.get("SLURM_NODEID", "0"),
    )
    environment.setdefault("MASTER_ADDR", _first_node(environment))
    step = int(environment.get("SLURM_JOB_ID", 0)) * 64 + int(environment["SLURM_STEP_ID"])
    environment.setdefault("MASTER_PORT", str(20000 + step % 10000))  # steps of one node keep out of each other's way


def _first_node(environment: Mapping[str, str]) -> str:
    from gptexp.lean import environments

    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "127.0.0.1")
    return environments.SLURMEnvironment.resolve_root_node_address(nodes)


def requeue() -> None:
    """Put this job back into the queue; with `resume=auto` it goes on where it was saved.

    Raises:
        ValueError: SLURM refuses, with its words.
    """
    job = job_id()
    assert job is not None
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise ValueError(f"scontrol requeue {job}: {said}") from None
