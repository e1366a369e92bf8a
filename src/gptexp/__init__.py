"""gptexp: GPT experiments with PyTorch Lightning and Hydra."""

import sys

from gptexp.util.entry_point import drop_current_directory

__version__ = "0.1.0"

# sys.argv is ["-m"] while Python looks for the module of `python -m gptexp.…`, before it imports anything else.
if sys.argv[:1] == ["-m"]:
    drop_current_directory()
