"""What SLURM says of a job in its environment, and how a job is queued again (no torch at import)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, MutableMapping

# What comes before a job's time is up: what sbatch's --signal asks for, by habit, and what submitit asks for.
PREEMPTION = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))  # not on Windows

SPECIAL_STEPS = 0xFFFFFFF0  # numbers from here on are not of srun's: salloc's shell, sbatch's script


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """The job's number, the same after a requeue; None outside of SLURM."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


def adopt(environment: MutableMapping[str, str] = os.environ, *, interactive: bool | None = None) -> None:
    """Let the tasks of an `srun` with several of them speak of themselves as torchrun's do.

    A script that sbatch runs has a SLURM_PROCID too, but no step: it is no rank. Neither is an interactive shell
    (`salloc`, `srun --pty bash`), though its step may have several tasks: only such a step has a terminal.

    Raises:
        ValueError: a variable that srun sets is missing or no number.
    """
    if environment.get("RANK") or not environment.get("SLURM_STEP_ID"):
        return
    step = _number(environment, "SLURM_STEP_ID")
    # The step's own numbers: an interactive shell is a step of one task in a job of several.
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
    if not environment.get("MASTER_PORT"):  # steps of one node keep out of each other's way
        environment["MASTER_PORT"] = str(20000 + (_number(environment, "SLURM_JOB_ID", default=0) * 64 + step) % 10000)


def _number(environment: Mapping[str, str], *names: str, default: int | None = None) -> int:
    """The first of these variables that is set."""
    name = next((name for name in names if environment.get(name)), None)
    if name is not None and environment[name].isdecimal():
        return int(environment[name])
    if name is None and default is not None:
        return default
    what = f"{name}={environment[name]}: must be a whole number" if name else f"{names[0]}: is missing"
    raise ValueError(
        f"{what}, though SLURM_STEP_ID={environment['SLURM_STEP_ID']} says that srun started this process; "
        "if it did not: unset SLURM_STEP_ID"
    )


def _has_terminal() -> bool:
    """Whether this process has a terminal that controls it, wherever its input and output go."""
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
    """Put this job back into the queue; with `resume=auto` it goes on where it was saved.

    Raises:
        ValueError: SLURM refuses, with its words.
    """
    job = job_id()
    assert job is not None
    try:
        command = ["scontrol", "requeue", job]
        subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise ValueError(f"scontrol requeue {job}: {said}") from None
