"""The index of `gptexp runs`: records of runs whose files have not changed. Deleting it costs only time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gptexp.report.listing.record import Record, read
from gptexp.report.listing.scan import Found
from gptexp.runs.layout import RUNS_INDEX
from gptexp.util.files import TEXT_BYTES, atomic_write, read_json
from gptexp.util.package import PACKAGE

SETTLED = 2e9  # ns; a file that changed later may change again without another date: FAT counts in steps of 2 s


def records(root: Path, found: Sequence[Found]) -> list[Record]:
    """Return the record of each folder below root, and store those that are new in the index."""
    known = _load(root / RUNS_INDEX)
    began, result, kept = time.time_ns(), list[Record](), dict[str, Any]()
    for one in found:
        stored = known.get(one.name)
        if one.problem:
            record = Record(problem=one.problem)
        elif stored is not None and stored[0] == one.stamps:
            record, kept[one.name] = Record(**stored[1]), stored
        else:
            record = read(one.folder, is_sweep=one.is_sweep)
            if all(max(changed, created) < began - SETTLED for changed, created, _ in one.stamps.values()):
                kept[one.name] = [one.stamps, vars(record)]
        result.append(record)
    if kept.keys() != known.keys() or any(kept[name] is not known[name] for name in kept):
        foreign = any(record["foreign"] for _, record in kept.values())
        content = {"made_by": _made_by(foreign=foreign), "foreign": foreign, "folders": kept}
        with suppress(OSError):  # a full disk, or a folder that others own
            atomic_write(root / RUNS_INDEX, json.dumps(content, separators=(",", ":")).encode())
    return result


def _made_by(*, foreign: bool) -> str:
    """Return what identifies this code, and if foreign the packages that extend it: others may read runs differently.

    It follows from dates of this installation, so nobody else writes an index that is used here.
    """
    files = [(str(path), path.stat()) for path in sorted(PACKAGE.rglob("*.py"))]
    stamps = repr([(name, found.st_mtime_ns, found.st_size) for name, found in files])
    if foreign:
        from gptexp.runs import code_hash  # imports OmegaConf

        stamps += code_hash.all_code_sha256()
    return hashlib.sha256(stamps.encode(errors="surrogatepass")).hexdigest()


def _load(path: Path) -> dict[str, Any]:
    """Return [stamps, record] by folder; {} if the index is absent, damaged, or of other code."""
    with suppress(OSError, ValueError):
        stored = read_json(path, TEXT_BYTES)
        if stored.get("made_by") == _made_by(foreign=bool(stored.get("foreign"))):
            folders: dict[str, Any] = stored["folders"]
            return folders
    return {}
