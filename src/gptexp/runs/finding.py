"""Finding the run or checkpoint that a user names, and reading its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptexp.config.environment_variables import GROUPS, interpolates
from gptexp.config.fingerprint import completed
from gptexp.runs import huggingface
from gptexp.runs.layout import (
    CHECKPOINTS,
    CONFIG,
    NAMES,
    VERIFY,
    run_folder,
)
from gptexp.util.errors import RunError
from gptexp.util.files import (
    read_yaml,
    user_path,
)


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


def _newest(logs: Path) -> Path:
    found = [p for p in logs.rglob(f"{CHECKPOINTS}/last.ckpt") if p.is_file() and VERIFY not in p.parts]
    if not found:
        raise RunError(f"latest: no run with a checkpoint below {logs.resolve()}; train one, or give its folder")
    return max(found, key=lambda p: p.stat().st_mtime_ns)


def stored_settings(run: str) -> dict[str, Any]:
    """The settings of a run, as plain data: from its config.yaml, or from the checkpoint where that is all there is.

    Raises:
        RunError: not there or not readable.
    """
    checkpoint = find_checkpoint(run, weights=False)
    folder = run_folder(checkpoint)
    if checkpoint.is_dir():
        settings: object = huggingface.read_settings(checkpoint, run)
    elif folder is None:
        from gptexp.runs.opening import open_checkpoint

        alone = open_checkpoint(checkpoint)
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
