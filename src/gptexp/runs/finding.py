"""Finding the run or checkpoint that a user names, and reading its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptexp.config.environment_variables import GROUPS, interpolates
from gptexp.config.fingerprint import completed
from gptexp.config.kinds import kinds_in, require_installed
from gptexp.runs import huggingface
from gptexp.runs.layout import CHECKPOINTS, CONFIG, GENERATIONS, LAST, VERIFY, run_folder
from gptexp.runs.provenance import recorded_packages
from gptexp.util.errors import RunError
from gptexp.util.files import user_path
from gptexp.util.yaml_files import read_yaml


def find_checkpoint(run: str, logs: Path = Path("logs"), *, weights: bool = True) -> Path:
    """Return the checkpoint file, or the Hugging Face folder, that RUN means.

    RUN is a run folder, a checkpoint file, `latest`, a Hugging Face folder or the name of a published model.
    weights: False if only the settings are needed, so that the weights of a published model are not downloaded.

    Raises:
        RunError: RUN means nothing of these; the message has the remedy.
    """
    if run == "latest":
        return _newest(logs)
    if not run.strip():
        raise RunError("RUN is empty; give a run folder, a checkpoint file, or `latest`")
    path = user_path(run, "")
    try:
        if path.is_file():
            huggingface.require_no_part(path)
            return path
        for name in GENERATIONS:
            for candidate in (path / CHECKPOINTS / name, path / name):
                if candidate.is_file():
                    return candidate
        model = huggingface.find(run, weights=weights)
    except ValueError as error:
        raise RunError(str(error)) from None
    if model is None:
        raise _nothing(run, path)
    return model


def _nothing(run: str, path: Path) -> RunError:
    if not path.is_dir():
        return RunError(f"{run}: no such run; give a run folder, a checkpoint file, or `latest`")
    if inside := [*path.glob(f"*/{CHECKPOINTS}/{LAST}")]:
        newest = max(inside, key=lambda p: p.stat().st_mtime_ns).parents[1]
        return RunError(f"{run}: is not a run folder, but contains some; the newest is {newest}")
    return RunError(
        f"{run}: no checkpoint in it (looked for {CHECKPOINTS}/{LAST}, and for Hugging Face's config.json with "
        "model.safetensors or pytorch_model.bin)"
    )


def _newest(logs: Path) -> Path:
    found = [p for p in logs.rglob(f"{CHECKPOINTS}/{LAST}") if p.is_file() and VERIFY not in p.parts]
    if not found:
        raise RunError(f"latest: no run with a checkpoint below {logs.resolve()}; train one, or give its folder")
    return max(found, key=lambda p: p.stat().st_mtime_ns)


def stored_settings(run: str) -> dict[str, Any]:
    """Return the settings of a run as plain data, from its config.yaml or else from the checkpoint.

    Raises:
        RunError: the run does not exist or its settings are not valid.
    """
    checkpoint = find_checkpoint(run, weights=False)
    folder, packages = run_folder(checkpoint), None
    if checkpoint.is_dir():
        settings: object = huggingface.model_settings(checkpoint, run)
    elif folder is None:
        from gptexp.runs.opening import open_checkpoint  # imports torch

        alone = open_checkpoint(checkpoint)
        settings = {name: group for name, group in alone.config.items() if name not in GROUPS}
        packages = alone.packages
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
    if interpolates(settings):  # composing would evaluate it
        raise RunError(f"{run}: its settings must be plain values, but contain an interpolation (${{…}})")
    recorded = recorded_packages(folder) if folder is not None else packages
    require_installed(kinds_in(settings), recorded, run)
    return completed(settings)
