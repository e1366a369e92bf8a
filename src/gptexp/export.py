"""python -m gptexp.export RUN --out DIR: write a run as a model for Hugging Face's transformers, or for llama.cpp."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptexp.util.entry_point import program_name
from gptexp.util.options import OptionParser, command


def parser() -> OptionParser:
    options = OptionParser(
        prog=program_name("gptexp.export"),
        description="Write a run as a folder that transformers (GPT-2, Llama or Qwen3) or llama.cpp loads.",
    )
    options.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file, or `latest`")
    about = "hf: config.json, safetensors and tokenizer for transformers (default); gguf: one file for llama.cpp"
    options.add_argument("--format", choices=["hf", "gguf"], default="hf", help=about)
    about = "type of the matrices in gguf: f32 (default), f16, or 8 bits with a factor for each 32 numbers (q8_0)"
    options.add_argument("--outtype", choices=["f32", "f16", "q8_0"], help=about)
    options.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder, or an empty one")
    options.add_argument("--logs", type=Path, default=Path("logs"), help="where `latest` looks; default: %(default)s")
    return options


@command(parser)
def main(arguments: argparse.Namespace) -> None:
    """Entry point of `gptexp export`."""
    from gptexp.commands import export

    export.run(arguments)


if __name__ == "__main__":
    main()
