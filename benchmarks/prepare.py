"""Measure tokenizing a corpus, compared with nanoGPT's script, and learning merges, compared with the library alone.

    python benchmarks/prepare.py --nanogpt PATH [--megabytes 100] [--turns 3]
    python benchmarks/prepare.py --works merges
    python benchmarks/prepare.py --works gpt2 --megabytes 5000 --turns 1

gpt2: tokenize with GPT-2's vocabulary. With PATH, a clone of https://github.com/karpathy/nanoGPT, the comparison
includes its script, which uses several processes (it needs `pip install datasets tqdm`). merges: learn a vocabulary of
32,000 tokens, compared with the library that gptexp uses for this. The text is source code of the Python installation,
one document per file, repeated up to the requested size. nanoGPT reads it as a data set on disk instead of OpenWebText.
All times are those of whole commands, including imports.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import record
from rich.console import Console
from rich.table import Table

ENCODING = """
import tiktoken
from gptexp.config.tokenizer import GPT2TokenizerConfig
from gptexp.tokenizers import train_tokenizer
own = train_tokenizer(GPT2TokenizerConfig())._encoding
whole = tiktoken.Encoding(
    "gpt2", pat_str=own._pat_str, mergeable_ranks=own._mergeable_ranks, special_tokens={"<|endoftext|>": 50256}
)
tiktoken.get_encoding = lambda name: whole
"""
THEIRS = """
import datasets
datasets.load_dataset = lambda *_, **__: datasets.DatasetDict(train=datasets.load_from_disk("documents"))
import runpy
runpy.run_path("prepare.py", run_name="__main__")
"""
OURS = ["-m", "gptexp.prepare", "data=text", "data.path=text/*.txt", "tokenizer=gpt2"]
WORDS = 32_000
BARE_MERGES = f"""
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
split = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = split
trainer = trainers.BpeTrainer(vocab_size={WORDS - 1}, initial_alphabet=split.alphabet(), show_progress=False)
texts = (path.read_text(encoding="utf-8") for path in sorted(Path("text").glob("*.txt")))
tokenizer.train_from_iterator(texts, trainer)
"""
OUR_MERGES = f"""
from gptexp.config.data import TextConfig
from gptexp.config.tokenizer import BPEConfig
from gptexp.data.corpora import open_corpus
from gptexp.tokenizers import train_tokenizer
from pathlib import Path
corpus = open_corpus(TextConfig(path="text/*.txt"), Path("cache"))
train_tokenizer(BPEConfig(vocab_size={WORDS}, train_bytes=10**12), (text for _, text in corpus.pieces()))
"""
LOOP = """
from pathlib import Path
import numpy as np
encoding = tiktoken.get_encoding("gpt2")
texts = (path.read_text(encoding="utf-8") for path in sorted(Path("text").glob("*.txt")))
np.concatenate([np.array(encoding.encode_ordinary(text), dtype=np.uint16) for text in texts]).tofile("loop.bin")
"""
FEWER = ("total_batches = 1024", "total_batches = min(1024, len(dset))")  # its number of batches needs more documents
DOCUMENTS = """
import datasets
from pathlib import Path
texts = [path.read_text(encoding="utf-8") for path in sorted(Path("text").glob("*.txt"))]
datasets.Dataset.from_dict({"text": texts}).save_to_disk("documents")
"""


@dataclass(frozen=True)
class Cost:
    """Cost of one run of a program: seconds, and the peak memory in MB of its largest process."""

    seconds: float
    memory: float


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", type=Path, metavar="PATH", help="a clone of nanoGPT")
    p.add_argument("--works", default="gpt2", help="measurements to run, from gpt2,merges (default: %(default)s)")
    p.add_argument("--megabytes", type=int, default=100, help="size of the text (default: 100)")
    p.add_argument("--turns", type=int, default=3, help="number of measurements of each program (default: 3)")
    record.add_option(p, "prepare")
    options = p.parse_args()
    script = options.nanogpt / "data/openwebtext/prepare.py" if options.nanogpt else None
    if script and not script.is_file():
        p.error(f"--nanogpt={options.nanogpt}: contains no data/openwebtext/prepare.py")
    if unknown := set(options.works.split(",")) - {"gpt2", "merges"}:
        p.error(f"--works={','.join(sorted(unknown))}: choose from gpt2, merges")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as scratch:
        place = Path(scratch)
        size = collect(place / "text", options.megabytes * 1_000_000)
        for work in options.works.split(","):
            programs = (
                tokenizing(place, script) if work == "gpt2" else {"gptexp": OUR_MERGES, "tokenizers": BARE_MERGES}
            )
            rows += measure(work, programs, place, size, options.turns)
    record.save(options.json, rows)


def tokenizing(place: Path, script: Path | None) -> dict[str, str | list[str]]:
    """Return the programs by name, after creating the data set for nanoGPT's."""
    programs: dict[str, str | list[str]] = {"gptexp": OURS, "tiktoken, one thread": ENCODING + LOOP}
    if script:
        (place / "prepare.py").write_text(script.read_text().replace(*FEWER))
        run(DOCUMENTS, place)
        programs["nanoGPT"] = ENCODING + THEIRS
    return programs


def measure(
    work: str, programs: Mapping[str, str | list[str]], place: Path, size: int, turns: int
) -> list[dict[str, object]]:
    """Run the programs in turn, print the table and return its rows."""
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    for _ in range(turns):
        for name, program in programs.items():
            costs[name].append(run(program, place))
            for left in ("data", "cache", "documents/cache-*"):
                for path in place.glob(left):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    title = "GPT-2's vocabulary" if work == "gpt2" else f"learning {WORDS:,} tokens"
    table = Table(f"{size / 1e6:,.0f} MB, {title}", "seconds", "MB/s", "speed of gptexp relative to it", "memory, MB")
    rows: list[dict[str, object]] = []
    for name, found in costs.items():
        seconds = statistics.median(cost.seconds for cost in found)
        ratio = statistics.median(b.seconds / a.seconds for a, b in zip(costs["gptexp"], found, strict=True))
        memory = max(cost.memory for cost in found)
        table.add_row(name, f"{seconds:.1f}", f"{size / 1e6 / seconds:.1f}", f"{ratio:.2f}", f"{memory:,.0f}")
        taken = [cost.seconds for cost in found]
        rows.append(
            {"work": work, "program": name, "bytes": size, "seconds": taken, "ratio": ratio, "memory_mb": memory}
        )
    Console().print(table)
    return rows


def collect(folder: Path, wanted: int) -> int:
    """Copy source files of the Python installation until they have the wanted size; return the size in bytes."""
    folder.mkdir()
    size = 0
    places = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    sources = [path for place in places for path in sorted(place.rglob("*.py"))]
    for number, path in enumerate(itertools.cycle(sources)):
        if size >= wanted:
            break
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if text.strip():
            (folder / f"{number:07d}.txt").write_text(text, encoding="utf-8")
            size += len(text.encode())
    return size


def run(program: str | list[str], place: Path) -> Cost:
    """Run a Python program in a folder and return its cost."""
    arguments = ["-c", program] if isinstance(program, str) else program
    with (place / "printed.log").open("w+") as log:
        begin = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], cwd=place, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)  # Popen cannot read it after wait4
        if process.returncode:
            log.seek(0)
            sys.exit(log.read())
    return Cost(seconds, usage.ru_maxrss / 1000)


if __name__ == "__main__":
    main()
