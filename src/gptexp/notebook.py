"""The API for notebooks: commands as in a terminal, corpora, and trained models.

Functions import torch, lightning and matplotlib only when they need them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptexp.runs import samples
from gptexp.runs.layout import METRICS, run_folder
from gptexp.runs.result import Result, find_result
from gptexp.util.files import read_rows
from gptexp.util.package import is_own

if TYPE_CHECKING:
    from torch import nn

    from gptexp.data.prepare import TextData
    from gptexp.tokenizers import Tokenizer

BUDGET = "GPTEXP_BUDGET"
WIDTH = 100  # columns of the output of a command
_FORMATTED = warnings.formatwarning


def set_up() -> None:
    """Change to the root of the repository, set the style of plots, and print notices in one line."""
    import matplotlib.pyplot as plt

    from gptexp.report.style import SETTINGS, fonts

    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)
    os.chdir(root)
    small: Any = {"figure.figsize": (6.4, 3.6), "figure.dpi": 80, "figure.constrained_layout.use": True}
    plt.rcParams.update({**SETTINGS, **small, "font.family": fonts()})
    warnings.filterwarnings("ignore", message="Glyph .* missing")
    warnings.formatwarning = _notice


def _notice(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return a warning of gptexp as in a terminal, and others as Python does."""
    if is_own(filename):
        return f"notice: {message}\n"
    return _FORMATTED(message, category, filename, lineno, line)


def steps(n: int) -> int:
    """Return n training steps, multiplied by the environment variable GPTEXP_BUDGET if it is set, and at least 2.

    Raises:
        ValueError: GPTEXP_BUDGET is not a number above 0 and at most 1.
    """
    value = os.environ.get(BUDGET, "1")
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"{BUDGET}={value}: must be a number above 0 and at most 1")
    return max(2, round(n * share))


def command(line: str) -> None:
    """Run a command of gptexp as in a terminal, and print its output.

    Raises:
        ValueError: not a command of gptexp.
        RuntimeError: the command failed; its output contains the error.
    """
    words = shlex.split(line)
    if words[:1] == ["gptexp"]:
        words = ["python", "-m", *words]
    if words[:2] != ["python", "-m"] or not words[2:] or words[2].split(".")[0] != "gptexp":
        raise ValueError(f"{line}: give a command of the form gptexp train …")
    added = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "COLUMNS": str(WIDTH)}
    kept = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # set by Jupyter
    process = subprocess.Popen(
        [sys.executable, *words[1:]],
        env={**kept, **added},
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


def check(exercise: str, answer: object = None) -> None:
    """Print whether the answer to an exercise, such as "03.2", is right, with a hint or an explanation.

    answer: a number, a list, a tensor or a function, as the exercise asks; None or `...` if there is none yet.

    Raises:
        ValueError: no such exercise.
    """
    from gptexp.exercises.grading import grade

    found = grade(exercise, answer)
    mark = {None: "…", True: "right.", False: "not yet."}[found.right]
    print(textwrap.fill(f"{exercise}: {mark} {found.text}", WIDTH))


def open_data(*overrides: str) -> TextData:
    """Return the tokenizer and the tokens of a corpus for these overrides, such as `open_data("tokenizer=bpe")`.

    Raises:
        ValueError: a missing text or a wrong override.
    """
    from gptexp.compose.composition import compose
    from gptexp.data.prepare import prepare

    config = compose([word for text in overrides for word in shlex.split(text)])
    cache, block_size = Path(config.paths.cache), config.model.block_size
    return prepare(config.data, config.tokenizer, cache, progress=False, block_size=block_size)


def read_text(*overrides: str) -> tuple[str, str]:
    """Return the training and the validation text of a corpus, such as `read_text("data=harrypotter")`.

    Raises:
        ValueError: a missing text or a wrong override.
    """
    data = open_data(*overrides, "tokenizer=byte")
    train, val = (data.tokenizer.decode(store.read(0, len(store))) for store in (data.train, data.val))
    if find_spec("matplotlib") and len(re.findall("[\u4e00-\u9fff]", train[:100_000])) > 100:
        _require_chinese_font()
    return train, val


@lru_cache(maxsize=1)
def _require_chinese_font() -> None:
    """Print a notice, once, if plots would show boxes for Chinese characters."""
    from gptexp.report.style import FONT_REMEDY, fonts

    if len(fonts()) == 1:
        print(f"notice: plots show boxes for Chinese characters; {FONT_REMEDY}, and restart the notebook")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model with the records of its run.

    folder: of the run, or None for published weights. settings: as in config.yaml. model: in eval mode.
    """

    folder: Path | None
    settings: dict[str, Any]
    model: nn.Module
    tokenizer: Tokenizer

    def curve(self, metric: str = "val/loss") -> tuple[list[int], list[float]]:
        """Return steps, and the value of a metric at each of them.

        Raises:
            ValueError: no such metric in metrics.csv.
        """
        rows = read_rows(self.folder / METRICS) if self.folder else []
        if not rows or metric not in rows[0]:
            raise ValueError(f"{metric}: not in metrics.csv; it has {', '.join(rows[0] if rows else ['nothing'])}")
        found = [(int(row["step"]), float(row[metric])) for row in rows if row[metric]]
        return [step for step, _ in found], [value for _, value in found]

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json; {} before the run has ended."""
        result = find_result(self.folder) if self.folder else Result()
        return {} if result.status is None else result.as_plain()

    def samples(self) -> list[tuple[int, str]]:
        """Return the text samples of training, each with its step."""
        return samples.read(self.folder) if self.folder else []

    def write(self, prompt: str, max_new_tokens: int = 200, *, seed: int = 1, **settings: Any) -> str:
        """Return the prompt and its continuation by the model. settings: temperature, top_k, top_p.

        Raises:
            ValueError: a prompt without tokens, or one that the tokenizer cannot encode; a setting out of range.
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


def open_run(run: str | Path = "latest", device: str = "cpu") -> Run:
    """Open a run folder, a checkpoint file, `latest`, or weights of GPT-2: `gpt2`, or a Hugging Face folder.

    device: where the model computes: cpu, cuda, mps, or auto for a GPU if there is one.

    Raises:
        ValueError: missing, or trained with an objective that does not generate text.
    """
    from gptexp.objectives import loading

    found = loading.open_run(str(run), Path("logs"), device, "32-true")
    settings = found.checkpoint.config
    return Run(folder=run_folder(found.path), settings=settings, model=found.model, tokenizer=found.tokenizer)


@dataclass(frozen=True)
class Page:
    """A self-contained page, which a notebook shows in a frame."""

    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.html)}" width="100%" height="900" frameborder="0"></iframe>'


def inspect(
    run: str | Path = "latest", text: str | None = None, against: str | Path | None = None, device: str = "auto"
) -> Page:
    """Return the page of `gptexp inspect`. text: by default the beginning of the run's validation text.

    device: as for `open_run`.

    Raises:
        ValueError: a run that can't be opened, or a text that can't be encoded.
    """
    from gptexp.inspection import inspect, opening, page

    names = [str(name) for name in (run, against) if name is not None]
    return Page(page.render(inspect.inspect(names, opening.Request(prompt=text, device=device))))
