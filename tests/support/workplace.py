"""A working directory with the files that the documents use: texts, labelled texts, and a miniature GPT-2."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from support import shrink

LINES = [
    'Harry said, "No!" and the owl went on with its letter.',
    "The baker counts her loaves before the sun is up.",
    "Outside, the market opens; eight bells, nine crows, no thief in sight.",
    "A grey cat sleeps on the warm oven, as cats do!",
]
TEXTS = ["data/harrypotter/1.txt", "books/one.txt", "books/two.txt", "我的书/一.txt", "letters.txt", "a.txt"]
LABELLED = ["reviews.csv", "functions.csv"]
GPT2 = {"vocab_size": 257, "n_positions": 256, "n_embd": 8, "n_layer": 1, "n_head": 2}


def story(lines: int = 900) -> str:
    """A text in ASCII that repeats itself with small changes."""
    return "\n".join(f"{LINES[i % 4]} ({i % 7})" for i in range(lines)) + "\n"


def lay(place: Path) -> Path:
    """Create all files."""
    for name in (*TEXTS, shrink.SHAKESPEARE):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(story(), encoding="utf-8")
    for name in LABELLED:
        with (place / name).open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", "label"])
            rows.writerows((f"{LINES[i % 4]} {i}", "even" if i % 2 == 0 else "odd") for i in range(80))
    (place / "旧书.txt").write_text("她走进厨房，面包已经凉了。\n" * 200, encoding="gb18030")
    (place / "note.txt").write_text("Bread, eggs, ink.\n", encoding="utf-8")
    lay_gpt2(place / "gpt2")
    return place


def lay_gpt2(folder: Path) -> None:
    """Random weights in Hugging Face's form, under the published name: a folder of that name comes before the hub.

    Its vocabulary is the 256 bytes, in GPT-2's spelling, and <|endoftext|>.
    """
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **GPT2, "eos_token_id": 256}))
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    spelled = {byte: chr(byte) for byte in printed} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    vocabulary = {spelled[byte]: byte for byte in range(256)} | {"<|endoftext|>": 256}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    save_file(_weights(), folder / "model.safetensors", metadata={"format": "pt"})


def _weights() -> dict[str, np.ndarray]:
    e, draw = GPT2["n_embd"], np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (GPT2["vocab_size"], e), "wpe.weight": (GPT2["n_positions"], e)}
    for norm in ("h.0.ln_1", "h.0.ln_2", "ln_f"):
        shapes |= {f"{norm}.weight": (e,), f"{norm}.bias": (e,)}
    for layer, (rows, columns) in {
        "attn.c_attn": (e, 3 * e),
        "attn.c_proj": (e, e),
        "mlp.c_fc": (e, 4 * e),
        "mlp.c_proj": (4 * e, e),
    }.items():
        shapes |= {f"h.0.{layer}.weight": (rows, columns), f"h.0.{layer}.bias": (columns,)}
    return {name: (0.1 * draw.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
