"""`hydra/sweeper=optuna`: a sweep whose jobs Optuna chooses from the results of earlier jobs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from gptexp.compose.composition import compose
from gptexp.sweep import store
from gptexp.sweep.plan import Search, make_job
from gptexp.util.errors import ConfigError

DATABASE = "search.db"


def run(folder: Path, launch: Callable[[list[int]], None], at_a_time: int) -> None:
    """Start or continue the study in the sweep's folder until all trials are done.

    A trial that was running when the sweep was killed keeps its number, folder and settings, and is continued first.
    The generator of trial k depends on the seed and k only, so a continued search draws the same points as an
    uninterrupted one. A point that is drawn again is not trained again.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = store.read(folder)
    assert sweep.search is not None
    space = {key: distribution(key, text) for key, text in sweep.search["space"].items()}
    study = optuna.create_study(
        study_name=sweep.name,
        storage=f"sqlite:///{(folder / DATABASE).resolve()}",
        direction="minimize",
        load_if_exists=True,
    )
    while trials := _next(study, space, sweep.search, at_a_time):
        jobs: dict[int, int] = {}  # trial -> job
        for trial in trials:
            try:
                jobs[trial.number] = _job_of(sweep, trial)
            except ConfigError as error:  # a point of the space with invalid settings
                print(f"trial {trial.number}: {error}", file=sys.stderr)
                study.tell(trial.number, state=TrialState.FAIL)
        if jobs:
            launch(list(jobs.values()))
        for trial_number, number in jobs.items():
            value = sweep.value(sweep.jobs[number])
            good = isinstance(value, float) and math.isfinite(value)
            study.tell(trial_number, value if good else None, state=None if good else TrialState.FAIL)


def _next(study: optuna.Study, space: dict[str, BaseDistribution], search: Search, at_a_time: int) -> list[FrozenTrial]:
    """Return the trials to run now: those that a kill interrupted, else new ones; none when all are done."""
    interrupted = [trial for trial in study.get_trials(deepcopy=False) if trial.state is TrialState.RUNNING]
    complete = [known for known in interrupted if known.params.keys() == space.keys()]
    for known in interrupted:
        if known not in complete:  # killed while it was drawn
            study.tell(known.number, state=TrialState.FAIL)
    if complete:
        return complete
    drawn: list[FrozenTrial] = []
    while len(drawn) < at_a_time and (number := len(study.get_trials(deepcopy=False))) < search["n_trials"]:
        study.sampler = optuna.samplers.TPESampler(seed=(search["seed"] + number) % 2**32, constant_liar=at_a_time > 1)
        trial = study.ask(space)
        twin = next((t for t in study.get_trials(deepcopy=False) if _same(t, trial)), None)
        if twin is None and _is_drawn(drawn, trial):  # a duplicate within the batch
            study.tell(trial, state=TrialState.FAIL)
        elif twin is None:
            drawn.append(study.get_trials(deepcopy=False)[trial.number])
        else:
            trial.set_user_attr("same as trial", twin.number)
            study.tell(trial, twin.value)
    return drawn


def _same(known: FrozenTrial, new: optuna.Trial) -> bool:
    return known.number != new.number and known.state is TrialState.COMPLETE and known.params == new.params


def _is_drawn(drawn: list[FrozenTrial], new: optuna.Trial) -> bool:
    return any(other.params == new.params for other in drawn)


def _job_of(sweep: store.Sweep, trial: FrozenTrial) -> int:
    """Return the number of the trial's stored job; a new job is stored first."""
    assert sweep.search is not None
    name = f"trial={trial.number:03d}"
    for number, job in enumerate(sweep.jobs):
        if job.name == name:
            return number
    overrides = [f"{key}={value}" for key, value in trial.params.items()]
    sweep.jobs.append(make_job(name, overrides, compose([*sweep.search["base"], *overrides])))
    store.write(sweep)
    return len(sweep.jobs) - 1


def distribution(key: str, text: str) -> BaseDistribution:
    """Convert Hydra's search space to Optuna's: a,b,c · range(2, 7) · interval(0.1, 1) · tag(log, …).

    Raises:
        ValueError: the text is not a search space.
    """
    value = OverridesParser.create().parse_override(f"{key}={text}").value()
    if isinstance(value, ChoiceSweep):
        parsed = OverridesParser.create().parse_override(f"{key}={text}")
        return CategoricalDistribution(list(map(str, parsed.sweep_string_iterator())))
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, RangeSweep):
        values = list(value.range())
        if all(isinstance(v, int) for v in values) and values:
            return IntDistribution(int(values[0]), int(values[-1]), step=int(value.step), log=False)
        return CategoricalDistribution(list(map(str, values)))
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    raise ValueError(f"{key}={text}: not a search space; give a,b,c or interval(low, high) or range(from, to)")
