"""GPT-2 in Hugging Face's form, read and written without transformers.

A folder with config.json and weights is a RUN like a checkpoint of ours; so are the names of the published
models. Nothing here imports torch but weights.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gptexp.runs.huggingface import hub
from gptexp.runs.huggingface.config import CONFIG, read_model
from gptexp.tokenizers import huggingface_files
from gptexp.util.files import read_json, user_path

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
KNOWN = (WEIGHTS, INDEX, PICKLED, PICKLED_INDEX)  # in this order

Plain = dict[str, Any]


def find(run: str, *, weights: bool = True) -> Path | None:
    """The folder that RUN means: itself, or a published model's; None where it is neither.

    weights: False where settings and tokenizer will do, so that a published model's weights aren't fetched yet.

    Raises:
        ValueError: the name of a published model that can't be fetched.
    """
    folder = user_path(run, "")
    if is_folder(folder):
        return folder
    if is_published(run):
        return hub.snapshot(run, is_folder if weights else _has_settings, weights=weights)
    return None


def is_published(run: str) -> bool:
    """Whether RUN is the name of a published model; something of that name in the current folder comes first."""
    return run in hub.REPOSITORIES and not Path(run).exists()


def is_folder(folder: Path) -> bool:
    """Whether a folder holds a model in Hugging Face's form."""
    return _has_settings(folder) and any((folder / name).is_file() for name in KNOWN)


def require_no_part(file: Path) -> None:
    """Refuse a file of weights given instead of its folder, which says what they are.

    Raises:
        ValueError: with the folder to give.
    """
    if file.suffix in (".safetensors", ".bin") or file.name.endswith(".index.json"):
        beside = "" if _has_settings(file.parent) else f", with its {CONFIG} beside it"
        raise ValueError(f"{file}: is only the weights of a model; give the folder {file.parent}{beside}")


def _has_settings(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights; safetensors before what is pickled.

    Raises:
        ValueError: the index is no index, names a file outside the folder, or one that is missing.
    """
    for name in KNOWN:
        if (folder / name).is_file():
            return _shards(folder, name) if name in (INDEX, PICKLED_INDEX) else [folder / name]
    raise ValueError(f"{folder}: no weights in it (looked for {', '.join(KNOWN)})")


def _shards(folder: Path, index: str) -> list[Path]:
    places = read_json(folder / index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{folder / index}: has no weight_map, which says where each weight lies")
    suffix = "safetensors" if index == INDEX else "bin"
    names = {name if isinstance(name, str) else json.dumps(name) for name in places.values()}
    for name in sorted(names):
        if not re.fullmatch(rf"[\w-][\w.-]*\.{suffix}", name):
            raise ValueError(f"{folder / index}: {name[:80]!r} can't be the name of a file with weights beside it")
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file, but {index} says that weights lie in it")
    return [folder / name for name in sorted(names)]


def read_settings(folder: Path, name: str | None = None) -> Plain:
    """The settings of a run that has done nothing yet, with the folder's model and tokenizer.

    name: what the user called it.

    Raises:
        ValueError: a model that isn't GPT-2's, or a tokenizer that doesn't fit it.
    """
    return _read(folder, name)[0]


def read_run(folder: Path) -> tuple[Plain, Plain]:
    """`read_settings`, and the tokenizer's state."""
    return _read(folder, None)


def _read(folder: Path, name: str | None) -> tuple[Plain, Plain]:
    from gptexp.config.conversion import from_plain, to_plain

    model, vocab_size = read_model(folder / CONFIG)
    state = _tokenizer(folder, vocab_size)
    tokenizer: Plain = {"kind": state["kind"]}
    if state["kind"] == "bpe":
        tokenizer["vocab_size"] = vocab_size
    elif state["kind"] == "files":
        tokenizer |= {"path": str(folder), "sha256": huggingface_files.sha256_of(folder)}
    groups = {"model": model, "tokenizer": to_plain(from_plain("tokenizer", tokenizer))}
    rest: dict[str, Plain] = {group: {} for group in ("data", "optimizer", "schedule", "trainer")}
    return {"name": _safe(name or "", folder), "seed": 1, **groups, **rest}, state


def _tokenizer(folder: Path, vocab_size: int) -> Plain:
    """Of the files where they are, else GPT-2's where the model has as many tokens."""
    if huggingface_files.has_files(folder):
        return huggingface_files.read_state(folder, vocab_size)
    if vocab_size == huggingface_files.GPT2_SIZE:
        return {"kind": "gpt2"}
    names = f"{huggingface_files.WHOLE}, or {huggingface_files.VOCAB} and {huggingface_files.MERGES}"
    raise ValueError(
        f"{folder}: its model has {vocab_size:,} tokens, which aren't GPT-2's {huggingface_files.GPT2_SIZE:,}, and "
        f"there is no tokenizer; put {names}, into the folder"
    )


def _safe(name: str, folder: Path) -> str:
    """A name for the folder of a run that begins with this one."""
    last = Path(name).name or folder.resolve().name
    plain = re.sub(r"[^\w.+=,-]+", "-", last).encode()[:60].decode(errors="ignore")
    return plain.strip(".-") or "gpt2"
