"""What a notebook needs of gptexp: the commands of the terminal, and runs opened for a closer look."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptexp.runs.layout import METRICS
from gptexp.util.files import read_rows

if TYPE_CHECKING:
    from torch import nn

    from gptexp.data.prepare import TextData
    from gptexp.tokenizers import Tokenizer

BUDGET = "GPTEXP_BUDGET"
WIDTH = 100  # columns of a notebook's output


def set_up() -> None:
    """Work in the repository's root, wherever the notebook was opened, and draw in gptexp's style."""
    import matplotlib.pyplot as plt

    from gptexp.report.style import SETTINGS, fonts

    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)
    os.chdir(root)
    small: Any = {"figure.figsize": (6.4, 3.6), "figure.dpi": 80, "figure.constrained_layout.use": True}
    plt.rcParams.update({**SETTINGS, **small, "font.family": fonts()})
    warnings.filterwarnings("ignore", message="Glyph .* missing")


def steps(n: int) -> int:
    """n training steps; a share of them where the environment says so: GPTEXP_BUDGET=0.1 means a tenth.

    Raises:
        ValueError: GPTEXP_BUDGET is no number above 0 and at most 1.
    """
    value = os.environ.get(BUDGET, "1")
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"{BUDGET}={value}: must be a number above 0, at most 1")
    return max(2, round(n * share))


def command(line: str) -> None:
    """Run a command of gptexp's as typed in a terminal; what it prints appears below as it comes.

    Raises:
        ValueError: not one of gptexp's commands.
        RuntimeError: it failed; what it printed says why.
    """
    words = shlex.split(line)
    if words[:2] != ["python", "-m"] or not words[2:] or words[2].split(".")[0] != "gptexp":
        raise ValueError(f"{line}: give a command of the form python -m gptexp.train …")
    told = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "COLUMNS": str(WIDTH)}
    kept = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # Jupyter's: play a terminal
    process = subprocess.Popen(
        [sys.executable, *words[1:]],
        env={**kept, **told},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    try:
        for text in process.stdout:
            print(text, end="", flush=True)
    except BaseException:  # the notebook's stop button
        process.terminate()
        raise
    finally:
        code = process.wait()
    if code:
        raise RuntimeError(f"exit code {code}: {line}")


def open_data(*overrides: str) -> TextData:
    """Tokenizer and tokens of a corpus as a run with these overrides has them: `open_data("tokenizer=bpe")`.

    Raises:
        ValueError: the text isn't there; a wrong override.
    """
    from gptexp.compose.composition import compose
    from gptexp.data.prepare import prepare

    config = compose([word for typed in overrides for word in shlex.split(typed)])
    cache, block_size = Path(config.paths.cache), config.model.block_size
    return prepare(config.data, config.tokenizer, cache, progress=False, block_size=block_size)


def read_text(*overrides: str) -> tuple[str, str]:
    """Training and validation text of a corpus, split as every run splits it: `read_text("data=harrypotter")`.

    Raises:
        ValueError: the text isn't there; a wrong override.
    """
    data = open_data(*overrides, "tokenizer=byte")
    train, val = (data.tokenizer.decode(store.read(0, len(store))) for store in (data.train, data.val))
    return train, val


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model and what was recorded of it.

    settings: as in config.yaml. model: in eval mode, on the CPU.
    """

    folder: Path | None
    settings: dict[str, Any]
    model: nn.Module
    tokenizer: Tokenizer

    def curve(self, metric: str = "val/loss") -> tuple[list[int], list[float]]:
        """Steps, and a metric's value at each of them.

        Raises:
            ValueError: no such metric in metrics.csv.
        """
        rows = self._rows()
        if not rows or metric not in rows[0]:
            raise ValueError(f"{metric}: not in metrics.csv; it has {', '.join(rows[0] if rows else ['nothing'])}")
        found = [(int(row["step"]), float(row[metric])) for row in rows if row[metric]]
        return [step for step, _ in found], [value for _, value in found]

    def _rows(self) -> list[dict[str, str]]:
        if self.folder is None:
            return []
        return read_rows(self.folder / METRICS)

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json; {} before the run has ended."""
        from gptexp.runs.result import Result, find_result

        result = find_result(self.folder) if self.folder else Result()
        return {} if result.status is None else result.as_plain()

    def samples(self) -> list[tuple[int, str]]:
        """(step, what the model wrote then)."""
        from gptexp.runs import samples

        return samples.read(self.folder) if self.folder else []

    def write(self, prompt: str, max_new_tokens: int = 200, *, seed: int = 1, **settings: Any) -> str:
        """The prompt and how the model goes on; settings: temperature, top_k, top_p.

        Raises:
            ValueError: a prompt without tokens, or that the tokenizer can't encode; a setting out of range.
        """
        import torch

        from gptexp.generation.decoding import stream_tokens
        from gptexp.generation.streaming import plain_text
        from gptexp.util.seeds import seed_generator

        tokens = self.tokenizer.encode(prompt).tolist()
        stream = stream_tokens(
            self.model,
            tokens,
            max_new_tokens=max_new_tokens,
            generator=seed_generator(torch.Generator(), seed),
            stop_token=self.tokenizer.eot,
            **settings,
        )
        return plain_text(self.tokenizer.decode([*tokens, *stream]))


def open_run(run: str | Path = "latest") -> Run:
    """A run folder, a checkpoint file, `latest`, or GPT-2's weights: gpt2, or a folder in Hugging Face's form.

    Raises:
        ValueError: not there, or not one that writes text.
    """
    from gptexp.objectives.loading import load_model
    from gptexp.runs.finding import find_checkpoint
    from gptexp.runs.layout import run_folder
    from gptexp.runs.opening import open_checkpoint

    path = find_checkpoint(str(run))
    stored = open_checkpoint(path)
    model, tokenizer = load_model(stored, path)
    return Run(folder=run_folder(path), settings=stored.config, model=model, tokenizer=tokenizer)
