"""python -m gptexp.export RUN --out DIR: hand a run over to transformers, as a GPT-2 in Hugging Face's form."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gptexp.cli import one_line_errors
from gptexp.entry import entry_point
from gptexp.options import OptionParser

if TYPE_CHECKING:
    from gptexp.checkpoint import Checkpoint
    from gptexp.huggingface.weights import Weights


def parser() -> OptionParser:
    p = OptionParser(
        prog="python -m gptexp.export",
        description="Write a run as a folder that transformers' GPT2LMHeadModel and AutoTokenizer load.",
    )
    p.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    p.add_argument("--format", choices=["hf"], default="hf", help="hf: Hugging Face's GPT-2; default: %(default)s")
    p.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder, or an empty one")
    p.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    return p


@entry_point
def main(argv: list[str] | None = None) -> None:
    """The door."""
    arguments = parser().parse_args(argv)
    with one_line_errors():
        sizes = export(arguments.run, arguments.out, arguments.logs)
        print(f"{arguments.out}: " + " · ".join(f"{name} ({size:,} bytes)" for name, size in sizes.items()))


def export(run: str, out: Path, logs: Path = Path("logs")) -> dict[str, int]:
    """Write the folder, whole or not at all; the sizes of its files by name.

    Raises:
        ValueError: no such run, or one that is no GPT-2; the setting is named.
        OSError: `out` holds something, or can't be written.
    """
    from gptexp.files import atomic_folder, atomic_write, require_free_folder
    from gptexp.huggingface.config import require_gpt2
    from gptexp.runs import find_checkpoint
    from gptexp.schemas import from_plain

    require_free_folder(out)
    path = find_checkpoint(run, logs)

    from gptexp.checkpoint import open_run
    from gptexp.huggingface import WEIGHTS

    checkpoint = open_run(path)
    require_gpt2(from_plain("model", checkpoint.config.get("model")))
    texts, weights = _texts_and_weights(checkpoint, path)
    with atomic_folder(out) as folder:
        for name, data in texts.items():
            atomic_write(folder / name, data)
        _write_weights(weights, folder / WEIGHTS)
    return {file.name: file.stat().st_size for file in sorted(out.iterdir())}


def _texts_and_weights(checkpoint: Checkpoint, path: Path) -> tuple[dict[str, bytes], Weights]:
    """Every file but that of the weights, and these.

    Loading the model is what checks that settings, tokenizer and weights fit together, and what merges adapters.
    """
    from gptexp.checkpoint import weights
    from gptexp.huggingface.config import CONFIG, config_json
    from gptexp.huggingface.weights import theirs
    from gptexp.loading import load_model
    from gptexp.tokenizers.huggingface_export import files_of

    model, tokenizer = load_model(checkpoint, path)
    stored = weights(model)
    dtype = str(next(iter(stored.values())).dtype).removeprefix("torch.")
    config = config_json(model.config, tokenizer.vocab_size, tokenizer.eot, dtype)  # type: ignore[arg-type]
    texts = files_of(tokenizer, config["n_positions"])
    return {CONFIG: f"{json.dumps(config, indent=2)}\n".encode(), **texts}, theirs(stored)


def _write_weights(weights: Weights, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from gptexp.files import atomic_path

    needs = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    with atomic_path(path, needs=needs) as temporary:
        try:
            save_file(weights, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # it hides the system's own error in its text
            full = "os error 28" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from None


if __name__ == "__main__":
    main()
