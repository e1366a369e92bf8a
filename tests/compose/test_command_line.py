"""Command lines that users may type, with every supported version of Python and Hydra."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from gptexp import train
from gptexp.compose import commandline, other_names
from gptexp.compose.composition import Bases, compose, compose_raw
from gptexp.compose.hydra_versions import run_task
from gptexp.compose.messages import setting_names
from gptexp.compose.overrides import jobs_of, quoted
from gptexp.compose.presets import conf_dir
from gptexp.compose.registry import groups, register_schemas
from gptexp.config.conversion import to_plain
from gptexp.config.override_syntax import text_of
from gptexp.runs.finding import find_checkpoint
from gptexp.sweep.plan import plan
from gptexp.util.errors import ConfigError, RunError

TEXT = ["data=text", "data.path=story.txt", "tokenizer=byte"]


@pytest.fixture
def checked_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argparse that checks each help text when it is added, like that of Python 3.14."""
    add = argparse.ArgumentParser.add_argument

    def checked(self: argparse.ArgumentParser, *names: Any, **settings: Any) -> argparse.Action:
        assert "%" not in (settings.get("help") or "")
        return add(self, *names, **settings)

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", checked)


@pytest.mark.usefixtures("checked_help")
def test_command_line_composes_if_argparse_checks_help_texts() -> None:
    register_schemas()
    assert commandline.checked_arguments(["model=bigram"]) == ["model=bigram"]


@pytest.mark.usefixtures("checked_help")
def test_hydra_runs_a_task_if_argparse_checks_help_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()
    monkeypatch.setattr(sys, "argv", ["train", "--cfg", "job", "--package", "seed", "seed=7"])
    run_task(lambda config: None, str(conf_dir()), "train")
    assert argparse.ArgumentParser is sys.modules["hydra._internal.utils"].argparse.ArgumentParser


TYPED = [
    ("name=12e4567", "name", "12e4567"),
    ("name=true", "name", "true"),
    ("name=1_000", "name", "1_000"),
    ("++name=7e5", "name", "7e5"),
    ("paths.logs=12e45", "paths.logs", "12e45"),
    ("paths.logs='12e45'", "paths.logs", "12e45"),
    ("callbacks.samples.prompt=On 三, 四 ", "callbacks.samples.prompt", "On 三, 四 "),
    ("callbacks.samples.prompt=1.50", "callbacks.samples.prompt", "1.50"),
    ("callbacks.samples.prompt=it's \\", "callbacks.samples.prompt", "it's \\"),
    ("callbacks.samples.prompt=one\ntwo", "callbacks.samples.prompt", "one\ntwo"),
    ("trainer.max_steps=1e3", "trainer.max_steps", "1000"),
    ("data.val_bytes=null", "data.val_bytes", "None"),
]


@pytest.mark.parametrize(("override", "setting", "value"), TYPED, ids=[o for o, _, _ in TYPED])
def test_a_setting_keeps_the_typed_value(override: str, setting: str, value: str) -> None:
    found: Any = compose([override, "schedule.warmup_steps=null"])
    for name in setting.split("."):
        found = getattr(found, name)
    assert str(found) == value


@pytest.mark.parametrize("override", ["hydra.run.dir=12e45", "data.path=12e45", "resume=12e45", "init_from=true"])
def test_folders_and_files_are_not_read_as_numbers(override: str) -> None:
    assert text_of(quoted(override)) == override.partition("=")[2]


SWEPT = [
    ("data.path=三国.txt,水浒.txt", ["三国.txt", "水浒.txt"]),
    ("data.path=my book.txt, your book[1].txt", ["my book.txt", "your book[1].txt"]),
    ("data.path='a,b.txt',c.txt", ["a,b.txt", "c.txt"]),
    ("name=12e4567,true,b", ["12e4567", "true", "b"]),
    ("trainer.max_steps=1e2,2e2", ["100", "200"]),
    ("++trainer.max_steps=1,2", ["1", "2"]),
    ("model=glob(b*)", ["baby_gpt", "bigram"]),
    ("callbacks.samples.prompt=你好,世界", ["你好", "世界"]),
]


@pytest.mark.parametrize(("override", "values"), SWEPT, ids=[o for o, _ in SWEPT])
def test_each_value_of_a_sweep_keeps_its_typed_form(override: str, values: list[str]) -> None:
    assert [text_of(job) for (job,) in jobs_of([override])] == values


@pytest.mark.parametrize("override", ["++model.n_layer=1,2", "model.n_layer=1,2", "model=glob(b*)", "+seed=1,2"])
def test_a_sweep_names_its_jobs_in_every_form_of_hydras_grammar(workplace: Path, override: str) -> None:
    if override.startswith("+seed"):
        with pytest.raises(ConfigError, match=r"^\+seed=1: already exists; remove the plus"):
            plan([override])
        return
    key = override.partition("=")[0].strip("+").rpartition(".")[2]
    values = ["baby_gpt", "bigram"] if "glob" in override else ["1", "2"]
    assert [job.name for job in plan([*TEXT, override]).jobs] == [f"{key}={value}" for value in values]


def test_the_last_of_two_values_for_a_setting_counts(workplace: Path) -> None:
    planned = plan([*TEXT, "++seed=1", "model.n_layer=1,2", "seed=3"])
    assert {job.config["seed"] for job in planned.jobs} == {3}


WRONG = [
    ([""], "'': an empty argument; leave it out"),
    (["--model", "bigram"], "--model: a setting has no dashes; write model=bigram"),
    (["--batch-size=8"], "--batch-size=8: a setting has no dashes; write data.global_batch_size=8"),
    (["-m", ""], "'': an empty argument; leave it out"),
    (["-m", "model=glob(x*)"], "model=glob(x*): no such option; one of baby_gpt, bigram"),
    (["-m", "seed=glob(1*)"], "seed=glob(1*): glob(…) selects options of a group; seed is not a group"),
    (["-m", "hydra.launcher.n_jobs=1,2", "seed=1,2"], "hydra.launcher.n_jobs=1,2: applies to all jobs"),
    (["-m", "hydra/launcher=core", "seed=1,2"], "hydra/launcher=core: no such option; did you mean cores?"),
    (["-m", "hydra/sweeper=nope", "seed=1,2"], "hydra/sweeper=nope: no such option; choose one of basic, "),
    (["hydra/launcher=nope"], "hydra/launcher=nope: no such option; choose one of basic, cores, "),
    (["-m", "hydra/nope=x", "seed=1,2"], "hydra/nope=x: no such setting of Hydra; choose one of hydra/launcher"),
    (["-m", "+hydra/launcher=cores", "seed=1,2"], "+hydra/launcher=cores: already exists; remove the plus"),
    (["-m", "hydra.launcher.n_jobs=2", "seed=1,2"], "hydra.launcher.n_jobs=2: no such setting of Hydra; `gptexp"),
    (
        ["-m", "hydra.sweep.di=x", "seed=1,2"],
        "hydra.sweep.di=x: no such setting of Hydra; did you mean hydra",
    ),
    (["model=glob(b*)"], "model=glob(b*): several values are a sweep; add -m"),
    (["data=text", "data.path=三.txt,四.txt"], "data.path='三.txt','四.txt': several values are a sweep; add -m"),
    (["--model.n_layer=3"], "--model.n_layer=3: a setting has no dashes; write model.n_layer=3"),
    (["--seed", "3"], "--seed: a setting has no dashes; write seed=3"),
    (["seed=1", "--seed=3", "--cfg", "job"], "--seed=3: a setting has no dashes; write seed=3"),
    (["--dry-run"], "--dry-run: a setting has no dashes; write dry_run=true"),
    (["--compile"], "--compile: a setting has no dashes; did you mean trainer.compile?"),
    (["tokenizer=files", "tokenizer.path=~nobody-here/x"], "tokenizer.path=~nobody-here/x: the home folder of"),
    (["resume=~nobody-here/x"], "resume=~nobody-here/x: the home folder of"),
    (["~model.n_layer"], "~model.n_layer: a setting can't be deleted; give it another value"),
    (["--cfg", "jobs"], "argument --cfg/-c: invalid choice: 'jobs'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_grammar_gives_one_line_with_the_correct_spelling(
    arguments: list[str], message: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit):
        train.main()
    reported = capsys.readouterr().err
    assert reported.startswith(f"error: {message}")
    assert reported.count("\n") == 1
    assert not (workplace / "logs").exists()


def test_flags_can_appear_between_overrides() -> None:
    register_schemas()
    assert commandline.checked_arguments(["seed=1", "--cfg", "job", "model=bigram"]) == [
        "--cfg",
        "job",
        "seed=1",
        "model=bigram",
    ]


WORDS = [
    ("epochs=3", "the length of a run is given in optimizer steps; write trainer.max_steps=N"),
    ("batch_size=32", "write data.global_batch_size=32"),
    ("lr=3e-4", "write optimizer.lr=0.0003"),
    ("learning-rate=1", "write optimizer.lr=1"),
    ("device=cuda", "write trainer.accelerator=gpu"),
    ("gpus=2", "write trainer.devices=2"),
    ("block_size=64", "write model.block_size=64"),
    ("min_lr=1e-5", "write schedule.min_lr_ratio=…"),
]


@pytest.mark.parametrize(("override", "remedy"), WORDS, ids=[o for o, _ in WORDS])
def test_a_setting_name_of_another_program_suggests_gptexps_name(override: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([override])
    assert f"no such setting; {remedy}" in str(error.value)


def test_a_published_model_given_as_a_preset_names_both_meanings() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["model=gpt2"])
    assert "model=gpt2_small trains this size from scratch; init_from=gpt2 starts" in str(error.value)


def test_every_hint_names_a_setting_that_exists() -> None:
    assert set(other_names.SETTINGS) <= {*setting_names(), *groups(), "hydra.run.dir"}
    assert set(other_names.PUBLISHED.values()) <= set(groups()["model"])
    assert not set(other_names.WORDS) & set(other_names.SENTENCES)


def test_missing_slurm_is_reported_before_anything_is_written(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("PATH", str(workplace))
    monkeypatch.setattr(sys, "argv", ["train", "-m", "hydra/launcher=slurm", *TEXT, "seed=1,2"])
    with pytest.raises(SystemExit):
        train.main()
    assert capsys.readouterr().err.startswith("error: hydra/launcher=slurm: this machine has no SLURM")
    assert [path.name for path in workplace.iterdir()] == ["story.txt"]


LINES = [
    ["model=bigram", "seed=3"],
    ["optimizer=muon", "optimizer.lr=1e-3", "name=12e4"],
    ["name='${model.kind}-${hydra:runtime.choices.data}'", "tokenizer=bpe", "tokenizer.vocab_size=300"],
    ["experiment=shakespeare_char_cpu", "trainer.max_steps=1e3"],
    ["+callbacks.plugins.t={_target_: gptexp.training.callbacks.trace.Trace, kill_at: 3}"],
    ["model.n_embd=100", "model.n_head=3"],
    ["model.n_lyer=2"],
    ["tokenizer.vocab_size=300"],
    ["+seed=4"],
]


@pytest.mark.parametrize("line", LINES, ids=[" ".join(line) for line in LINES])
def test_a_job_composed_from_a_shared_base_is_the_same(line: list[str]) -> None:
    def composed(**bases: Any) -> Any:
        try:
            return to_plain(compose(line, **bases))
        except ConfigError as error:
            return str(error)

    bases = Bases()
    compose(["seed=2"], bases=bases)
    assert composed() == composed(bases=bases) == composed(bases=bases)


def test_jobs_with_the_same_groups_are_composed_once(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return hydra.compose(*arguments, **options)

    monkeypatch.setattr("gptexp.compose.composition.hydra_compose", counted)
    planned = plan([*TEXT, "seed=1,2,3", "model.n_layer=1,2", "optimizer.lr=1e-3,0.001"])
    assert (len(planned.jobs), len(calls)) == (6, 3)


@pytest.mark.parametrize(("mode", "runs"), [([], 1), (["hydra.mode=MULTIRUN", "seed=1,2"], 2)])
def test_hydra_composes_a_checked_run_once(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, mode: list[str], runs: int
) -> None:
    compose_raw([*TEXT, *mode[:1]])  # as the check of the command line does
    calls, done = list[str](), list[Any]()
    load = ConfigLoaderImpl.load_configuration

    def counted(loader: ConfigLoaderImpl, *arguments: Any, **options: Any) -> Any:
        calls.append("composed")
        return load(loader, *arguments, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    monkeypatch.setattr(sys, "argv", ["train", *TEXT, *mode, "hydra/launcher=basic", "hydra/sweeper=basic"])
    run_task(lambda composed: done.append(composed.seed), str(conf_dir()), "train")
    assert len(done) == runs
    assert runs > 1 or calls == ["composed"]


def test_composing_many_jobs_prints_a_line_without_a_progress_bar(workplace: Path, capsys: Any) -> None:
    plan([*TEXT, f"seed={','.join(map(str, range(30)))}"])
    assert capsys.readouterr().err == "composing 30 jobs …\n"


def test_a_dry_run_of_one_experiment_prints_its_cost_only(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from gptexp.sweep import probe  # this import loads torch

    cost = probe.Measurement(
        tokens_per_second=100.0, tokens_per_step=50.0, parameters=10, trainable=10, flops_per_token=6, bytes=9
    )
    monkeypatch.setattr(probe, "measure", lambda settings: cost)
    monkeypatch.setattr(sys, "argv", ["train", *TEXT, "dry_run=true", "trainer.max_steps=20"])
    train.main()
    reported = capsys.readouterr().out
    assert "1 run · " in reported
    assert "nothing was started" in reported
    assert [path.name for path in workplace.iterdir()] == ["story.txt"]


@pytest.mark.parametrize("setting", ["paths.logs", "paths.data", "paths.cache"])
def test_a_path_with_a_tilde_is_in_the_home_folder(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    config = compose([f"{setting}=~/elsewhere"])
    assert getattr(config.paths, setting.removeprefix("paths.")) == str(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"^{setting}=~nobody-here/x: the home folder of ~nobody-here is unknown"):
        compose([f"{setting}=~nobody-here/x"])


def test_a_folder_of_runs_instead_of_a_run_names_the_newest_run(tmp_path: Path) -> None:
    (tmp_path / "mine/2026-01-01/checkpoints").mkdir(parents=True)
    (tmp_path / "mine/2026-01-01/checkpoints/last.ckpt").touch()
    with pytest.raises(
        RunError, match=r"/mine: is not a run folder, but contains some; the newest is .*/mine/2026-01-01$"
    ):
        find_checkpoint(str(tmp_path / "mine"))
