"""The runs of a line of bases: jobs of one sweep folder, added when they are needed and never run twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.runs.layout import JOB_LOG, SWEEP
from gptexp.runs.result import COMPLETED, find_result
from gptexp.sweep import store
from gptexp.sweep.plan import make_job, text_key
from gptexp.util.errors import ConfigError, RunError
from gptexp.util.files import display_path


class Line:
    """The runs of a line, whose folder this process holds. Use `line` to open it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sweep = store.read(folder)
        self.texts = self._sweep.texts

    def run(self, name: str, config: Config, seed: int) -> float:
        """Return the score of an experiment with a seed; it is trained, or continued, unless it is complete.

        Raises:
            RunError: it failed, or its score is not finite.
        """
        number = self._number(f"{name},seed={seed}", config, seed)
        stored = self._sweep.jobs[number]
        if self._sweep.status(stored) != COMPLETED:
            from gptexp.sweep import job  # imports training

            job.run(self.folder, number)
        place = self._sweep.place(stored)
        if (value := self._sweep.value(stored)) is None:
            error = find_result(place).error or "its score is not finite"
            raise RunError(f"{stored.name}: {error} (see {display_path(place / JOB_LOG)})")
        return value

    def place(self, job_name: str) -> Path:
        """Return the run folder of a job."""
        return self.folder / job_name

    def _number(self, job_name: str, config: Config, seed: int) -> int:
        """Return the number of a job in sweep.yaml; a new job is stored first."""
        names = [job.name for job in self._sweep.jobs]
        if job_name not in names:
            self._sweep.jobs.append(make_job(job_name, [f"seed={seed}"], replace(config, seed=seed)))
            store.write(self._sweep)
            return len(names)
        return names.index(job_name)


@contextmanager
def line(folder: Path, name: str, config: Config) -> Iterator[Line]:
    """Open the folder of a line for this process; it is created if it does not exist.

    Raises:
        ConfigError: another process judges in this line, or the text has changed.
    """
    from gptexp.data.corpora import open_corpus  # slow to import

    key = text_key(to_plain(config.data))
    with store.held(folder):
        texts = {key: open_corpus(config.data, Path(config.paths.cache)).fingerprint()}
        if not (folder / SWEEP).exists():
            store.write(store.Sweep(folder=folder, name=name, retries=0, fixed={}, texts=texts, jobs=[], share=False))
        opened = Line(folder)
        if opened.texts.get(key) != texts[key]:
            raise ConfigError(
                f"{display_path(folder)}: the text of data={key.split()[0]} has changed since the line of bases began; "
                "restore the text, or judge with another --logs folder"
            )
        yield opened
