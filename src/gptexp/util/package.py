"""The folders of the code that a command runs: gptexp, and packages that extend it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # src/gptexp, or gptexp in site-packages
FOLDERS = [PACKAGE]  # gptexp.config.kinds adds those of packages that extend gptexp


def is_own(filename: str) -> bool:
    """Return whether a file of code belongs to gptexp or to a package that extends it."""
    path = Path(filename).resolve()
    return any(path.is_relative_to(folder) for folder in FOLDERS)
