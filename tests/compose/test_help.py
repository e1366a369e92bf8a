"""`gptexp train --help` explains groups, options, kinds and settings; docs/settings.md is made from the same text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gptexp import train
from gptexp.compose.help import EXAMPLES, help_text, topic_text
from gptexp.compose.registry import groups
from gptexp.compose.settings_page import main, page
from gptexp.config.descriptions import setting_groups
from gptexp.util.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs/settings.md"


def test_the_page_of_settings_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make settings`"


def test_the_page_is_written_to_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["settings_page", str(tmp_path / "settings.md")])
    main()
    assert (tmp_path / "settings.md").read_bytes() == PAGE.read_bytes()


def test_every_group_has_an_example_and_help() -> None:
    assert set(EXAMPLES) == {*groups(), *setting_groups()}
    for group in EXAMPLES:
        text = topic_text(group)
        assert EXAMPLES[group] in text
        assert all(f"  {option} " in text for option in groups().get(group, ()))


def test_help_of_a_group_has_type_default_and_sentence() -> None:
    text = topic_text("model")
    assert "  model.n_kv_head=null                int or null\n      Number of key/value heads" in text
    assert "kind gpt: A decoder-only transformer." in text


@pytest.mark.parametrize(
    ("topic", "shown", "absent"),
    [
        ("model=mini_gpt", "model.n_layer=4 ", "model.n_hidden"),
        ("model=modern_gpt", "model.norm=rmsnorm ", "model.n_hidden"),
        ("model=gpt", "model.n_layer=12 ", "model.n_hidden"),
        ("data=text", "data.path=null ", "data.dataset"),
        ("callbacks=early_stopping", "callbacks.plugins={early_stopping: {_target_: ", "data."),
        ("trainer=cpu", "trainer.accelerator=cpu ", "data."),
        ("experiment=speedrun_cpu", "override /data: shakespeare", "model.n_head"),
        ("optimizer.lr", "optimizer.lr=null ", "optimizer.beta1"),
        ("callbacks.samples", "callbacks.samples.top_k=50 ", "callbacks.checkpoint"),
        ("seed", "seed=1 ", "resume"),
    ],
)
def test_help_explains_an_option_a_kind_or_a_setting(topic: str, shown: str, absent: str) -> None:
    text = topic_text(topic)
    assert shown in text
    assert absent not in text


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("modle", "--help modle: no such group or setting; did you mean model?"),
        ("n_layer", "--help n_layer: no such group or setting; did you mean model.n_layer?"),
        ("model=mini_gtp", "--help model=mini_gtp: no such option; did you mean mini_gpt?"),
    ],
)
def test_an_unknown_topic_names_the_closest(topic: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        topic_text(topic)
    assert str(error.value) == message


@pytest.mark.parametrize("arguments", [["--help", "seed"], ["--help=seed"], ["model=bigram", "-h", "seed"]])
def test_the_words_after_help_are_explained(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 0
    assert capsys.readouterr().out == topic_text("seed") + "\n"


def test_general_help_names_no_source_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "src/" not in help_text()
    assert help_text().startswith("python -m gptexp.train ")
    monkeypatch.setattr(sys, "argv", ["gptexp train", "--help"])
    assert help_text().startswith("gptexp train ")
