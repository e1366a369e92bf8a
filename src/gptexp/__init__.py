"""gptexp: GPT experiments with PyTorch Lightning and Hydra."""

import os

__version__ = "0.1.0"

# GNU OpenMP's threads wait for each other by spinning, for long, and on a core that another program could use: two
# runs side by side on two cores took ten times as long as one after the other. It reads this when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
