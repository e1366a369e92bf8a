"""The data settings of an untrusted run are used only with the user's consent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import gptexp.objectives.base  # noqa: F401 (imports `prepare` before a test replaces it)
from gptexp.compose import trust
from gptexp.compose.composition import compose
from gptexp.config.conversion import to_plain
from gptexp.evaluate import main
from gptexp.runs import checkpoint as ckpt
from gptexp.util.errors import ConfigError
from support.checkpoints import SMALL, small_checkpoint

TEXT = {"kind": "text", "path": "/**"}
HUB: dict[str, Any] = {"kind": "huggingface", "dataset": "someone/something"}
URL = {"kind": "huggingface", "dataset": "text", "data_files": "http://169.254.1.1/x"}


def stored(folder: Path, data: dict[str, Any]) -> Path:
    """A run folder with a checkpoint that has these data settings."""
    settings = to_plain(compose([*SMALL, "tokenizer=byte"]))
    settings["data"] = settings["data"] | data
    settings["data"] = {key: value for key, value in settings["data"].items() if value is not None}
    ckpt.rotate(small_checkpoint(config=settings), folder / "checkpoints", best=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def nothing_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gptexp.data.prepare.prepare", lambda data, *_, **__: pytest.fail(f"{data.kind} was prepared"))


@pytest.mark.parametrize("data", [TEXT, HUB, URL, {"kind": "pydocs"}])
def test_evaluate_reads_no_corpus_of_an_untrusted_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: dict[str, Any]
) -> None:
    run = stored(tmp_path / "untrusted", data)
    for given in (run, run / "checkpoints/last.ckpt"):
        with pytest.raises(SystemExit):
            main([str(given)])
        reported = capsys.readouterr().err
        assert f"data.kind={data['kind']}" in reported
        assert "last.ckpt name the corpus to read" in reported
        assert "--trust-data" in reported
        assert reported.count("\n") == 1


def test_evaluate_does_not_download_a_corpus_without_consent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "logs/runs/mine", HUB)
    with pytest.raises(SystemExit):
        main(["latest"])
    assert "a corpus from the network" in capsys.readouterr().err


@pytest.mark.parametrize(("place", "flags"), [("untrusted", ["--trust-data"]), ("logs/runs/mine", [])])
def test_evaluate_reads_the_corpus_of_a_trusted_run_or_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, flags: list[str]
) -> None:
    read: list[str] = []

    def prepare(data: Any, *_: Any, **__: Any) -> Any:
        read.append(data.kind)
        raise ValueError("enough")

    monkeypatch.setattr("gptexp.evaluation.run_corpus.prepare_texts", prepare)
    with pytest.raises((SystemExit, ValueError)):
        main([str(stored(tmp_path / place, {"kind": "pydocs"})), *flags])
    assert read == ["pydocs"]


@pytest.mark.parametrize("data", [TEXT, {**TEXT, "path": "../secret.txt"}, {**TEXT, "path": "~/x"}, HUB, URL])
def test_resume_ignores_the_data_settings_of_an_untrusted_run(tmp_path: Path, data: dict[str, Any]) -> None:
    run = stored(tmp_path / "untrusted/run", data)
    with pytest.raises(ConfigError, match=rf"resume={run}: is outside paths\.logs=logs.*data\.kind=.*paths\.logs="):
        compose([f"resume={run}"])
    wanted = compose([f"resume={run}", f"paths.logs={run.parent}"]).data
    assert wanted.kind == data["kind"]
    assert compose([f"resume={run}", f"hydra.run.dir={run}"]).data.kind == data["kind"]
    assert compose([f"resume={run}", "data=pydocs"]).data.kind == "pydocs"


@pytest.mark.parametrize("data", [{"kind": "pydocs"}, {**TEXT, "path": "texts/a.txt"}])
def test_resume_needs_no_consent_for_a_local_text(tmp_path: Path, data: dict[str, Any]) -> None:
    assert compose([f"resume={stored(tmp_path / 'untrusted', data)}"]).data.kind == data["kind"]


def test_a_link_inside_logs_is_trusted_and_a_path_out_of_logs_is_not(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "disk/run").mkdir(parents=True)
    (tmp_path / "logs/run").symlink_to(tmp_path / "disk/run")
    assert trust.is_in_logs(Path("logs/run"), Path("logs"))
    assert trust.is_in_logs(tmp_path / "disk/run", Path("disk"))
    assert not trust.is_in_logs(Path("logs/../disk/run"), Path("logs"))
    assert not trust.is_in_logs(Path("logs2/run"), Path("logs"))


MLFLOW = {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "tracking_uri": "http://169.254.1.1/${oc.env:HOME}"}


def with_plugin(folder: Path, group: str, plugin: dict[str, Any]) -> Path:
    run = stored(folder, {"kind": "pydocs"})
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    settings[group]["plugins"] = {"untrusted": plugin}
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return run


@pytest.mark.parametrize("group", ["logger", "callbacks"])
def test_resume_uses_no_logger_or_variable_of_an_untrusted_run(tmp_path: Path, group: str) -> None:
    run = with_plugin(tmp_path / "untrusted/run", group, MLFLOW)
    with pytest.raises(ConfigError, match=rf"is outside paths\.logs=logs.*{group}\.plugins.*{group}=…"):
        compose([f"resume={run}"])
    assert not getattr(compose([f"resume={run}", f"{group}=default"]), group).plugins
    restored = getattr(compose([f"resume={run}", f"paths.logs={run.parent}"]), group).plugins["untrusted"]
    assert restored["tracking_uri"] == "http://169.254.1.1/${oc.env:HOME}"  # from a trusted run, and still not resolved


def test_a_checkpoint_file_alone_restores_no_loggers_or_callbacks(tmp_path: Path) -> None:
    settings = to_plain(compose([*SMALL, "tokenizer=byte"]))
    settings["logger"]["plugins"] = settings["callbacks"]["plugins"] = {"untrusted": MLFLOW}
    ckpt.save(small_checkpoint(config=settings), tmp_path / "a.ckpt")  # as in files of older versions
    config = compose(["resume=a.ckpt", "paths.logs=."])
    assert not config.logger.plugins
    assert not config.callbacks.plugins


def test_any_text_of_a_corpus_from_a_package_is_checked_as_a_path(workplace: Path) -> None:
    assert trust.is_local({"kind": "mylab_books", "folder": "books", "n_lines": 3})
    for value in ("/etc", "../other", "https://example.org/x", "books/*"):
        stranger = {"kind": "mylab_books", "folder": value}
        assert not trust.is_local(stranger)
        assert trust.data_text(stranger) == f"data.kind=mylab_books data.folder={value}"
