"""The runs of a line of bases: jobs of one sweep folder, added when they are needed and never run twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gptexp.config import Config
from gptexp.config.conversion import to_plain
from gptexp.runs.layout import JOB_LOG, SWEEP
from gptexp.runs.result import find_result
from gptexp.sweep import store
from gptexp.sweep.plan import make_job, text_key
from gptexp.util.errors import ConfigError, RunError
from gptexp.util.files import display_path


class Line:
    """The folder of a line. Use `line` to open it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, name: str, config: Config, seed: int) -> float:
        """Return the score of an experiment with a seed; it is trained, or continued, unless it is complete.

        Raises:
            RunError: it failed, or its score is not finite.
        """
        from gptexp.sweep import job  # imports training

        job_name = f"{name},seed={seed}"
        value = job.run(self.folder, self._number(job_name, config, seed))
        if value is None:
            error = find_result(self.place(job_name)).error or "its score is not finite"
            raise RunError(f"{job_name}: {error} (see {display_path(self.place(job_name) / JOB_LOG)})")
        return value

    def place(self, job_name: str) -> Path:
        """Return the run folder of a job."""
        return self.folder / job_name

    def _number(self, job_name: str, config: Config, seed: int) -> int:
        """Return the number of a job in sweep.yaml; a new job is stored first."""
        sweep = store.read(self.folder)
        for number, job in enumerate(sweep.jobs):
            if job.name == job_name:
                return number
        sweep.jobs.append(make_job(job_name, [f"seed={seed}"], replace(config, seed=seed)))
        store.write(sweep)
        return len(sweep.jobs) - 1


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
        if store.read(folder).texts.get(key) != texts[key]:
            raise ConfigError(
                f"{display_path(folder)}: the text of data={key.split()[0]} has changed since the line of bases began; "
                "restore the text, or judge with another --logs folder"
            )
        yield Line(folder)
