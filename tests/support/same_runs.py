"""What differs between two run folders, apart from times, throughput and provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptexp.commands.verify_resume import _bits, _curves, _logged
from gptexp.runs import samples
from gptexp.runs.opening import load

FREE = {"seconds", "training_seconds", "tokens_per_second", "resumed_from", "steps_computed"}  # of result.json
TIMED = ("tokens_per_second", "mfu", "seconds")


def differences(a: Path, b: Path) -> list[str]:
    """Return the name and the two values of everything that differs."""
    first, second = dict(_contents(a)), dict(_contents(b))
    assert len(first) > 50
    return [
        f"{key}: {first.get(key)} ≠ {second.get(key)}"
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]


def _contents(folder: Path) -> Iterator[tuple[str, Any]]:
    for name in ("last.ckpt", "best.ckpt"):
        found = load(folder / "checkpoints" / name)
        for part, values in (("model", found.model), ("optimizer", found.optimizer)):
            yield from ((f"{name} {part} {key}", value) for key, value in _bits(values).items())
        metrics = {key: value for key, value in found.metrics.items() if key not in ("seconds", "inherited")}
        yield f"{name} metrics", metrics
        yield (
            f"{name} rest",
            str((found.step, found.history, found.callbacks, found.stopped, found.precision, found.data)),
        )
        kept = {key: value for key, value in found.config.items() if key not in ("resume", "sweep", "paths")}
        yield f"{name} config", kept
    yield from ((f"metrics.csv {key}", value) for key, value in _logged(folder).items())
    yield from ((f"TensorBoard {key}", value) for key, value in _curves(folder).items() if key[0] not in TIMED)
    yield "samples.md", samples.read(folder)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    yield from ((f"result.json {key}", value) for key, value in result.items() if key not in FREE)
