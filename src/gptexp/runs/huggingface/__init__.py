"""GPT-2, Llama and Qwen3 as Hugging Face folders, read and written without transformers.

A folder with config.json and weights is a RUN, and so is the name of a published model. Only weights.py and
llama_weights.py import torch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gptexp.config.conversion import from_plain, to_plain
from gptexp.runs.huggingface import hub
from gptexp.runs.huggingface.config import CONFIG, read_model
from gptexp.tokenizers import huggingface_files
from gptexp.util.files import read_json, user_path

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
KNOWN = (WEIGHTS, INDEX, PICKLED, PICKLED_INDEX)  # in this order


def find(run: str, *, weights: bool = True) -> Path | None:
    """Return the folder that RUN means: RUN itself or that of a published model; None if it is neither.

    weights: False to download only the settings and the tokenizer of a published model.

    Raises:
        ValueError: the published model can't be downloaded.
    """
    folder = user_path(run, "")
    if is_folder(folder):
        return folder
    if is_published(run):
        return hub.snapshot(run, is_folder if weights else _has_settings, weights=weights)
    return None


def is_published(run: str) -> bool:
    """Return whether RUN is the name of a published model and not a path in the current folder."""
    return run in hub.REPOSITORIES and not Path(run).exists()


def is_folder(folder: Path) -> bool:
    """Return whether a folder contains a Hugging Face model."""
    return _has_settings(folder) and any((folder / name).is_file() for name in KNOWN)


def require_no_part(file: Path) -> None:
    """Refuse a file of weights, which needs the config.json of its folder.

    Raises:
        ValueError: the message names the folder to give.
    """
    if file.suffix in (".safetensors", ".bin") or file.name.endswith(".index.json"):
        beside = "" if _has_settings(file.parent) else f", with its {CONFIG} beside it"
        raise ValueError(f"{file}: is only the weights of a model; give the folder {file.parent}{beside}")


def _has_settings(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def weight_files(folder: Path) -> list[Path]:
    """Return the files with the weights; safetensors is preferred to pickles.

    Raises:
        ValueError: the index is damaged, or names a file that is missing or outside the folder.
    """
    for name in KNOWN:
        if (folder / name).is_file():
            return _shards(folder, name) if name in (INDEX, PICKLED_INDEX) else [folder / name]
    raise ValueError(f"{folder}: no weights in it (looked for {', '.join(KNOWN)})")


def _shards(folder: Path, index: str) -> list[Path]:
    places = read_json(folder / index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{folder / index}: has no weight_map, which names the file of each weight")
    suffix = "safetensors" if index == INDEX else "bin"
    names = {name if isinstance(name, str) else json.dumps(name) for name in places.values()}
    for name in sorted(names):
        if not re.fullmatch(rf"[\w-][\w.-]*\.{suffix}", name):
            raise ValueError(f"{folder / index}: {name[:80]!r} can't be the name of a file with weights beside it")
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file, but {index} names it")
    return [folder / name for name in sorted(names)]


def model_settings(folder: Path, name: str = "") -> dict[str, Any]:
    """Return the settings of a run at step 0 with the folder's model and tokenizer.

    name: as the user gave it.

    Raises:
        ValueError: the model has no form that gptexp reads, or the tokenizer does not fit it.
    """
    return settings_and_tokenizer(folder, name)[0]


def settings_and_tokenizer(folder: Path, name: str = "") -> tuple[dict[str, Any], dict[str, Any], int]:
    """Return `model_settings`, the state of the tokenizer and vocab_size."""
    model, vocab_size = read_model(folder / CONFIG)
    state = _tokenizer(folder, vocab_size)
    tokenizer: dict[str, Any] = {"kind": state["kind"]}
    if state["kind"] == "bpe":
        tokenizer["vocab_size"] = vocab_size
    elif state["kind"] == "files":
        tokenizer |= {"path": str(folder), "sha256": huggingface_files.sha256_of(folder)}
    groups = {"model": model, "tokenizer": to_plain(from_plain("tokenizer", tokenizer))}
    rest: dict[str, dict[str, Any]] = {group: {} for group in ("data", "optimizer", "schedule", "trainer")}
    return {"name": _safe(name, folder), "seed": 1, **groups, **rest}, state, vocab_size


def _tokenizer(folder: Path, vocab_size: int) -> dict[str, Any]:
    """Return the tokenizer of the folder; without one, GPT-2's if the vocabularies have the same size."""
    if huggingface_files.has_files(folder):
        return huggingface_files.read_state(folder, vocab_size)
    if vocab_size == huggingface_files.GPT2_SIZE:
        return {"kind": "gpt2"}
    names = f"{huggingface_files.WHOLE}, or {huggingface_files.VOCAB} and {huggingface_files.MERGES}"
    raise ValueError(
        f"{folder}: the folder has no tokenizer, and its model has {vocab_size:,} tokens instead of GPT-2's "
        f"{huggingface_files.GPT2_SIZE:,}; put {names}, into the folder"
    )


def _safe(name: str, folder: Path) -> str:
    """Return a name for the folder of a run that starts from this one."""
    last = Path(name).name or folder.resolve().name
    safe = re.sub(r"[^\w.+=,-]+", "-", last).encode()[:60].decode(errors="ignore")
    return safe.strip(".-") or "gpt2"
