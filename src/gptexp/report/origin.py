"""The device, the data and the versions of the code of a run, read from its provenance files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from gptexp.runs.history import Segment
from gptexp.runs.provenance import provenance_files, read_provenance


def origin(path: Path) -> dict[str, str]:
    """Return the device and the fingerprint of the data in provenance.json; {} if it is missing or damaged."""
    try:
        found = read_provenance(path)
    except (OSError, ValueError):
        return {}
    hardware, gpus = found.hardware, found.hardware.get("gpus")
    cpu = f"{hardware['cpu']}, {hardware.get('torch_threads')} threads" if "cpu" in hardware else None
    known = {"device": f"{len(gpus)} × {gpus[0]}" if gpus else cpu, "data": found.data.get("fingerprint")}
    return {name: value for name, value in known.items() if value is not None}


def code_versions(folder: Path, history: Iterable[Segment]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the versions of the code that trained a run, in order, and the commits of those that are hashes.

    A version is named by the hash of the code, or by its commit if no hash is known. A resumed run writes
    provenance-<step>.json besides provenance.json, so all of them are read.
    """
    commits = dict(filter(None, map(_commit, provenance_files(folder))))
    hashes = [sha for part in history if (sha := part.get("code_sha256"))]
    names = [sha[:8] for sha in hashes] or commits.values()
    return tuple(dict.fromkeys(names)), {sha[:8]: commits[sha] for sha in hashes if sha in commits}


def _commit(path: Path) -> tuple[str, str] | None:
    """The hash of the code, or the file's name without one, and the commit in a provenance file."""
    try:
        found = read_provenance(path)
    except (OSError, ValueError):
        return None
    if found.git is None:
        return None
    diff = (found.git.diff or "").encode(errors="surrogatepass")
    changes = f" with changes {hashlib.sha256(diff).hexdigest()[:4]}" if diff else ""
    return found.code_sha256 or path.name, f"commit {found.git.commit[:7]}{changes}"


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts job 2 before job 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
