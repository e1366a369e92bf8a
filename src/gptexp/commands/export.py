"""`gptexp export`: write a run as a folder that transformers loads."""

from __future__ import annotations

import argparse
import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptexp.runs.checkpoint import Checkpoint
    from gptexp.runs.huggingface.weights import Weights


def run(arguments: argparse.Namespace) -> None:
    """Write the folder and print the sizes of its files."""
    sizes = export(arguments.run, arguments.out, arguments.logs)
    print(f"{arguments.out}: " + " · ".join(f"{name} ({size:,} bytes)" for name, size in sizes.items()))


def export(run: str, out: Path, logs: Path = Path("logs")) -> dict[str, int]:
    """Write the folder, completely or not at all; return the sizes of its files by name.

    Raises:
        ValueError: the run does not exist or is not a GPT-2 model.
        OSError: `out` is not empty or cannot be written.
    """
    from gptexp.config.conversion import from_plain
    from gptexp.runs.finding import find_checkpoint
    from gptexp.runs.huggingface.config import require_gpt2
    from gptexp.util.files import atomic_folder, atomic_write, require_free_folder

    require_free_folder(out)
    path = find_checkpoint(run, logs)

    from gptexp.runs.huggingface import WEIGHTS
    from gptexp.runs.opening import open_checkpoint

    checkpoint = open_checkpoint(path)
    require_gpt2(from_plain("model", checkpoint.config.get("model")))
    texts, model_tensors = _texts_and_weights(checkpoint, path)
    with atomic_folder(out) as folder:
        for name, data in texts.items():
            atomic_write(folder / name, data)
        _write_weights(model_tensors, folder / WEIGHTS)
    return {file.name: file.stat().st_size for file in sorted(out.iterdir())}


def _texts_and_weights(checkpoint: Checkpoint, path: Path) -> tuple[dict[str, bytes], Weights]:
    """Return all files except the weights, and the weights.

    Loading the model checks that settings, tokenizer and weights fit together, and merges adapters.
    """
    from gptexp.models.weights import model_tensors
    from gptexp.objectives.loading import load_model
    from gptexp.runs.huggingface.config import CONFIG, config_json
    from gptexp.runs.huggingface.weights import exported
    from gptexp.tokenizers.huggingface_export import files_of

    model, tokenizer = load_model(checkpoint, path)
    stored = model_tensors(model)
    dtype = str(next(iter(stored.values())).dtype).removeprefix("torch.")
    config = config_json(model.config, tokenizer.vocab_size, tokenizer.eot, dtype)  # type: ignore[arg-type]
    texts = files_of(tokenizer, config["n_positions"])
    return {CONFIG: f"{json.dumps(config, indent=2)}\n".encode(), **texts}, exported(stored, model.config)  # type: ignore[arg-type]


def _write_weights(weights: Weights, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from gptexp.util.files import atomic_path

    needs = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    with atomic_path(path, needs=needs) as temporary:
        try:
            save_file(weights, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # contains the system's error in its text
            full = "os error 28" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from None
