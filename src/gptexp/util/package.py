"""Where the package lies."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # the folder src/gptexp, or gptexp where it is installed
