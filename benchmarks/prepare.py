"""Tokenizing by GPT-2's vocabulary beside nanoGPT's own script, which maps a data set over processes.

    python benchmarks/prepare.py --nanogpt PATH [--megabytes 100] [--turns 3]

PATH is a clone of https://github.com/karpathy/nanoGPT. The text is source code from this Python's installation, a
document a file, the same for both: theirs gets it as a data set on the disk in place of OpenWebText. Both are timed
as commands, imports included; so is a plain loop over tiktoken in one thread. `pip install datasets tqdm` for theirs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
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
LOOP = """
from pathlib import Path
import numpy as np
encoding = tiktoken.get_encoding("gpt2")
texts = (path.read_text(encoding="utf-8") for path in sorted(Path("text").glob("*.txt")))
np.concatenate([np.array(encoding.encode_ordinary(text), dtype=np.uint16) for text in texts]).tofile("loop.bin")
"""
FEWER = ("total_batches = 1024", "total_batches = min(1024, len(dset))")  # its own number wants more documents
DOCUMENTS = """
import datasets
from pathlib import Path
texts = [path.read_text(encoding="utf-8") for path in sorted(Path("text").glob("*.txt"))]
datasets.Dataset.from_dict({"text": texts}).save_to_disk("documents")
"""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanogpt", type=Path, required=True, metavar="PATH", help="a clone of nanoGPT")
    p.add_argument("--megabytes", type=int, default=100, help="size of the text (default: 100)")
    p.add_argument("--turns", type=int, default=3, help="times that each is measured (default: 3)")
    record.add_option(p, "prepare")
    options = p.parse_args()
    script = options.nanogpt / "data/openwebtext/prepare.py"
    if not script.is_file():
        p.error(f"--nanogpt={options.nanogpt}: no data/openwebtext/prepare.py in it")
    with tempfile.TemporaryDirectory(prefix="gptexp-bench-") as scratch:
        place = Path(scratch)
        size = collect(place / "text", options.megabytes * 1_000_000)
        (place / "prepare.py").write_text(script.read_text().replace(*FEWER))
        run(["-c", DOCUMENTS], place)
        times: dict[str, list[float]] = {"nanoGPT": [], "gptexp": [], "tiktoken, one thread": []}
        for _ in range(options.turns):
            times["nanoGPT"].append(run(["-c", ENCODING + THEIRS], place))
            times["gptexp"].append(run(OURS, place))
            times["tiktoken, one thread"].append(run(["-c", ENCODING + LOOP], place))
            for left in ("data", "documents/cache-*"):
                for path in place.glob(left):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    table = Table(f"tokenizing {size / 1e6:,.0f} MB", "seconds", "MB/s", "times nanoGPT's speed")
    rows = []
    for name, found in times.items():
        seconds = statistics.median(found)
        ratio = statistics.median(a / b for a, b in zip(times["nanoGPT"], found, strict=True))
        table.add_row(name, f"{seconds:.1f}", f"{size / 1e6 / seconds:.1f}", f"{ratio:.2f}")
        rows.append({"program": name, "bytes": size, "seconds": found, "ratio": ratio})
    Console().print(table)
    record.save(options.json, rows)


def collect(folder: Path, wanted: int) -> int:
    """Source files of the installation, copied until they are so many bytes; how many they are."""
    folder.mkdir()
    size = 0
    for place in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for number, path in enumerate(sorted(Path(place).rglob("*.py"))):
            if size >= wanted:
                return size
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if text.strip():
                (folder / f"{len(str(place))}-{number:06d}.txt").write_text(text, encoding="utf-8")
                size += len(text.encode())
    return size


def run(program: list[str], place: Path) -> float:
    """Seconds that a Python program takes in a folder."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *program], cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
