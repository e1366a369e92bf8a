"""Runs with several validation texts, and the folders of the runs of each text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gptexp.report.reading import Run
from gptexp.util.files import display_path

MOST_FOLDERS = 3
MOST_GROUPS = 6


def by_text(runs: Sequence[Run]) -> list[str]:
    """Describe the folders of each validation text, the most frequent text first; [] if there is only one text."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.text_sha256, []).append(run)
    if len(groups) < 2:
        return []
    ordered = sorted(groups.values(), key=len, reverse=True)
    more = [f"and {len(ordered) - MOST_GROUPS} more texts"] if len(ordered) > MOST_GROUPS else []
    return [_described(group, runs) for group in ordered[:MOST_GROUPS]] + more


def _described(group: Sequence[Run], runs: Sequence[Run]) -> str:
    folders = [display_path(folder) for folder in _folders(group, runs)]
    more = [f"and {len(folders) - MOST_FOLDERS} more folders"] if len(folders) > MOST_FOLDERS else []
    kinds = Counter(str(run.settings.get("data.path") or run.settings.get("data.kind")) for run in group)
    count = f"{len(group)} run{'' if len(group) == 1 else 's'}"
    return f"{' '.join([*folders[:MOST_FOLDERS], *more])} ({count} on {kinds.most_common(1)[0][0]})"


def _folders(group: Sequence[Run], runs: Sequence[Run]) -> list[Path]:
    """The parent folder if all runs in it belong to the group, else the folders of the runs."""
    included = {run.folder for run in group}
    mixed = {run.folder.parent for run in runs if run.folder not in included}
    return list(dict.fromkeys(run.folder if run.folder.parent in mixed else run.folder.parent for run in group))
