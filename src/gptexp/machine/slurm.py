"""The environment variables of a SLURM job, and how to requeue it (no torch at import)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, MutableMapping

# Signals before the time limit of a job: SIGUSR1 is common with sbatch's --signal, SIGUSR2 with submitit.
# Windows lacks them.
PREEMPTION = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))

SPECIAL_STEPS = 0xFFFFFFF0  # from here on, steps are not srun's: salloc's shell, sbatch's script


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the job's number, which a requeue keeps; None outside SLURM."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


def adopt(environment: MutableMapping[str, str] = os.environ, *, interactive: bool | None = None) -> None:
    """Set torchrun's variables for the tasks of an `srun` with several tasks.

    The script of sbatch also has a SLURM_PROCID, but no step, so it is not a rank. An interactive shell (`salloc`,
    `srun --pty bash`) is not a rank either, although its step may have several tasks; only such a step has a terminal.

    Raises:
        ValueError: a variable of srun is missing or not a number.
    """
    if environment.get("RANK") or not environment.get("SLURM_STEP_ID"):
        return
    step = _number(environment, "SLURM_STEP_ID")
    # Numbers of the step, not of the job: an interactive shell is a step of one task in a job of several.
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", default=1)
    nodes = _number(environment, "SLURM_STEP_NUM_NODES", "SLURM_NNODES", default=1)
    if tasks < 2 or step >= SPECIAL_STEPS or (_has_terminal() if interactive is None else interactive):
        return
    environment.update(
        RANK=str(_number(environment, "SLURM_PROCID")),
        WORLD_SIZE=str(tasks),
        LOCAL_RANK=str(_number(environment, "SLURM_LOCALID")),
        LOCAL_WORLD_SIZE=str(tasks // max(1, nodes)),
        GROUP_RANK=environment.get("SLURM_NODEID", "0"),
    )
    if not environment.get("MASTER_ADDR"):
        environment["MASTER_ADDR"] = _first_node(environment)
    if not environment.get("MASTER_PORT"):  # steps on one node need different ports
        environment["MASTER_PORT"] = str(20000 + (_number(environment, "SLURM_JOB_ID", default=0) * 64 + step) % 10000)


def _number(environment: Mapping[str, str], *names: str, default: int | None = None) -> int:
    """Return the number in the first of these variables that is set."""
    name = next((name for name in names if environment.get(name)), None)
    if name is not None and environment[name].isdecimal():
        return int(environment[name])
    if name is None and default is not None:
        return default
    what = f"{name}={environment[name]}: must be a whole number" if name else f"{names[0]}: is missing"
    raise ValueError(
        f"{what}, though SLURM_STEP_ID={environment['SLURM_STEP_ID']} means that srun started this process; "
        "if it did not, unset SLURM_STEP_ID"
    )


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal, even if its input and output are redirected."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


def _first_node(environment: Mapping[str, str]) -> str:
    from gptexp.machine.lightning import SLURMEnvironment

    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "127.0.0.1")
    return SLURMEnvironment.resolve_root_node_address(nodes)


def requeue() -> None:
    """Requeue this job; with `resume=auto` it resumes from its checkpoint.

    Raises:
        ValueError: SLURM refuses; the message contains its reason.
    """
    job = job_id()
    assert job is not None
    try:
        command = ["scontrol", "requeue", job]
        subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        raise ValueError(f"scontrol requeue {job}: {reason}") from None
