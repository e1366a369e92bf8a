"""What stands for a picture in tests of everything around it; tests/report/test_plots.py looks at real ones."""

from __future__ import annotations

PNG = b"\x89PNG\r\n\x1a\n"  # how a file begins
PLOTS = dict.fromkeys(("curves.png", "ablation.png", "pareto.png"), PNG)  # of a comparison
