"""The device, the data and the versions of the code of a run, read from its provenance files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gptexp.runs.history import Segment
from gptexp.runs.layout import PROVENANCE
from gptexp.util.files import read_json


def origin(path: Path) -> dict[str, str]:
    """Return the device and the fingerprint of the data in provenance.json; {} if it cannot be read."""
    try:
        facts = read_json(path)
        hardware, data = ((facts.get(part) or {}) for part in ("hardware", "data"))
        gpus = hardware.get("gpus")
        cpu = f"{hardware['cpu']}, {hardware.get('torch_threads')} threads" if "cpu" in hardware else None
        device = f"{len(gpus)} × {gpus[0]}" if gpus else cpu
        found: dict[str, Any] = {"device": device, "data": data.get("fingerprint")}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def code_versions(folder: Path, history: Iterable[Segment]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the versions of the code that trained a run, in order, and the commits of those that are hashes.

    A version is named by the hash of the code, or by its commit if no hash is known. A resumed run writes
    provenance-<step>.json besides provenance.json, so all of them are read.
    """
    paths = sorted(folder.glob(f"{Path(PROVENANCE).stem}*.json"), key=lambda path: natural(path.stem))
    commits = dict(filter(None, map(_commit, paths)))
    hashes = [sha for part in history if (sha := part.get("code_sha256"))]
    names = [sha[:8] for sha in hashes] or commits.values()
    return tuple(dict.fromkeys(names)), {sha[:8]: commits[sha] for sha in hashes if sha in commits}


def _commit(path: Path) -> tuple[str, str] | None:
    """The hash of the code, or the file's name without one, and the commit in a provenance file."""
    try:
        facts = read_json(path)
        commit, diff = facts["git"]["commit"], facts["git"].get("diff")
        changes = f" with changes {hashlib.sha256(diff.encode()).hexdigest()[:4]}" if diff else ""
        return str(facts.get("code_sha256") or path.name), f"commit {commit[:7]}{changes}"
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts job 2 before job 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
