"""The help of `gptexp train`: groups, options and descriptions of settings. No torch."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptexp.compose.composition import compose_raw
from gptexp.compose.messages import closest, setting_names
from gptexp.compose.presets import presets
from gptexp.compose.registry import groups, register_schemas
from gptexp.config import KINDS
from gptexp.config.descriptions import (
    Section,
    Setting,
    about,
    schema_of,
    sections,
    setting_groups,
    settings_of,
    top_settings,
    value_text,
)
from gptexp.config.plugins import PLUGINS
from gptexp.util.entry_point import program_name
from gptexp.util.errors import ConfigError

EXAMPLES = {
    "model": "model=gpt2_small model.n_layer=6",
    "data": 'data=text data.path="books/*.txt"',
    "tokenizer": "tokenizer=bpe tokenizer.vocab_size=2000",
    "objective": "objective=classification data=labelled data.path=reviews.csv",
    "optimizer": "optimizer=muon optimizer.lr=2e-3",
    "schedule": "schedule=wsd schedule.warmup_steps=100",
    "finetune": "finetune=lora finetune.rank=4 init_from=RUN",
    "trainer": "trainer=cpu trainer.max_steps=3000",
    "callbacks": "callbacks=early_stopping callbacks.samples.tokens=200",
    "logger": "logger=csv",
    "experiment": "experiment=shakespeare_char_cpu",
    "sweep": "-m sweep=tokenizer data=harrypotter",
    "debug": "debug=smoke",
    "prepare": "data=fineweb_edu prepare.parts=32 hydra/launcher=cores",
    "paths": "paths.data=/big/disk/data paths.logs=/big/disk/logs",
}

USAGE = """\
{program} [group=option] [key=value] …  train one experiment
{program} -m key=a,b,c seed=1,2,3       train each combination
{program} --cfg job [group=option] …    print the settings only
{program} --help GROUP                  explain the settings
{program} resume=RUN                    resume a run
{program} init_from=RUN data=…          start from its weights
{program} --config-dir DIR …            add the presets of a folder
"""


def help_text() -> str:
    """Return the groups with their options, one per line, and an example of each group."""
    program = program_name("gptexp.train")
    lines = [USAGE.format(program=program)]
    for group, example in EXAMPLES.items():
        lines += [f"{group}    e.g. {example}", *_options(group), ""]
    lines += ["A RUN is a run folder, a checkpoint file or `latest`. For init_from also"]
    lines += ["gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2 or Hugging Face's folder."]
    lines += ["`--help model` explains a group, `--help model.n_layer` one setting,"]
    lines += ["docs/settings.md all. `--cfg job` prints their values."]
    return "\n".join(lines)


def _options(group: str) -> list[str]:
    return [f"  {option:<22}{comment_of(group, option)}" for option in groups().get(group, ())]


def comment_of(group: str, option: str) -> str:
    """Return the first comment of a preset, which describes it, without Hydra's package header."""
    lines = presets()[group][option].read_text(encoding="utf-8").splitlines()
    return next((line[1:].strip() for line in lines if line.startswith("#") and not line.startswith("# @")), "")


def topics() -> list[str]:
    """Return the groups and settings that --help explains."""
    register_schemas()
    return sorted({*groups(), *setting_groups(), *setting_names()})


def choices(override: str) -> list[str]:
    """Return the overrides that give a setting each of its values, if they are few: `model.bias=true` and `=false`."""
    name, _, _ = override.partition("=")
    found = [setting for section in _matching(name) for setting in section.settings if setting.name == name]
    return [f"{name}={choice}" for setting in found for choice in setting.choices]


def topic_text(topic: str) -> str:
    """Return the help about a group, an option (`model=mini_gpt`), a kind (`model=gpt`) or a setting.

    Raises:
        ConfigError: the topic is unknown; names similar topics.
    """
    register_schemas()
    group, equals, option = topic.partition("=")
    if equals and group in (*groups(), *setting_groups()):
        return "\n".join(_option_lines(group, option))
    if group in (*groups(), *setting_groups()):
        return "\n".join(_group_lines(group))
    found = list(_matching(group))
    if not found:
        raise ConfigError(f"--help {topic}: no such group or setting; {closest(group, topics())}")
    return "\n".join(line for section in found for line in _section_lines(section, group.partition(".")[0]))


def _matching(name: str) -> Iterator[Section]:
    """Yield the sections that contain a setting, or settings below a dotted name, with only these settings."""
    group, _, below = name.partition(".")
    found = list(sections(group)) if below and group in setting_groups() else [Section(None, "", top_settings())]
    for section in found:
        kept = [s for s in section.settings if s.name == name or s.name.startswith(f"{name}.")]
        if kept:
            yield replace(section, about="", settings=kept)


def _group_lines(group: str) -> Iterator[str]:
    if group in EXAMPLES:
        yield f"{group}    e.g. {EXAMPLES[group]}"
    yield from _options(group)
    if group not in setting_groups():
        yield f"\n`--help {group}={groups()[group][0]}` shows the values that an option sets."
        return
    for section in sections(group):
        if section.settings or section.kind:
            yield ""
            yield from _section_lines(section, group)
    if group in PLUGINS:
        yield f"\nclasses allowed in {group}.plugins: {', '.join(sorted(PLUGINS[group]))}"
    if group in KINDS:
        yield f"\nValues are the defaults of a kind; `--help {group}={groups()[group][0]}` shows those of an option."


def _section_lines(section: Section, group: str) -> Iterator[str]:
    if section.kind is not None:
        options = options_of_kind(group, section.kind)
        yield f"kind {section.kind}: {section.about}".removesuffix(": ")
        yield textwrap.fill(f"options: {', '.join(options)}", _width(), initial_indent="  ", subsequent_indent=" " * 6)
    elif section.about:
        yield section.about
    yield from _setting_lines(section.settings)


def _setting_lines(found: Iterable[Setting]) -> Iterator[str]:
    for setting in found:
        yield f"  {f'{setting.name}={setting.default}':<34}  {setting.type}"
        if setting.sentence:
            yield textwrap.fill(setting.sentence, _width(), initial_indent=" " * 6, subsequent_indent=" " * 6)


def _width() -> int:
    return min(100, shutil.get_terminal_size().columns)


def options_of_kind(group: str, kind: str) -> list[str]:
    """Return the presets of a group that are made from a kind."""
    return [option for option in groups()[group] if _kind_of(group, option) == kind]


def _kind_of(group: str, option: str) -> str | None:
    """Return the kind that a preset is made from, following the presets that it is based on."""
    path = presets()[group].get(option)
    for entry in _defaults(path) if path is not None else []:
        base, schema = str(entry).partition("@")[0], f"/schema/{group}/"
        if base.startswith(schema):
            return base.removeprefix(schema)
        if base in groups()[group]:
            return _kind_of(group, base)
    return None


def _defaults(path: Path) -> list[Any]:
    loaded = OmegaConf.load(path)
    return list(loaded.get("defaults", [])) if isinstance(loaded, DictConfig) else []


def _option_lines(group: str, option: str) -> Iterator[str]:
    """Yield a preset with its values, a kind with its defaults, or the YAML of a preset of several groups."""
    options, kinds = groups().get(group, ()), KINDS.get(group, {})
    if option in options and group in setting_groups() and group != "sweep":
        yield f"{group}={option}: {comment_of(group, option)}"
        yield from _setting_lines(_preset_settings(group, option))
    elif option in options:
        yield presets()[group][option].read_text(encoding="utf-8").rstrip()
    elif option in kinds:
        yield f"kind {option}: {about(kinds[option])}"
        yield from _setting_lines(settings_of(kinds[option], f"{group}."))
    else:
        raise ConfigError(
            f"--help {group}={option}: no such option; {closest(option, dict.fromkeys([*options, *kinds]))}"
        )


def _preset_settings(group: str, option: str) -> list[Setting]:
    """Return the settings of a preset with their values."""
    composed = OmegaConf.to_container(compose_raw([f"{group}={option}"])[group], enum_to_str=True)
    assert isinstance(composed, dict)
    kind = composed.get("kind")
    schema = KINDS[group][kind] if kind else schema_of(group)
    return [replace(s, default=value_text(_value(composed, s.name))) for s in settings_of(schema, f"{group}.")]


def _value(composed: dict[Any, Any], name: str) -> Any:
    found: Any = composed
    for key in name.split(".")[1:]:
        found = found[key]
    return found
