"""Measure generation with GPT-2 124M (random weights): gptexp with and without a cache, and Hugging Face's `generate`.

    python benchmarks/generation.py [--model gpt2_small] [--batches 1,4,8] [--repeats 3]

Decoding is greedy, in float32, from prompts of 32 tokens. The three programs take turns in one process, so that other
load on the machine affects all of them. Prints the median tokens per second and the ratios to Hugging Face, and
writes them as JSON.
Needs `pip install transformers`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from gptexp.compose.composition import compose
from gptexp.generation.decoding import Decoder, Generation, RecomputingDecoder, make_decoder
from gptexp.models.build import build_model

PROMPT, VOCAB = 32, 50257
PEER = "Hugging Face"


def main() -> None:
    """Measure, print the table and write the JSON file."""
    options = arguments()
    ours, theirs = models(options.model)
    writers: dict[str, Callable[[list[list[int]], int], None]] = {
        "gptexp": lambda prompts, n: write(make_decoder(ours, prompts, n), n),
        PEER: lambda prompts, n: generate(theirs, prompts, n),
        "gptexp without a cache": lambda prompts, n: write(RecomputingDecoder(ours, prompts), n),
    }
    table = Table("texts", "tokens per text", "program", "tokens/s", f"ratio to {PEER}", title=options.model)
    rows: list[dict[str, Any]] = []
    for batch in map(int, options.batches.split(",")):
        for row in measured(writers, batch, options):
            rows.append(row)
            cells = [row["texts"], row["tokens"], row["writer"], f"{row['rate']:.1f}", f"{row['ratio']:.2f}"]
            table.add_row(*map(str, cells))
    Console().print(table)
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "model": options.model, "rows": rows}
    options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="gpt2_small", help="a preset of the GPT-2 family (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=100, help="new tokens for each text (default: 100)")
    parser.add_argument("--uncached-tokens", type=int, default=10, help="the same without a cache (default: 10)")
    parser.add_argument("--batches", default="1,4,8", help="numbers of texts generated in parallel (default: 1,4,8)")
    parser.add_argument("--repeats", type=int, default=3, help="number of measurements of each program (default: 3)")
    parser.add_argument("--json", type=Path, default=Path("generation.json"))
    return parser.parse_args()


def models(preset: str) -> tuple[torch.nn.Module, Any]:
    """Return two random models of the same shape, gptexp's and Hugging Face's. The speed does not depend on weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config: Any = compose([f"model={preset}", "data=pydocs"]).model
    theirs = GPT2LMHeadModel(
        GPT2Config(
            n_layer=config.n_layer, n_head=config.n_head, n_embd=config.n_embd, n_positions=config.block_size
        )
    )  # fmt: skip
    return build_model(config, VOCAB, seed=1).eval(), theirs.eval()


def measured(writers: dict[str, Callable[..., None]], batch: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each program; the programs take turns."""
    prompts = torch.randint(VOCAB - 1, (batch, PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
    lengths = {name: options.uncached_tokens if "without" in name else options.tokens for name in writers}
    rates: dict[str, list[float]] = {name: [] for name in writers}
    for writer in writers.values():
        writer(prompts, 2)  # warm up
    for _ in range(options.repeats):
        for name, writer in writers.items():
            begin = time.perf_counter()
            writer(prompts, lengths[name])
            rates[name].append(batch * lengths[name] / (time.perf_counter() - begin))
    return [
        {
            "texts": batch,
            "tokens": lengths[name],
            "writer": name,
            "rate": statistics.median(rates[name]),
            "ratio": statistics.median(a / b for a, b in zip(rates[name], rates[PEER], strict=True)),
        }
        for name in writers
    ]


def write(decoder: Decoder, n: int) -> None:
    """Generate n tokens for each text with gptexp."""
    for _ in Generation(decoder, [None] * len(decoder.sequences), max_new_tokens=n, temperature=0):
        pass


def generate(model: Any, prompts: list[list[int]], n: int) -> None:
    """Generate n tokens for each text with Hugging Face; min_new_tokens prevents an early stop."""
    tokens = torch.tensor(prompts)
    model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, min_new_tokens=n, do_sample=False,
        pad_token_id=VOCAB - 1,
    )  # fmt: skip


if __name__ == "__main__":
    main()
