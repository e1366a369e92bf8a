"""The folder of the package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # src/gptexp, or gptexp in site-packages
