"""Compare a run with its exports in other programs: transformers, and llama.cpp with f32, f16 and q8_0.

    python benchmarks/exported.py RUN --text FILE [--prompt "The"] [--tokens 100] [--windows 100]

For each program: how many of the greedy tokens after the prompt equal gptexp's before the first that differs, and nats
per token of the text, in windows of block_size that do not overlap. Each program uses its own tokenizer. llama.cpp
keeps keys and values in float32 here. Prints a table.
Needs `pip install transformers gguf llama-cpp-python`; the last one is compiled, which takes about ten minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gptexp.commands.export import export
from gptexp.generation.decoding import stream_tokens
from gptexp.objectives.loading import load_model
from gptexp.runs.finding import find_checkpoint
from gptexp.runs.opening import open_checkpoint


class Program(Protocol):
    """What runs a model. size: bytes of its weights' file."""

    size: int

    def encode(self, text: str) -> list[int]: ...
    def greedy(self, tokens: list[int], n: int) -> Iterator[int]: ...
    def logits(self, tokens: list[int]) -> Tensor:
        """(T, V) after each of the tokens."""


class Gptexp:
    def __init__(self, run: str) -> None:
        path = find_checkpoint(run)
        self.model, self.tokenizer = load_model(open_checkpoint(path), path)
        self.size = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer.encode(text).tolist()
        return tokens

    def greedy(self, tokens: list[int], n: int) -> Iterator[int]:
        return iter(stream_tokens(self.model, tokens, max_new_tokens=n, temperature=0))

    def logits(self, tokens: list[int]) -> Tensor:
        out: Tensor = self.model(torch.tensor([tokens]))[0]
        return out


class Transformers:
    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.size = (folder / "model.safetensors").stat().st_size

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer(text)["input_ids"]
        return tokens

    def greedy(self, tokens: list[int], n: int) -> Iterator[int]:
        prompt = torch.tensor([tokens])
        mask = torch.ones_like(prompt)
        out = self.model.generate(prompt, attention_mask=mask, do_sample=False, max_new_tokens=n, pad_token_id=0)
        return iter(out[0, len(tokens) :].tolist())

    def logits(self, tokens: list[int]) -> Tensor:
        out: Tensor = self.model(torch.tensor([tokens])).logits[0]
        return out


class LlamaCpp:
    def __init__(self, folder: Path, block_size: int) -> None:
        from llama_cpp import GGML_TYPE_F32, Llama

        path = folder / "model.gguf"
        cache = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}
        self.model = Llama(str(path), n_ctx=block_size, n_batch=block_size, logits_all=True, verbose=False, **cache)
        self.size = path.stat().st_size

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self.model.tokenize(text.encode(), add_bos=False, special=False)
        return tokens

    def greedy(self, tokens: list[int], n: int) -> Iterator[int]:
        return islice(self.model.generate(tokens, temp=0.0, repeat_penalty=1.0), n)

    def logits(self, tokens: list[int]) -> Tensor:
        self.model.reset()
        self.model.eval(tokens)
        return torch.tensor(self.model.scores[: len(tokens)])


@dataclass
class Measured:
    nats: float
    size: int
    tokens: list[int]
    greedy: list[int]


def measure(program: Program, text: str, prompt: str, options: argparse.Namespace, block_size: int) -> Measured:
    tokens = program.encode(text)[: options.windows * block_size]
    total, count = 0.0, 0
    for start in range(0, len(tokens) - 1, block_size):
        window = tokens[start : start + block_size]
        logits = program.logits(window)[:-1].double()  # (T - 1, V)
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(window[1:]), reduction="sum"))
        count += len(window) - 1
    greedy = list(program.greedy(program.encode(prompt), options.tokens))
    return Measured(total / count, program.size, tokens, greedy)


@torch.inference_mode()
def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--text", type=Path, required=True, help="a file in UTF-8 that the run was not trained on")
    parser.add_argument("--prompt", default="The")
    parser.add_argument("--tokens", type=int, default=100, help="greedy tokens (default: 100)")
    parser.add_argument("--windows", type=int, default=100, help="windows of the text at most (default: 100)")
    options = parser.parse_args()
    ours = Gptexp(options.run)
    block_size: int = ours.model.config.block_size  # type: ignore[assignment, union-attr]
    text = options.text.read_text(encoding="utf-8")
    columns = ("bytes", "same tokens of the text", "same greedy tokens", "nats per token", "difference")
    table = Table("program", *columns, title=options.run)
    base = measure(ours, text, options.prompt, options, block_size)
    for name, program in programs(options.run, ours, block_size):
        found = base if program is ours else measure(program, text, options.prompt, options, block_size)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(found.greedy, base.greedy, strict=False)))
        cells = [f"{found.size:,}", str(found.tokens == base.tokens), f"{same} of {len(base.greedy)}"]
        table.add_row(name, *cells, f"{found.nats:.6f}", f"{found.nats - base.nats:+.6f}")
    Console().print(table)


def programs(run: str, ours: Gptexp, block_size: int) -> Iterator[tuple[str, Program]]:
    """Yield each program with the exported model, one after the other."""
    yield "gptexp", ours
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        export(run, folder / "hf")
        yield "transformers", Transformers(folder / "hf")
        for outtype in ("f32", "f16", "q8_0"):
            export(run, folder / outtype, file_format="gguf", outtype=outtype)
            yield f"llama.cpp, {outtype}", LlamaCpp(folder / outtype, block_size)


if __name__ == "__main__":
    main()
