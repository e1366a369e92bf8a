"""Run folders: finding one, opening one for writing, and what stands in it (no torch).

config.yaml, provenance.json, checkpoints/, metrics.csv, samples.md, events.out.tfevents.*, result.json.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gptexp import git, huggingface
from gptexp.codehash import code_sha256
from gptexp.environment import GROUPS, interpolates
from gptexp.files import (
    atomic_write,
    read_json,
    read_yaml,
    require_no_link,
    sweep_leftovers,
    user_path,
    write_yaml,
)
from gptexp.identity import completed

CHECKPOINTS, CONFIG, RESULT, PROVENANCE = "checkpoints", "config.yaml", "result.json", "provenance.json"
LOCK = ".lock"
WRITTEN = (LOCK, CHECKPOINTS, CONFIG, RESULT, PROVENANCE, "metrics.csv", "samples.md")  # by a run, in its folder
VERIFY = "verify"  # below logs/: runs of verify_resume, which nobody means by `latest`
COMMAND = "GPTEXP_COMMAND"  # the user's command line, for the processes that it starts
NAMES = ("last.ckpt", "previous.ckpt")


# What ends a run after its step, with a checkpoint; SIGHUP comes when a terminal closes, and Windows has none.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def is_ignored(signum: int) -> bool:
    """Whether a signal stays ignored: SIGHUP under `nohup`."""
    return signum == getattr(signal, "SIGHUP", None) and signal.getsignal(signum) is signal.SIG_IGN


class RunError(ValueError):
    """A run that can't be found, read or written to: one line for the user."""


class Interrupted(Exception):
    """A signal ended the run after a step; where it could, it saved before."""

    def __init__(self, signum: int, folder: Path) -> None:
        super().__init__(signum, folder)
        self.signum, self.folder = signum, folder

    def __str__(self) -> str:
        stopped = f"interrupted by {signal.Signals(self.signum).name}"
        if not (self.folder / CHECKPOINTS / NAMES[0]).exists():
            return f"{stopped} before the first checkpoint"
        step = read_result(self.folder).get("steps")
        place = f" after step {step}" if step else ""
        return f"{stopped}{place}; go on with resume={shlex.quote(shown(self.folder))}"


def shown(folder: Path) -> str:
    """A folder as a person wants to read it: relative to the current directory where it lies below it."""
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)


# ---------------------------------------------------------------------------------- finding


def find_checkpoint(run: str, logs: Path = Path("logs"), *, weights: bool = True) -> Path:
    """What RUN means: the checkpoint file of a run folder, of `latest` or itself, or a folder of Hugging Face's.

    weights: False where only settings are wanted, so that nothing large is fetched for `gpt2`.

    Raises:
        RunError: nothing there, with what would be right.
    """
    if run == "latest":
        return _newest(logs)
    if not run.strip():
        raise RunError("RUN is empty; give a run folder, a checkpoint file, or `latest`")
    path = user_path(run, "")
    if path.is_file():
        try:
            huggingface.require_no_part(path)
        except ValueError as error:
            raise RunError(str(error)) from None
        return path
    for name in NAMES:
        for candidate in (path / CHECKPOINTS / name, path / name):
            if candidate.is_file():
                return candidate
    try:
        theirs = huggingface.find(run, weights=weights)
    except ValueError as error:
        raise RunError(str(error)) from None
    if theirs is not None:
        return theirs
    if path.is_dir():
        if inside := [*path.glob(f"*/{CHECKPOINTS}/last.ckpt")]:
            newest = max(inside, key=lambda p: p.stat().st_mtime_ns).parents[1]
            raise RunError(f"{run}: is no run folder, but holds some; the newest is {newest}")
        raise RunError(
            f"{run}: no checkpoint in it (looked for {CHECKPOINTS}/last.ckpt, and for Hugging Face's config.json "
            "with model.safetensors or pytorch_model.bin)"
        )
    raise RunError(f"{run}: no such run; give a run folder, a checkpoint file, or `latest`")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can go on in its folder."""
    return any((folder / CHECKPOINTS / name).is_file() for name in NAMES)


def run_folder(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint file stands in, if it stands in one."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == CHECKPOINTS and (folder / CONFIG).is_file() else None


def _newest(logs: Path) -> Path:
    found = [p for p in logs.rglob(f"{CHECKPOINTS}/last.ckpt") if p.is_file() and VERIFY not in p.parts]
    if not found:
        raise RunError(f"latest: no run with a checkpoint below {logs.resolve()}; train one, or give its folder")
    return max(found, key=lambda p: p.stat().st_mtime_ns)


def read_settings(run: str) -> dict[str, Any]:
    """The settings of a run, as plain data: from its config.yaml, or from the checkpoint where that is all there is.

    Raises:
        RunError: not there or not readable.
    """
    checkpoint = find_checkpoint(run, weights=False)
    folder = run_folder(checkpoint)
    if checkpoint.is_dir():
        settings: object = huggingface.read_settings(checkpoint, run)
    elif folder is None:
        from gptexp import checkpoint as ckpt

        alone = ckpt.open_run(checkpoint)
        settings = {name: group for name, group in alone.config.items() if name not in GROUPS}
        settings |= {"callbacks": {"plugins": alone.plugins}} if alone.plugins else {}
    else:
        try:
            settings = read_yaml(folder / CONFIG)
        except ValueError as error:
            raise RunError(str(error)) from None
    groups = ("model", "tokenizer", "data", "optimizer", "schedule", "trainer")
    named = isinstance(settings, dict) and isinstance(settings.get("name"), str) and type(settings.get("seed")) is int
    if not isinstance(settings, dict) or not named or not all(isinstance(settings.get(g), dict) for g in groups):
        raise RunError(f"{run}: its settings are not those of a gptexp run")
    if interpolates(settings):  # would be evaluated when composed
        raise RunError(f"{run}: its settings must be plain values, but hold an interpolation (${{…}})")
    return completed(settings)


def read_result(folder: Path) -> dict[str, Any]:
    """What result.json says; {} where there is none that can be read."""
    try:
        return read_json(folder / RESULT)
    except (OSError, ValueError):
        return {}


def last_code(folder: Path) -> str | None:
    """The hash of the code that a run was last trained with, where its provenance files say it."""
    steps = {int(path.stem.rpartition("-")[2]): path for path in folder.glob("provenance-[0-9]*.json")}
    path = steps[max(steps)] if steps else folder / PROVENANCE
    try:
        code = read_json(path).get("code_sha256")
    except (OSError, ValueError):
        return None
    return code if isinstance(code, str) else None


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    return read_result(folder).get("status") == "completed"


# ---------------------------------------------------------------------------------- writing


@contextmanager
def open_run(folder: Path, *, resumes: str | None) -> Iterator[Path]:
    """Take a run folder for one process: made, locked, and refused if a run other than `resumes` is in it.

    Raises:
        RunError: finished, another run's, or in use.
    """
    for name in WRITTEN:
        require_no_link(folder / name)
    with locked(folder, LOCK, RunError(f"{folder}: another process is training in it")):
        _require_free(folder, resumes)
        sweep_leftovers(folder)
        sweep_leftovers(folder / CHECKPOINTS)
        yield folder


@contextmanager
def locked(folder: Path, name: str, error: Exception) -> Iterator[None]:
    """A folder, made where there is none, for one process; where nothing was written it goes again.

    The lock's file is removed only by who holds it, and a lock on a file that has been removed is none.

    Raises:
        error: another process holds it.
    """
    from filelock import FileLock, Timeout

    path = folder / name
    lock = FileLock(path)
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        require_no_link(path)
        with suppress(FileNotFoundError):  # the folder or the file was removed meanwhile
            path.touch()
            before = path.stat()
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise error from None
            if os.path.samestat(before, path.stat()):
                break
        lock.release()
    try:
        yield
    finally:
        _remove_if_empty(folder, name)
        lock.release()


def _require_free(folder: Path, resumes: str | None) -> None:
    """Refuse a folder that holds a run; what a run left that died before its first checkpoint is cleared away."""
    if is_finished(folder):
        raise RunError(f"{folder}: holds a finished run, which is never overwritten; choose another hydra.run.dir")
    own = resumes is not None and run_folder(find_checkpoint(resumes))
    if has_checkpoint(folder) and not (own and own.resolve() == folder.resolve()):
        raise RunError(f"{folder}: holds another run; continue it by resume={folder}, or choose another hydra.run.dir")
    if not own and (folder / PROVENANCE).exists():
        curves = (folder / "metrics.csv", folder / "samples.md", *folder.glob("events.out.tfevents.*"))
        for leftover in (*curves, folder / CHECKPOINTS / "best.ckpt"):  # best is linked before last stands
            leftover.unlink(missing_ok=True)


def _remove_if_empty(folder: Path, lock: str) -> None:
    """A run that was refused before it began leaves no folder behind."""
    with suppress(OSError):  # Windows removes no open file; a folder above it holds other runs
        if [path.name for path in folder.iterdir()] == [lock]:
            (folder / lock).unlink()
            folder.rmdir()
            folder.parent.rmdir()


def write_config(folder: Path, settings: dict[str, Any]) -> None:
    """config.yaml: resolved and complete."""
    write_yaml(folder / CONFIG, settings)


def write_json(path: Path, value: object) -> None:
    """A JSON file, whole or absent; strict JSON, so that every reader takes it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, text.encode(errors="backslashreplace"))  # names of files that are no UTF-8, as JSON escapes


def provenance(data: dict[str, Any], hardware: dict[str, Any]) -> dict[str, Any]:
    """What is needed to repeat the run: command, code, versions, machine, data."""
    try:
        directory = str(Path.cwd())
    except OSError:  # it has been deleted
        directory = None
    return {
        "command": os.environ.get(COMMAND) or command_line(),
        "directory": directory,
        **code_version(),
        "hardware": {"machine": platform.machine(), "system": platform.platform(), **hardware},
        "data": data,
    }


def code_version() -> dict[str, Any]:
    """The code that runs: its hash, commit and uncommitted changes where it is a checkout, and versions."""
    here = Path(__file__).resolve().parent
    return {"code_sha256": code_sha256(), "git": git.state(here), "versions": versions()}


def command_line() -> str:
    """The command line as typed: `python -m gptexp.train …`, where Python shows the file's path."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    head = ["-m", spec.name] if spec is not None and spec.name else [sys.argv[0]]
    line = shlex.join([Path(sys.executable).name, *head, *sys.argv[1:]])
    return line.encode(errors="backslashreplace").decode()  # names of files that are no UTF-8


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("gptexp", "torch", "lightning", "hydra-core", "omegaconf", "numpy", "tiktoken", "tokenizers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
