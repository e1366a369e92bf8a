"""Every setting has a sentence in its schema, from which the help and docs/settings.md are made."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from gptexp.config import KINDS, Config, GPTConfig, LabelledConfig, WSDConfig
from gptexp.config.descriptions import sections, sentences, setting_groups, settings_of, type_text

OWN_KIND = '''
from dataclasses import dataclass
from gptexp.config import ModelConfig

@dataclass(kw_only=True)
class Config(ModelConfig):
    kind: str = "gru"
    n_hidden: int = 8
    """Width of the
    hidden state."""
    silent: bool = False
'''


def schemas(schema: type = Config) -> Iterator[type]:
    """A schema and all schemas inside it."""
    yield schema
    for hint in get_type_hints(schema).values():
        if is_dataclass(hint):
            yield from schemas(hint)  # type: ignore[arg-type]


ALL = [*schemas(), *(schema for kinds in KINDS.values() for schema in kinds.values())]


@pytest.mark.parametrize("schema", dict.fromkeys(ALL), ids=lambda schema: schema.__name__)
def test_every_field_of_every_schema_has_a_sentence(schema: type) -> None:
    found = sentences(schema)
    for field in fields(schema):
        assert found.get(field.name, "").endswith("."), f"{schema.__name__}.{field.name}"
        assert found[field.name][0].isupper()


def test_a_sentence_is_inherited_and_can_be_replaced() -> None:
    assert sentences(GPTConfig)["block_size"].startswith("Context length in tokens")
    assert sentences(WSDConfig)["warmup_steps"].startswith("Steps in which")
    assert sentences(LabelledConfig)["val_fraction"].startswith("Fraction of the texts of each label")


def test_settings_have_type_default_and_choices() -> None:
    found = {setting.name: setting for setting in settings_of(GPTConfig, "model.")}
    assert "model.kind" not in found
    assert (found["model.n_kv_head"].type, found["model.n_kv_head"].default) == ("int or null", "null")
    assert (found["model.norm"].type, found["model.norm"].default) == ("layernorm, rmsnorm, none", "layernorm")
    assert (found["model.bias"].choices, found["model.bias"].default) == (("true", "false"), "true")
    nested = {setting.name: setting for setting in settings_of(Config)}
    assert nested["callbacks.samples.prompt"].default == "''"
    assert nested["callbacks.plugins"].type == "mapping"
    assert type_text(list[str]) == "list of str"


def test_kinds_show_only_what_differs_from_the_group() -> None:
    shared, *kinds = sections("schedule")
    assert [setting.name for setting in shared.settings] == ["schedule.warmup_steps"]
    shown = {section.kind: [setting.name for setting in section.settings] for section in kinds}
    assert shown["constant"] == []
    assert shown["wsd"] == ["schedule.min_lr_ratio", "schedule.decay_fraction"]
    assert [len(list(sections(group))) for group in setting_groups() if group not in KINDS] == [1] * 6


def test_a_users_schema_works_and_a_missing_sentence_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_gru.py").write_text(OWN_KIND, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    schema = importlib.import_module("users_gru").Config
    found = {setting.name: setting.sentence for setting in settings_of(schema)}
    assert found["n_hidden"] == "Width of the hidden state."
    assert found["silent"] == ""
    assert found["block_size"].startswith("Context length")
    monkeypatch.delitem(sys.modules, "users_gru")
