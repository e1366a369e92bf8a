"""The logs of a run: one table, one TensorBoard curve, settings with final metrics."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer as PluginEventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from gptexp.commands.verify_resume import _curves
from gptexp.config.objective import LMConfig
from gptexp.config.plugins import PLUGINS
from gptexp.report.curves import read_curve
from gptexp.runs.layout import EVENTS
from gptexp.training.callbacks.samples import as_html
from gptexp.training.loggers import CHARTS, MetricsCSV, tensorboard
from gptexp.training.plugins import LONGEST, LastingLogger, load_plugins
from support.runs import TINY_GPT


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tensorboard_has_curves_samples_and_hyperparameters_with_metrics(
    train_here: Callable[..., dict[str, Any]], workplace: Path
) -> None:
    train_here(*TINY_GPT, "trainer.max_steps=4")
    events = EventAccumulator(str(workplace / "run"), size_guidance={"tensors": 0, "scalars": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "val/loss", "val/bpb", "val/perplexity", "lr", "grad_norm", "tokens_per_second"} <= scalars
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [e.step for e in events.Scalars("val/bpb")] == [2, 4]
    assert [e.step for e in events.Tensors("sample/text_summary")] == [2, 4]
    hparams = events.summary_metadata
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= hparams.keys()
    assert b"model.n_embd" in hparams["_hparams_/session_start_info"].plugin_data.content
    assert b"val/bpb" in hparams["_hparams_/experiment"].plugin_data.content


def test_samples_mark_the_prompt_and_hostile_text_stays_text() -> None:
    prompt, rest = (
        "<b>*a*</b>\n",
        "</pre>\n\n# x\n```\n| a | b |\n|---|---|\n\n[x]: y <img src=x onerror=z> &lt; `q` **r**\t😀",
    )
    shown = markdown_to_safe_html(as_html(prompt, prompt + rest))
    page = HTMLParser()
    events: list[tuple[str, str]] = []
    page.handle_starttag = lambda tag, attrs: events.append(("start", tag))  # type: ignore[method-assign]
    page.handle_endtag = lambda tag: events.append(("end", tag))  # type: ignore[method-assign]
    page.handle_data = lambda data: events.append(("text", data))  # type: ignore[method-assign]
    page.feed(shown)
    page.close()
    tags = [("start", "pre"), ("start", "strong"), ("text", prompt), ("end", "strong"), ("text", rest), ("end", "pre")]
    assert [event for event in events if event[1].strip()] == tags


def test_a_sample_that_does_not_begin_with_the_prompt_has_no_mark() -> None:
    assert as_html("ab", "a c") == "<pre><strong></strong>a c</pre>"


def layout_shown(place: Path) -> dict[str, dict[str, list[str]]]:
    """The charts that TensorBoard shows for all runs below a folder: titles and tags by category."""
    multiplexer = PluginEventMultiplexer(tensor_size_guidance={"custom_scalars": 0}).AddRunsFromDirectory(str(place))
    provider = MultiplexerDataProvider(multiplexer.Reload(), str(place))
    plugin = CustomScalarsPlugin(TBContext(data_provider=provider, logdir=str(place), plugin_name_to_instance={}))
    layout = json.loads(plugin.layout_impl(RequestContext(), ""))
    assert all(len({c["title"] for c in of["chart"]}) == len(of["chart"]) for of in layout["category"])
    return {
        of["title"]: {chart["title"]: chart["multiline"]["tag"] for chart in of["chart"]} for of in layout["category"]
    }


def test_custom_scalars_show_each_chart_once_for_all_runs_and_resumes(tmp_path: Path) -> None:
    runs: list[tuple[str, list[str]]] = [("a", []), ("a", []), ("b", ["norm/gradient/norms", "lr/hidden"])]
    runs += [("c", ["attention_entropy/h.0", "activation/mlp"])]
    for step, (name, also) in enumerate(runs):
        logger = tensorboard(tmp_path / name, LMConfig.metrics, first_step=step, also=also)
        logger.log_hyperparams({"seed": 1})
        logger.log_metrics({"train/loss": 1.0}, step + 1)
        logger.save()
    shown = layout_shown(tmp_path)
    assert list(shown) == ["loss", "rates", "inside the model"]
    assert set(shown["loss"]) == {"training and validation loss", "bits per byte"}
    inside = {"norm of the gradient", "norms of gradients", "activations", "entropy of attention in bits"}
    assert set(shown["inside the model"]) == inside


def test_charts_show_the_tags_that_they_name() -> None:
    tags = {title: tag for charts in CHARTS.values() for title, tag in charts.items()}
    names = ["train/loss", "val/loss", "val/mlm_loss", "val/bpb", "val/bpb/books", "val/perplexity", "lr", "lr/hidden"]
    names += ["grad_norm", "norm/weight/h.0.attn", "seconds"]
    shown = {name: [title for title, tag in tags.items() if re.match(tag, name)] for name in names}
    assert list(shown.values()) == [
        *[["training and validation loss"]] * 3,
        *[["bits per byte"]] * 2,
        [],
        *[["learning rate"]] * 2,
        ["norm of the gradient"],
        ["norms of weights"],
        [],
    ]


def test_metrics_of_one_step_share_a_row_and_are_on_disk_at_once(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path, LMConfig.metrics)
    log.log_metrics({"train/loss": 2.0, "lr": 0.1}, step=5)
    log.log_metrics({"val/loss": 1.5, "val/bpb": 2.5}, step=5)
    assert rows(tmp_path / "metrics.csv") == [
        {**dict.fromkeys(rows(tmp_path / "metrics.csv")[0], ""), "step": "5", "train/loss": "2.0", "lr": "0.1"}
        | {"val/loss": "1.5", "val/bpb": "2.5"}
    ]


def test_resumed_table_keeps_the_rows_up_to_its_first_step(tmp_path: Path) -> None:
    first = MetricsCSV(tmp_path, LMConfig.metrics)
    for step in (1, 2, 3, 4):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.finalize("success")
    again = MetricsCSV(tmp_path, LMConfig.metrics, first_step=2)
    again.log_metrics({"train/loss": 30.0}, step=3)
    again.finalize("success")
    assert [(row["step"], row["train/loss"]) for row in rows(tmp_path / "metrics.csv")] == [
        ("1", "1.0"),
        ("2", "2.0"),
        ("3", "30.0"),
    ]


class ServiceError(Exception):
    """The exceptions of experiment trackers have no common base class."""


class Service:
    """A logger whose service fails at one of its methods; "" never."""

    calls: ClassVar[list[str]] = []

    def __init__(self, fails: str = "", **arguments: Any) -> None:
        self.fails = fails
        if arguments:
            raise ServiceError("unknown argument")

    def _call(self, method: str) -> None:
        self.calls.append(method)
        if method == self.fails:
            raise ServiceError(f"no connection to https://me:secret@example.org {'x' * 500}\nsee its log")

    @property
    def experiment(self) -> Service:
        self._call("experiment")
        return self

    def log_hyperparams(self, *_: Any) -> None:
        self._call("log_hyperparams")

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._call("log_metrics")

    def save(self) -> None:
        self._call("save")

    def finalize(self, status: str) -> None:
        self._call("finalize")

    def finish(self) -> None:
        self._call("finish")


METHODS = ["experiment", "log_hyperparams", "log_metrics", "save", "finalize", "finish"]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Service, "calls", [])
    monkeypatch.setitem(PLUGINS, "logger", {f"{__name__}.Service"})
    return f"{__name__}.Service"


@pytest.mark.parametrize("fails", METHODS)
def test_a_logger_that_fails_gets_one_warning_and_the_run_is_completed(
    fails: str, service: str, train_here: Callable[..., dict[str, Any]], recwarn: pytest.WarningsRecorder
) -> None:
    result = train_here(f"+logger.plugins.mine={{_target_: {service}, fails: {fails}}}")
    found = [str(one.message) for one in recwarn if "logger.plugins" in str(one.message)]
    (warning,) = found
    assert warning.startswith("logger.plugins.mine: no connection to https://…@example.org xxx")
    assert warning.endswith("x; the run continues without this logger")
    assert len(warning) < 400
    assert result["status"] == "completed"
    assert Service.calls[-1] == fails or (fails == "finish" and Service.calls[-2:] == ["experiment", "finish"])
    assert Service.calls.count(fails) == 1 or fails == "experiment"


def test_a_logger_gets_every_value_and_ends_its_run(service: str, train_here: Callable[..., dict[str, Any]]) -> None:
    train_here(f"+logger.plugins.mine={{_target_: {service}}}", "trainer.max_steps=4")
    assert Service.calls.count("log_metrics") == len(rows(Path("run/metrics.csv"))) + 2  # 4 steps, 2 validations
    assert Service.calls[-3:] == ["finalize", "experiment", "finish"]


@pytest.mark.parametrize("target", ["Service", "not_installed.Logger"])
def test_a_logger_that_cannot_be_created_gets_a_warning(
    target: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"{__name__}.{target}" if target == "Service" else target
    monkeypatch.setitem(PLUGINS, "logger", {target})
    with pytest.warns(UserWarning, match=r"^logger.plugins.mine: (unknown argument|No module named 'not_installed')"):
        (logger,) = load_plugins("logger", {"mine": {"_target_": target, "project": "x"}}).values()
    logger.log_metrics({"val/loss": 1.0}, 1)  # goes nowhere
    logger.finalize("success")
    assert Service.calls == []


def test_a_password_at_the_end_of_a_shortened_error_is_left_out() -> None:
    def make() -> Any:
        raise ServiceError(f"{'x' * (LONGEST - 20)} https://me:a_long_secret@example.org")

    with pytest.warns(UserWarning, match=r"xxx https://…@exam[^:]*; the run continues") as found:
        LastingLogger("logger.plugins.mine", make)
    assert "secret" not in str(found[0].message)


def test_every_allowed_plugin_can_be_imported() -> None:
    for target in [target for targets in PLUGINS.values() for target in targets]:
        module, _, name = target.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)


def write_points(folder: Path, steps: range, first_step: int = 0) -> None:
    """The logs of a process that starts after first_step and is killed, so nothing is closed."""
    logger = tensorboard(folder, ["val/loss"], first_step)
    for step in steps:
        logger.log_metrics({"train/loss": step / 8}, step)
    logger.save()


def points_of(folder: Path) -> list[tuple[int, float]]:
    return [point for (tag, _), point in sorted(_curves(folder).items()) if tag == "train/loss"]


def test_the_slow_loader_of_tensorboard_shows_repeated_steps_once(tmp_path: Path) -> None:
    write_points(tmp_path, range(1, 8))
    write_points(tmp_path, range(5, 8), first_step=4)
    write_points(tmp_path, range(7, 10), first_step=6)
    assert points_of(tmp_path) == [(step, step / 8) for step in range(1, 10)]


@pytest.mark.parametrize("ahead", [0, 1, 3600])
def test_a_resumed_runs_event_file_is_read_last_whatever_the_clock(tmp_path: Path, ahead: int) -> None:
    for steps in (range(1, 8), range(5, 8)):
        write_points(tmp_path, steps, first_step=steps[0] - 1)
        made = max(tmp_path.glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
        stamp, _, rest = made.name.removeprefix(EVENTS).partition(".")
        made.rename(tmp_path / f"{EVENTS}{int(stamp) + ahead:010d}.{rest}")
    before = sorted(tmp_path.glob("events.*"))
    contents = [path.read_bytes() for path in before]
    write_points(tmp_path, range(7, 10), first_step=6)
    after = sorted(tmp_path.glob("events.*"))
    assert [path.read_bytes() for path in after[:2]] == contents
    assert len(after) == 3
    assert points_of(tmp_path) == [(step, step / 8) for step in range(1, 10)]


def test_verify_resume_detects_duplicate_points_in_tensorboard(tmp_path: Path) -> None:
    for steps, purge in ((range(1, 4), None), (range(3, 5), 3)):  # the first session has no start step
        with SummaryWriter(str(tmp_path), purge_step=purge) as writer:
            for step in steps:
                writer.add_scalar("train/loss", step / 8, step)
    assert [step for step, _ in points_of(tmp_path)] == [1, 2, 3, 3, 4]


def logged(folder: Path, *steps: int, first_step: int = 0) -> MetricsCSV:
    log = MetricsCSV(folder, LMConfig.metrics, first_step)
    for step in steps:
        log.log_metrics({"train/loss": 2.0, "val/loss": 1.5, "val/bpb": 2.0}, step=step)
    return log


@pytest.mark.parametrize("cut", [1, 2, 9, -1])
def test_an_incomplete_last_row_of_the_table_is_dropped(tmp_path: Path, cut: int) -> None:
    logged(tmp_path, 5, 16, 17)
    whole, _, last = (tmp_path / "metrics.csv").read_text().rstrip("\n").rpartition("\n")
    (tmp_path / "metrics.csv").write_text(f"{whole}\n{last[:cut]}")
    curve, _ = read_curve(tmp_path, 64.0)
    assert curve is not None
    assert curve.steps.tolist() == [5, 16]
    logged(tmp_path, 18, first_step=17)
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == ["5", "16", "18"]


def test_a_table_deleted_during_a_run_gets_its_header_again(tmp_path: Path) -> None:
    log = logged(tmp_path, 5)
    (tmp_path / "metrics.csv").unlink()
    for step in (6, 7):
        log.log_metrics({"val/loss": 1.5}, step=step)
    assert [(row["step"], row["val/loss"]) for row in rows(tmp_path / "metrics.csv")] == [("6", "1.5"), ("7", "1.5")]


def test_hparams_show_swept_settings_and_bits_per_byte_first(tmp_path: Path) -> None:
    folder = tmp_path / "model=mini_gpt,bias=true"
    folder.mkdir()
    overrides = ["model=mini_gpt", "model.bias=true"]
    jobs = [{"name": folder.name, "overrides": overrides, "identity": "0", "config": {}}]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"format": 1, "jobs": jobs}))
    logger = tensorboard(folder, ["val/loss", "val/bpb"])
    settings = {"model": {"kind": "gpt", "n_layer": 4, "bias": True, "qk_norm": False}, "data": {"encoding": "utf-8"}}
    logger.log_hyperparams(settings | {"seed": 1, "optimizer": {"lr": None}})
    logger.save()
    logger.finalize("success")
    events = EventAccumulator(str(folder)).Reload()
    data = HParamsPluginData.FromString(events.summary_metadata["_hparams_/experiment"].plugin_data.content)
    infos = data.experiment.hparam_infos
    assert [info.name for info in infos if info.differs] == ["model", "model.bias"]
    assert [info.name for info in infos if not info.differs] == ["model.kind", "model.n_layer", "seed"]
    assert [info.name.tag for info in data.experiment.metric_infos] == ["val/bpb", "val/loss"]
