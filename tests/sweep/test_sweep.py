"""Sweeps: jobs are stored first, found again by the same command, and never run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptexp.compose.registry import groups
from gptexp.sweep import job as one_job
from gptexp.sweep import store
from gptexp.sweep.plan import plan
from gptexp.util.errors import ConfigError
from gptexp.util.text import install_extra
from support import child_processes
from support.runs import TINY, TINY_GPT, command, processes, story

BASE = [*TINY, *TINY_GPT, "data.path=story.txt"]


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return content


def sweep(place: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return command("train", "-m", *BASE, *overrides, cwd=place, timeout=400)


def started_sweep(place: Path, *overrides: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start a sweep, to be killed. It starts without the time for imports, but with Ray as users start it."""
    settings: dict[str, Any] = {"cwd": place, "stdout": output, "stderr": output, "text": True}
    line = ["gptexp.train", "-m", *BASE, *overrides]
    if "hydra/launcher=ray" in overrides:
        return subprocess.Popen([sys.executable, "-m", *line], **settings)
    return child_processes.start(*line, **settings)


def sweep_of_processes(place: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep in the same way, for launchers that start processes."""
    process = started_sweep(place, *overrides, output=subprocess.PIPE)
    out, err = process.communicate(timeout=400)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


# ------------------------------------------------------------------------------------ planning


@pytest.mark.parametrize("name", sorted(set(groups()["sweep"]) - {"search"}))
def test_every_preset_plans_distinct_jobs_in_its_own_folder(workplace: Path, name: str) -> None:
    planned = plan([f"sweep={name}"])
    assert planned.folder == Path("logs/sweeps") / name
    assert len(planned.jobs) >= 4
    assert len({job.name for job in planned.jobs}) == len({job.identity for job in planned.jobs}) == len(planned.jobs)


def test_block_sizes_are_compared_at_equal_tokens_per_step(workplace: Path) -> None:
    from gptexp.compose.composition import config_from_plain

    configs = [config_from_plain(job.config) for job in plan(["sweep=block_size"]).jobs]
    assert {c.model.block_size for c in configs} == {32, 64, 128, 256}
    assert {(c.windows_per_step * c.model.block_size, c.trainer.max_steps) for c in configs} == {(1536, 580)}


def test_an_unnamed_sweep_is_named_by_its_keys_and_fixed_settings(workplace: Path) -> None:
    def name(*overrides: str) -> str:
        return plan([*BASE, *overrides]).name

    first = name("model.n_head=1,2", "seed=1,2")
    assert first.startswith("n_head+seed-")
    assert name("model.n_head=1,2,4", "seed=3").startswith("n_head-")
    assert name("model.n_head=1,2,4", "seed=1,2,3") == first  # new values extend it
    assert name("model.n_head=1,2", "seed=1,2", "optimizer.lr=0.1") != first
    assert name("model.n_head=1,2", "seed=1,2", "data.num_workers=1", "trainer.log_every_steps=3") == first
    jobs = plan([*BASE, "model.n_head=1,2", "seed=1,2"]).jobs
    assert [job.name for job in jobs] == ["n_head=1,seed=1", "n_head=1,seed=2", "n_head=2,seed=1", "n_head=2,seed=2"]


def test_job_names_are_safe_short_and_never_paths(workplace: Path) -> None:
    for name in ("哈利 [1].txt", "../up.txt"):
        (workplace / name).resolve().write_text(story(120), encoding="utf-8")
    jobs = plan([*BASE[:-1], "data.path='哈利 [1].txt','../up.txt'"]).jobs
    assert [job.name for job in jobs] == ["path=哈利-1-.txt", "path=..-up.txt"]
    long = ",".join(f"'{'x' * 120}{i}'" for i in range(2))
    names = [job.name for job in plan([*BASE, f"callbacks.samples.prompt={long}", "seed=1,2"]).jobs]
    assert all(len(name) <= 100 for name in names)

    chinese = "哈" * 60
    jobs = plan([*BASE, f"callbacks.samples.prompt='{chinese}1','{chinese}2'", "seed=1,2"]).jobs
    assert all(len(job.name.encode()) <= 100 for job in jobs)


def test_duplicate_values_give_one_job_and_keep_hydras_settings(workplace: Path) -> None:
    planned = plan([*BASE, "optimizer.lr=0.001,1e-3,0.01", "hydra/launcher=slurm", "++hydra.launcher.nodes=2"])
    assert len(planned.jobs) == 2
    assert planned.hydra == ["hydra/launcher=slurm", "++hydra.launcher.nodes=2"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=1,2", "sweep.name=..."], "sweep.name=...: must contain letters or digits"),
        (["seed=1,2", "hydra.sweep.dir=logs/${name}"], "hydra.sweep.dir=logs/${name}: must be a folder name without"),
        (["seed=1,2", "resume=x"], "resume: a sweep continues when its command line is repeated"),
        (["seed=1"], "-m: no setting has several values"),
        (["seed=1,2", "model.n_head=1,3"], "model.n_embd=16: must be a multiple of model.n_head=3"),
        (["model=mini_gpt,mini_gtp"], "model=mini_gtp: no such option; did you mean mini_gpt"),
        (["seed=1,2", "sweep.retires=1"], "sweep.retires=1: no such setting; did you mean sweep.retries?"),
    ],
)
def test_an_invalid_sweep_is_refused_before_its_first_job(workplace: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan([*BASE, *overrides])
    assert str(error.value).startswith(message)
    assert not (workplace / "logs").exists()


# ------------------------------------------------------------------------------------- storing


def test_new_values_extend_a_sweep_and_other_settings_are_refused(workplace: Path) -> None:
    line = [*BASE, "seed=1,2", "sweep.name=mine"]
    assert len(store.join(plan(line)).jobs) == 2
    assert [job.name for job in store.join(plan([*BASE, "seed=2,3", "sweep.name=mine"])).jobs] == [
        "seed=1", "seed=2", "seed=3",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"mine: has other settings: optimizer\.lr was None, is 0\.1"):
        store.join(plan([*line, "optimizer.lr=0.1"]))
    (workplace / "story.txt").write_text(story(119), encoding="utf-8")
    with pytest.raises(ConfigError, match="the text of data=text has changed"):
        store.join(plan(line))
    (workplace / "logs/sweeps/mine/seed=1").mkdir()
    assert len(store.join(plan([*line, "sweep.overwrite=true"])).jobs) == 2
    (aside,) = (workplace / "logs/sweeps").glob("mine.before-*")
    assert (aside / "seed=1").is_dir()
    assert not (workplace / "logs/sweeps/mine/seed=1").exists()


def test_an_untrusted_sweep_file_is_treated_as_data(workplace: Path) -> None:
    store.join(plan([*BASE, "seed=1,2", "sweep.name=mine"]))
    path = workplace / "logs/sweeps/mine/sweep.yaml"
    path.write_text("!!python/object/apply:os.system ['touch owned']")
    with pytest.raises(ConfigError, match=r"sweep\.yaml: "):
        store.read(path.parent)
    assert not (workplace / "owned").exists()
    made = store.join(plan([*BASE, "seed=1,2", "sweep.name=other"]))
    made.jobs[0].name = "../../../escaped"
    store.write(made)
    with pytest.raises(ConfigError, match=r"job \.\./\.\./\.\./escaped is invalid"):
        store.read(made.folder)


def test_texts_of_all_values_stay_recorded_when_a_sweep_is_extended(workplace: Path) -> None:
    for name in "abc":
        (workplace / f"{name}.txt").write_text(story(120) + name, encoding="utf-8")

    def joined(first: str, second: str) -> None:
        store.join(plan([*BASE[:-1], f"data.path={first}.txt,{second}.txt", "sweep.name=mine"]))

    joined("a", "b")
    joined("b", "c")
    (workplace / "a.txt").write_text(story(120) + "changed", encoding="utf-8")
    with pytest.raises(ConfigError, match="the text of data=text has changed"):
        joined("a", "b")


def stored_file(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
    return content


def test_a_sweep_older_than_a_setting_uses_the_default_of_it(workplace: Path) -> None:
    line = [*BASE, "model.n_layer=1,2", "sweep.name=mine"]
    made = store.join(plan(line))
    old = stored_file(made.folder)
    for job in old["jobs"]:
        job["identity"] = "of then"
        for group, key in (("model", "qk_norm"), ("trainer", "gradient_clip"), ("data", "max_tokens")):
            del job["config"][group][key]
            old["fixed"].pop(f"{group}.{key}", None)
    (made.folder / "sweep.yaml").write_text(yaml.safe_dump(old), encoding="utf-8")
    assert len(store.join(plan(line)).jobs) == 2
    with pytest.raises(ConfigError, match=r"trainer\.gradient_clip was 1\.0, is 2\.0"):
        store.join(plan([*line, "trainer.gradient_clip=2"]))


def test_a_sweep_continues_with_the_same_text_at_another_path(workplace: Path) -> None:
    store.join(plan([*BASE, "seed=1,2", "sweep.name=mine"]))
    (workplace / "story.txt").rename("moved.txt")
    there = [*BASE[:-1], "data.path=moved.txt", "seed=1,2", "sweep.name=mine"]
    assert [job.config["data"]["path"] for job in store.join(plan(there)).jobs] == ["moved.txt"] * 2
    (workplace / "moved.txt").write_text(story(119), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the text of data=text has changed|data\.path was"):
        store.join(plan(there))


def test_a_sweep_refuses_settings_that_unfinished_jobs_would_ignore(workplace: Path) -> None:
    line = [*BASE, "seed=1,2", "sweep.name=mine"]
    made = store.join(plan(line))
    other = plan([*line, "trainer.val_every_steps=1", "paths.data=elsewhere", "callbacks.samples.tokens=3"])
    with pytest.raises(ConfigError, match=r"in seed=1, trainer\.val_every_steps was 2, is 1\. Restore"):
        store.join(other)
    for job in made.jobs:
        made.place(job).mkdir()
        (made.place(job) / "result.json").write_text('{"status": "completed"}')
    assert store.join(other).jobs[0].config["paths"]["data"] == "elsewhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("", "is empty or not a sweep"),
        ("format: 1\nname: mine\n", "is incomplete or damaged: `retries` is NoneType, not int"),
        ("format: 7\n", "has format 7, but this version of gptexp reads format 1"),
        (("fixed", []), "`fixed` is list, not dict"),
        (("jobs", [{"name": "a"}]), "job a is invalid"),
        (("code", "x"), "`search` or `code` is invalid"),
        ("format: 1\njobs:\n- name: a\n  co", "is incomplete or damaged: invalid YAML (while scanning a simple key"),
    ],
)
def test_a_damaged_sweep_file_gives_a_one_line_error(workplace: Path, change: Any, message: str) -> None:
    path = store.join(plan([*BASE, "seed=1,2", "sweep.name=mine"])).folder / "sweep.yaml"
    if isinstance(change, str):
        path.write_text(change)
    else:
        path.write_text(yaml.safe_dump(stored_file(path.parent) | dict([change])), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        store.join(plan([*BASE, "seed=1,2", "sweep.name=mine"]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).count("sweep.yaml") == 1
    assert str(error.value).endswith("; move its folder away, or choose another sweep.name")


def test_a_job_is_not_written_through_a_link(workplace: Path) -> None:
    made = store.join(plan([*BASE, "seed=1,2", "sweep.name=mine"]))
    (workplace / "elsewhere").mkdir()
    made.place(made.jobs[0]).symlink_to(workplace / "elsewhere")
    with pytest.raises(OSError, match=r"is a link, and gptexp does not write through links.*seed=1"):
        one_job.run(made.folder, 0)
    assert not any((workplace / "elsewhere").iterdir())


def test_a_damaged_result_of_a_job_gives_no_value(workplace: Path) -> None:
    import io

    from rich.console import Console

    from gptexp.sweep.progress import summary

    made = store.join(plan([*BASE, "seed=1,2", "sweep.name=mine"]))
    for job, metrics in zip(made.jobs, ("[1.5]", "7"), strict=True):
        made.place(job).mkdir()
        (made.place(job) / "result.json").write_text(f'{{"status": "completed", "metrics": {metrics}, "seconds": "x"}}')
    assert [made.value(job) for job in made.jobs] == [None, None]
    console = Console(file=io.StringIO(), width=100)
    assert summary(made, console) == 0
    assert console.file.getvalue().count("not finite") == 2  # type: ignore[attr-defined]


def trained(folder: Path, code: str, *further: str) -> None:
    """Write records of the code with which a job was trained and resumed."""
    folder.mkdir()
    for step, sha in enumerate((code, *further)):
        name = f"provenance-{step}.json" if step else "provenance.json"
        (folder / name).write_text(json.dumps({"code_sha256": sha}))


def test_other_code_in_a_sweep_is_reported_or_refused(workplace: Path) -> None:
    from gptexp.runs.code_hash import code_sha256

    line = [*BASE, "seed=1,2,3,4", "sweep.name=mine"]
    made = store.join(plan(line))
    trained(made.folder / "seed=1", code_sha256())
    trained(made.folder / "seed=2", "f" * 64, code_sha256())
    (made.folder / "seed=4").mkdir()  # started with code that stored no hash
    assert not made.other_code()
    trained(made.folder / "seed=3", code_sha256(), "e" * 64)
    assert [job.name for job in store.join(plan(line)).other_code()] == ["seed=3"]
    with pytest.raises(ConfigError, match=r"the code of 1 of its jobs was eeeeeeee and is .* \(sweep\.code=strict\)"):
        store.join(plan([*line, "sweep.code=strict"]))


def test_a_job_of_a_strict_sweep_fails_when_the_code_has_changed(workplace: Path) -> None:
    from gptexp.sweep import job

    made = store.join(plan([*BASE, "seed=1,2", "sweep.name=mine", "sweep.code=strict"]))
    made.code = "f" * 64
    store.write(made)
    assert job.run(made.folder, 0) is None
    assert result(made.folder / "seed=1")["error"].startswith("sweep.code=strict: the code has changed")


def test_a_sweep_of_widths_adapts_default_learning_rates() -> None:
    from gptexp.sweep.plan import natural_rates

    jobs = plan(["sweep=depth_width"]).jobs
    assert natural_rates(jobs) == pytest.approx([6.0e-3, 5.9e-3, 3.6e-3], rel=0.02)
    assert natural_rates(jobs[::-1]) == natural_rates(jobs)[::-1], "in the order of the jobs"
    assert natural_rates(plan(["sweep=heads"]).jobs) == pytest.approx([5.9e-3], rel=0.02)
    assert not natural_rates(plan(["sweep=depth_width", "optimizer.lr=0.003"]).jobs)


# ------------------------------------------------------------------------------------- running


def test_a_sweep_runs_every_job_once_and_shows_what_failed(workplace: Path) -> None:
    line = ["model.n_layer=1,2", "optimizer.lr=0.01,1e22", "trainer.gradient_clip=null", "sweep.name=mine"]
    line += ["trainer.max_steps=4", "trainer.val_every_steps=4"]
    done = sweep(workplace, *line)
    assert done.returncode == 1, done.stderr
    assert "done 1/4 · n_layer=1,lr=0.01 · val/bpb " in done.stdout
    assert "failed 2/4 · n_layer=1,lr=1e+22 · train/loss is nan at step 2" in done.stdout
    assert done.stdout.count("failed: n_layer=") == 2
    assert done.stdout.splitlines()[-1] == "next: gptexp compare logs/sweeps/mine"
    folder = workplace / "logs/sweeps/mine"
    stored = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
    assert [job["name"] for job in stored["jobs"]] == sorted(p.name for p in folder.iterdir() if p.is_dir())
    ended = {
        name: (folder / name / "result.json").stat().st_mtime_ns for name in ("n_layer=1,lr=0.01", "n_layer=2,lr=1e+22")
    }
    again = sweep(workplace, *line)
    assert "4 jobs, 2 done" in again.stdout
    assert (folder / "n_layer=1,lr=0.01/result.json").stat().st_mtime_ns == ended["n_layer=1,lr=0.01"]
    assert (folder / "n_layer=2,lr=1e+22/result.json").stat().st_mtime_ns > ended["n_layer=2,lr=1e+22"]


def test_a_complete_sweep_is_reported_without_torch(workplace: Path) -> None:
    line = ["seed=1,2", "sweep.name=mine"]
    made = store.join(plan([*BASE, *line]))
    for job in made.jobs:
        made.place(job).mkdir()
        (made.place(job) / "result.json").write_text('{"status": "completed", "metrics": {"val/bpb": 1.5}, "steps": 2}')
    code = (
        "import sys; sys.argv[1:] = sys.argv[1:]\n"
        "from gptexp.train import main; main()\n"
        "print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, "-m", *BASE, *line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("1.5000") == 2


def test_settings_of_jobs_come_from_the_stored_sweep(workplace: Path) -> None:
    """Simulates a preset that is edited after the sweep is stored and before its second job starts."""
    from gptexp.sweep import job

    made = store.join(plan([*BASE, "seed=1,2", "sweep.name=mine"]))
    made.jobs[1].config["optimizer"]["lr"] = 0.0123
    store.write(made)
    assert job.run(made.folder, 1) == result(made.folder / "seed=2")["metrics"]["val/bpb"]
    written = yaml.safe_load((made.folder / "seed=2/config.yaml").read_text(encoding="utf-8"))
    assert (written["optimizer"]["lr"], written["seed"], written["name"]) == (0.0123, 2, "seed=2")


def test_a_dry_run_measures_and_starts_no_job(workplace: Path) -> None:
    done = sweep(workplace, "model.n_layer=1,2", "sweep.dry_run=true", "sweep.name=mine")
    assert done.returncode == 0, done.stderr
    assert "n_layer=1" in done.stdout
    assert "nothing was started" in done.stdout
    assert not (workplace / "logs").exists()


def test_two_processes_do_not_run_one_sweep(workplace: Path) -> None:
    planned = plan([*BASE, "seed=1,2", "sweep.name=mine"])
    with store.held(planned.folder):
        done = sweep(workplace, "seed=1,2", "sweep.name=mine")
    assert done.returncode == 2
    assert done.stderr == "error: logs/sweeps/mine: another process runs this sweep\n"


# ------------------------------------------------------------------------------- killed and resumed

LAUNCHERS: dict[str, list[str]] = {
    "in order": [],
    "cores": ["hydra/launcher=cores"],
    "submitit_local": ["hydra/launcher=submitit_local"],
}
if find_spec("ray") is not None:  # 422 MB, which only users with a cluster install
    LAUNCHERS["ray"] = ["hydra/launcher=ray"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.weekly)])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_killed_several_times_ends_as_an_undisturbed_one(workplace: Path, launcher: str, kills: int) -> None:
    line = [
        "model.n_layer=2", "seed=1,2,3,4", "model.dropout=0.1", "trainer.max_steps=24",
        "trainer.val_every_steps=8", "callbacks.checkpoint.every_steps=2", "data.global_batch_size=16",
        *LAUNCHERS[launcher],
    ]  # fmt: skip
    whole = sweep_of_processes(workplace, *line, "sweep.name=whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    folder = workplace / "logs/sweeps/killed"
    for kill in range(kills):
        process = started_sweep(workplace, *line, "sweep.name=killed")
        deadline = time.monotonic() + 120
        while saved(folder) < 100 * kill // kills + 7 and process.poll() is None:  # of 25 lines for each of four jobs
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = sweep_of_processes(workplace, *line, "sweep.name=killed")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [job.name for job in store.read(folder).jobs]
    assert len(jobs) == 4
    a, b = ({name: result(workplace / "logs/sweeps" / s / name) for name in jobs} for s in ("whole", "killed"))
    assert {name: r["metrics"] for name, r in a.items()} == {name: r["metrics"] for name, r in b.items()}
    assert any((r["resumed_from"] or 0) > 0 for r in b.values())


def saved(folder: Path) -> int:
    """The number of lines in all metrics.csv files, which measures the progress of the sweep."""
    return sum(path.read_text().count("\n") for path in folder.glob("*/metrics.csv"))


def test_interrupting_a_sweep_saves_the_running_job_and_stops_the_rest(workplace: Path, quick_ranks: None) -> None:
    line = [*BASE, "seed=1,2", "sweep.name=mine", "trainer.max_steps=100000", "trainer.val_every_steps=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gptexp.train", "-m", *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    folder, deadline = workplace / "logs/sweeps/mine", time.monotonic() + 100
    while saved(folder) < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    reported, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert reported.splitlines()[-1] == "2 jobs, 0 done; repeat the command line to continue"
    assert result(folder / "seed=1")["status"] == "interrupted"
    assert not (folder / "seed=2").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_jobs_save_when_their_sweep_is_killed(workplace: Path) -> None:
    """Checkpoints are a hundred thousand steps apart here, so any checkpoint was saved because of the signal."""
    line = [*BASE, "seed=1,2", "sweep.name=mine", "trainer.max_steps=100000", "trainer.val_every_steps=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gptexp.train", "-m", *line, "hydra/launcher=cores", "hydra.launcher.n_jobs=2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    jobs = [workplace / "logs/sweeps/mine" / name for name in ("seed=1", "seed=2")]
    deadline = time.monotonic() + 200
    while not all((job / "metrics.csv").exists() and saved(job.parent) > 10 for job in jobs):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    while not all((job / "result.json").exists() for job in jobs):
        assert time.monotonic() < deadline + 60
        time.sleep(0.05)
    for job in jobs:
        assert result(job)["status"] == "interrupted"
        assert (job / "checkpoints/last.ckpt").exists()


def test_a_missing_launcher_names_the_extra_to_install(workplace: Path) -> None:
    done = command("train", "-m", *BASE, "seed=1,2", "hydra/launcher=ray", cwd=workplace)
    if "hydra_plugins.hydra_ray_launcher" not in sys.modules and done.returncode == 2:
        assert done.stderr == f"error: hydra/launcher=ray: its package is not installed; {install_extra('ray')}\n"


SLURM = {
    "sbatch": """
        cp "${@: -1}" "$FAKE/script"
        for i in $(seq 0 $(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$FAKE/script")); do
            "$FAKE/task" $i &
        done
        echo "Submitted batch job 123" """,
    "task": """
        export SLURM_ARRAY_JOB_ID=123 SLURM_ARRAY_TASK_ID=$1 SLURM_JOB_ID=$((200 + $1)) SLURM_STEP_ID=0
        export SLURM_NTASKS=1 SLURM_NNODES=1 SLURM_JOB_NUM_NODES=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
        export SLURM_JOB_NODELIST=localhost
        exec bash "$FAKE/script" >> "$FAKE/out$1" 2>&1""",
    "srun": """
        while [[ "$1" != */python* ]]; do shift; done
        exec "$@" """,
    "scontrol": """
        if [ "$1" = requeue ]; then echo "$2" >> "$FAKE/requeued"; "$FAKE/task" "${2#*_}" & else echo localhost; fi""",
    "sacct": "true",
    "squeue": "true",
    "scancel": "true",
}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_slurm_runs_the_jobs_and_resumes_a_preempted_one(workplace: Path) -> None:
    """Small scripts replace SLURM's commands and run their arguments on this machine."""
    fake = workplace / "bin"
    fake.mkdir()
    for name, script in SLURM.items():
        (fake / name).write_text(f"#!/bin/bash\n{script}\n")
        (fake / name).chmod(0o755)
    env = {**os.environ, "FAKE": str(fake), "PATH": f"{fake}:{os.environ['PATH']}"}
    line = [*BASE, "seed=1,2", "hydra/launcher=slurm", "sweep.name=mine", "trainer.max_steps=400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gptexp.train", "-m", *line, "trainer.val_every_steps=400"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
    )  # fmt: skip
    folder, deadline = workplace / "logs/sweeps/mine", time.monotonic() + 100
    while not (metrics := folder / "seed=1/metrics.csv").exists() or metrics.read_text().count("\n") < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    training = [p for p in processes("submitit.core._submit") if p.info["environ"].get("FAKE") == str(fake)]
    (first,) = [p for p in training if p.info["environ"]["SLURM_ARRAY_TASK_ID"] == "0"]
    first.send_signal(signal.SIGUSR2)
    reported, _ = process.communicate(timeout=200)
    assert process.returncode == 0, reported
    assert (fake / "requeued").read_text().split() == ["123_0"]
    assert result(folder / "seed=1")["resumed_from"] > 0
    assert result(folder / "seed=2")["resumed_from"] is None
    script = (fake / "script").read_text()
    assert "#SBATCH --array=0-1%2" in script
    assert "#SBATCH --signal=USR2@300" in script


# --------------------------------------------------------------------------------------- searching

SPACE = ["hydra/sweeper=optuna", "optimizer.lr=tag(log, interval(0.001, 0.1))", "model.mlp_ratio=1,2,4"]


def study(folder: Path) -> list[Any]:
    import optuna

    storage = f"sqlite:///{folder / 'search.db'}"
    return optuna.load_study(study_name=folder.name, storage=storage).get_trials(deepcopy=False)


def test_search_spaces_in_hydras_grammar_become_optunas() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from gptexp.sweep.search import distribution

    assert distribution("a", "tag(log, interval(0.001, 1))") == FloatDistribution(0.001, 1.0, log=True)
    assert distribution("a", "int(interval(1, 8))") == IntDistribution(1, 8)
    assert distribution("a", "range(2, 7)") == IntDistribution(2, 6)
    assert distribution("a", "range(0, 10, 3)") == IntDistribution(0, 9, step=3)
    assert distribution("a", "64,128") == CategoricalDistribution(["64", "128"])
    assert distribution("a", "rope,alibi") == CategoricalDistribution(["rope", "alibi"])
    with pytest.raises(ValueError, match="a=3: not a search space"):
        distribution("a", "3")


def test_a_search_space_without_a_searcher_is_refused(workplace: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr=.*: is a search space; add hydra/sweeper=optuna"):
        plan([*BASE, SPACE[1]])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_resumed_search_draws_the_same_points(workplace: Path) -> None:
    line = [*SPACE, "trainer.max_steps=20", "callbacks.checkpoint.every_steps=5", "sweep.n_trials=6"]
    whole = sweep_of_processes(workplace, *line, "sweep.name=whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    folder = workplace / "logs/sweeps/killed"
    for rows in (30, 75):
        process = started_sweep(workplace, *line, "sweep.name=killed")
        deadline = time.monotonic() + 100
        while saved(folder) < rows:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
    done = sweep_of_processes(workplace, *line, "sweep.name=killed")
    assert done.returncode == 0, done.stdout + done.stderr
    a, b = study(workplace / "logs/sweeps/whole"), study(folder)
    assert [t.number for t in b] == list(range(6))
    assert [t.params for t in b] == [t.params for t in a]
    assert [t.value for t in b] == [t.value for t in a]
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == [f"trial={i:03d}" for i in range(6)]
    assert "best: trial=" in done.stdout
    longer = sweep_of_processes(workplace, *line, "sweep.name=killed", "sweep.n_trials=7")
    assert longer.returncode == 0, longer.stderr
    assert len(study(folder)) == 7


def test_an_invalid_point_is_a_failed_trial_and_the_search_continues(workplace: Path) -> None:
    line = ["hydra/sweeper=optuna", "model.n_embd=range(16,24,2)", "sweep.n_trials=4", "sweep.name=mine"]
    done = sweep(workplace, *line)
    assert done.returncode == 0, done.stdout + done.stderr
    states = {t.params["model.n_embd"] % 4: t.state.name for t in study(workplace / "logs/sweeps/mine")}
    assert states == {0: "COMPLETE", 2: "FAIL"}
    assert "needs an even head_dim" in done.stderr


def test_a_repeated_point_is_not_trained_again(workplace: Path) -> None:
    line = ["hydra/sweeper=optuna", "model.bias=true,false", "sweep.n_trials=6", "sweep.name=mine"]
    done = sweep(workplace, *line)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = study(workplace / "logs/sweeps/mine")
    assert len(trials) == 6
    assert len(list((workplace / "logs/sweeps/mine").glob("trial=*/result.json"))) == 2
    assert {t.params["model.bias"] for t in trials} == {"True", "False"}
    assert len({t.value for t in trials}) == 2
