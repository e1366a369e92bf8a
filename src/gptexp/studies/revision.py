"""An idea that is a git revision: trained by its own code in its own work tree, scored by the code of this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gptexp.config.conversion import to_plain
from gptexp.config.override_syntax import quote
from gptexp.runs.code_hash import all_code_sha256, hash_files, package_files
from gptexp.runs.finding import stored_settings
from gptexp.runs.layout import CHECKPOINTS, JOB_LOG, LAST, has_checkpoint
from gptexp.runs.result import find_result, is_finished
from gptexp.studies.ideas import Composed, require_equal_budget
from gptexp.studies.judge import Idea
from gptexp.studies.ledger import Entry
from gptexp.studies.running import Line
from gptexp.util.errors import BY_SIGNAL, ConfigError, RunError
from gptexp.util.files import append_descriptor, display_path, make_folder, read_json, read_text, write_json
from gptexp.util.git import git
from gptexp.util.package import PACKAGE

FLAG = "--idea-rev"
SCORE = "score.json"  # in a run folder: the score by the code of this process
TOLERANCE = 2e-3  # relative; the revision may validate in another precision


@dataclass(frozen=True)
class Revision:
    """A revision of the code. text: as typed. commit: its full hash."""

    text: str
    commit: str

    def gain(self, line: Line, entry: Entry, base: Composed, seed: int) -> float:
        """Return the score of the base minus the score of the idea on a seed, both scored by this process's code."""
        name = f"base{entry.base}"
        line.run(name, base.config, seed)
        place = make_folder(line.place(f"idea{entry.t},seed={seed}"))
        if not is_finished(place):
            self._train(self._tree(line), base, place, seed)
            require_equal_budget(to_plain(base.config), stored_settings(str(place)), f"{FLAG} {self.text}")
        return score(line.place(f"{name},seed={seed}"), base) - score(place, base)

    def _tree(self, line: Line) -> Path:
        """Return the work tree of the revision in the folder of the line; an incomplete or changed one is replaced."""
        tree = (line.folder / f"code-{self.commit[:12]}").resolve()
        if not (tree / "src" / "gptexp").is_dir() or _git("status", "--porcelain", "--untracked-files=no", folder=tree):
            _git("worktree", "prune")
            if tree.exists():
                _git("worktree", "remove", "--force", "--", str(tree))
            _git("worktree", "add", "--detach", "--force", "--", str(tree), self.commit)
        if hash_files(package_files(tree / "src" / "gptexp")) == hash_files(package_files(PACKAGE)):
            raise ConfigError(f"{FLAG} {self.text}: has the Python code of the base; give changed settings with --idea")
        return tree

    def _train(self, tree: Path, base: Composed, place: Path, seed: int) -> None:
        """Train in a child process with the revision's code; it resumes if it has a checkpoint."""
        resumed = [f"resume={quote(str(place))}"] if has_checkpoint(place) else []
        own = [] if resumed else [*base.overrides, f"seed={seed}"]
        command = [sys.executable, "-m", "gptexp.train", *own, *resumed, f"hydra.run.dir={quote(str(place))}"]
        log = append_descriptor(place / JOB_LOG)
        try:
            environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
            code = _wait(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment))
        finally:
            os.close(log)
        if code or not is_finished(place):
            lines = [line for line in read_text(place / JOB_LOG, errors="replace").splitlines() if line.strip()]
            error = lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
            raise RunError(f"{FLAG} {self.text}: training failed: {error} (see {display_path(place / JOB_LOG)})")


def revision_idea(text: str, base: Composed) -> Idea:
    """Return the idea of --idea-rev.

    Raises:
        ConfigError: this code is not in a git checkout, the revision does not exist, or the objective is not lm.
    """
    if base.config.objective.kind != "lm":
        raise ConfigError(f"{FLAG}: supports only objective=lm, not {base.config.objective.kind}; use --idea")
    try:
        top = Path(_git("rev-parse", "--show-toplevel"))
    except RunError:
        top = Path("/")
    if (top / "src" / "gptexp").resolve() != PACKAGE.resolve():
        raise ConfigError(f"{FLAG} {text}: this gptexp is not in a git checkout; clone the repository, or use --idea")
    try:
        commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    except RunError:
        raise ConfigError(f"{FLAG} {text}: no such revision in {top}; `git branch` lists branches") from None
    return Idea(key=commit, text=text, became=base.identity, gain=Revision(text, commit).gain)


def score(place: Path, base: Composed) -> float:
    """Return the score of a run's final checkpoint on the base's validation text, as this process's code computes it.

    Raises:
        RunError: this code can't open the checkpoint, or computes another score than the code that trained it.
    """
    file = place / SCORE
    if (
        file.is_file()
        and (known := read_json(file)).get("code") == all_code_sha256()
        and type(known.get("score")) is float
    ):
        return float(known["score"])
    metric, own = base.config.objective.best_by, find_result(place).metrics
    value = _computed(place, base, metric)
    recorded = own.get(metric)
    if recorded is None or not abs(value - recorded) <= TOLERANCE * abs(recorded):
        raise RunError(
            f"{display_path(place)}: {metric} is {value:.4f} by this code and {recorded} by the revision's code; the "
            "revision changes how a model computes or how it is scored. Make the change a setting, and use --idea"
        )
    write_json(file, {"code": all_code_sha256(), "score": value})
    return value


def _computed(place: Path, base: Composed, metric: str) -> float:
    from gptexp.data.mixture import prepare_texts
    from gptexp.evaluation.scoring import score_texts, total
    from gptexp.objectives.loading import load_model
    from gptexp.runs.opening import open_checkpoint

    path = place / CHECKPOINTS / LAST
    try:
        checkpoint = open_checkpoint(path)
        model, tokenizer = load_model(checkpoint, path)
        block_size = int(checkpoint.config["model"]["block_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{display_path(path)}: the code of the base can't open this checkpoint: {error}") from None
    data = prepare_texts(base.config.data, tokenizer, Path(base.config.paths.cache), block_size=block_size)
    found = total(score_texts(model, tokenizer, data, "val", block_size=block_size).values())
    return float(found.bpb if metric == "val/bpb" else found.loss)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child. SIGINT reaches it from the terminal; SIGTERM is forwarded, and ends this process after it."""
    former = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.wait()  # it saves a checkpoint
        raise
    finally:
        signal.signal(signal.SIGTERM, former)
    if code in (BY_SIGNAL + signal.SIGTERM, -signal.SIGTERM):
        sys.exit(BY_SIGNAL + signal.SIGTERM)
    return code


def _git(*arguments: str, folder: Path = PACKAGE) -> str:
    """Return the output of git.

    Raises:
        RunError: git is not installed or fails.
    """
    try:
        return os.fsdecode(git(folder, *arguments)).strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise RunError(f"{FLAG}: git {arguments[0]}: {error}") from None
