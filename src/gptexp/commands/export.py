"""`gptexp export`: write a run as a folder that transformers or llama.cpp loads."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gptexp.util.text import install_extra

if TYPE_CHECKING:
    from gptexp.config.model import GPTConfig
    from gptexp.runs.huggingface.weights import Weights
    from gptexp.tokenizers import Tokenizer

CARD = "README.md"
# Programs for the model card: in transformers, and in llama.cpp's package for Python.
USE_HF = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({folder})
tokenizer = AutoTokenizer.from_pretrained({folder})
prompt = tokenizer("The", return_tensors="pt")
print(tokenizer.decode(model.generate(prompt["input_ids"], max_new_tokens=50)[0]))
"""
USE_GGUF = """from llama_cpp import Llama

model = Llama({folder} + "/model.gguf", n_ctx=0)
print(model("The", max_tokens=50)["choices"][0]["text"])
"""


def run(arguments: argparse.Namespace) -> None:
    """Write the folder and print the sizes of its files."""
    sizes = export(arguments.run, arguments.out, arguments.logs, arguments.format, arguments.outtype)
    print(f"{arguments.out}: " + " · ".join(f"{name} ({size:,} bytes)" for name, size in sizes.items()))


def export(
    run: str, out: Path, logs: Path = Path("logs"), file_format: str = "hf", outtype: str | None = None
) -> dict[str, int]:
    """Write the folder, completely or not at all; return the sizes of its files by name.

    file_format: hf or gguf. outtype: of the matrices in gguf, f32 (default), f16 or q8_0.

    Raises:
        ValueError: the run does not exist, or the format can't hold its model or tokenizer.
        OSError: `out` is not empty or cannot be written.
    """
    from gptexp.config.conversion import from_plain
    from gptexp.runs.finding import find_checkpoint
    from gptexp.runs.huggingface.config import form_of
    from gptexp.util.files import atomic_folder, atomic_write, require_free_folder

    require_free_folder(out)
    _require_options(file_format, outtype)
    path = find_checkpoint(run, logs)

    from gptexp.models.weights import model_tensors
    from gptexp.objectives.loading import load_model
    from gptexp.report.model_card import model_card
    from gptexp.runs import gguf
    from gptexp.runs.huggingface.weights import exported
    from gptexp.runs.opening import open_checkpoint

    checkpoint = open_checkpoint(path)
    form = form_of(from_plain("model", checkpoint.config.get("model")))
    # Loading the model checks that settings, tokenizer and weights fit together, and merges adapters.
    model, tokenizer = load_model(checkpoint, path)
    config, stored = cast("GPTConfig", model.config), model_tensors(model)
    if file_format == "gguf":
        gguf.require_supported(config, tokenizer)
    dtype = str(next(iter(stored.values())).dtype).removeprefix("torch.")
    described = form.config_json(config, tokenizer.vocab_size, tokenizer.eot, dtype)
    card = model_card(
        path,
        checkpoint,
        library={"hf": "transformers", "gguf": "llama.cpp"}[file_format],
        architecture=described["architectures"][0],
        use={"hf": USE_HF, "gguf": USE_GGUF}[file_format].format(folder=json.dumps(out.resolve().name)),
        size=sum(tensor.numel() for tensor in stored.values()),
    )
    with atomic_folder(out) as folder:
        atomic_write(folder / CARD, card.encode())
        if file_format == "hf":
            _write_folder(folder, described, exported(stored, config), tokenizer, config.block_size)
        else:
            name = str(checkpoint.config.get("name", "gptexp"))
            gguf.write(folder / gguf.FILE, name, described, exported(stored, config), tokenizer, outtype or "f32")
    return {file.name: file.stat().st_size for file in sorted(out.iterdir())}


def _require_options(file_format: str, outtype: str | None) -> None:
    if file_format == "hf" and outtype is not None:
        raise ValueError(f"--outtype {outtype}: only for --format gguf; transformers gets the type of the run")
    if file_format == "gguf" and importlib.util.find_spec("gguf") is None:
        raise ValueError(f"--format gguf: needs the package gguf; {install_extra('gguf')}")


def _write_folder(
    folder: Path, described: dict[str, Any], weights: Weights, tokenizer: Tokenizer, block_size: int
) -> None:
    from gptexp.runs.huggingface import WEIGHTS
    from gptexp.runs.huggingface.config import CONFIG
    from gptexp.tokenizers.huggingface_export import files_of
    from gptexp.util.files import atomic_write

    texts = {CONFIG: f"{json.dumps(described, indent=2)}\n".encode(), **files_of(tokenizer, block_size)}
    for name, data in texts.items():
        atomic_write(folder / name, data)
    _write_weights(weights, folder / WEIGHTS)


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
