"""The kinds of each group of settings: gptexp's, and those that installed packages offer. No torch.

A kind is a config class. Its `implementation` names the code, which is imported when it is needed.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib import import_module
from typing import Any

from gptexp.config import packages
from gptexp.config.data import (
    DataConfig,
    HarryPotterConfig,
    HuggingFaceConfig,
    LabelledConfig,
    MixtureConfig,
    PydocsConfig,
    PythonStdlibConfig,
    ShakespeareConfig,
    TextConfig,
)
from gptexp.config.finetune import FinetuneConfig, LoRAConfig
from gptexp.config.model import BigramConfig, GPTConfig, MLPConfig, ModelConfig
from gptexp.config.objective import ClassificationConfig, LMConfig, MLMConfig, ObjectiveConfig
from gptexp.config.optimizer import AdamWConfig, MuonConfig, OptimizerConfig
from gptexp.config.packages import Offer
from gptexp.config.tokenizer import (
    BPEConfig,
    ByteConfig,
    CharConfig,
    FilesTokenizerConfig,
    GPT2TokenizerConfig,
    TokenizerConfig,
)
from gptexp.config.training import CosineConfig, LinearConfig, ScheduleConfig, WSDConfig
from gptexp.util import package
from gptexp.util.errors import ConfigError
from gptexp.util.text import first_line

BASES: dict[str, type] = {
    "model": ModelConfig,
    "tokenizer": TokenizerConfig,
    "data": DataConfig,
    "objective": ObjectiveConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "finetune": FinetuneConfig,
}
BUILT_IN: dict[str, dict[str, type]] = {
    "model": {"bigram": BigramConfig, "mlp": MLPConfig, "gpt": GPTConfig},
    "tokenizer": {
        "char": CharConfig,
        "byte": ByteConfig,
        "bpe": BPEConfig,
        "gpt2": GPT2TokenizerConfig,
        "files": FilesTokenizerConfig,
    },
    "data": {
        "pydocs": PydocsConfig,
        "python_stdlib": PythonStdlibConfig,
        "text": TextConfig,
        "harrypotter": HarryPotterConfig,
        "shakespeare": ShakespeareConfig,
        "huggingface": HuggingFaceConfig,
        "labelled": LabelledConfig,
        "mixture": MixtureConfig,
    },
    "objective": {"lm": LMConfig, "classification": ClassificationConfig, "mlm": MLMConfig},
    "optimizer": {"adamw": AdamWConfig, "muon": MuonConfig},
    "schedule": {"constant": ScheduleConfig, "cosine": CosineConfig, "linear": LinearConfig, "wsd": WSDConfig},
    "finetune": {"full": FinetuneConfig, "lora": LoRAConfig},
}
_RECORDED = re.compile(r"[A-Za-z0-9._-]{1,100} [A-Za-z0-9._+!-]{1,50}")  # name and version, as in a file


class _Kinds(Mapping[str, dict[str, type]]):
    """The config class of each kind, by group. The first access imports those of installed packages."""

    def __getitem__(self, group: str) -> dict[str, type]:
        return _registry().kinds[group]

    def __iter__(self) -> Iterator[str]:
        return iter(BUILT_IN)

    def __len__(self) -> int:
        return len(BUILT_IN)

    def __contains__(self, group: object) -> bool:
        return group in BUILT_IN


KINDS: Mapping[str, dict[str, type]] = _Kinds()


@dataclass(frozen=True)
class _Registry:
    """kinds: config classes by group and kind. offered: by the same, where they are from. broken: why they fail."""

    kinds: dict[str, dict[str, type]]
    offered: dict[tuple[str, str], Offer]
    broken: dict[tuple[str, str], str]


@cache
def _registry() -> _Registry:
    """Return all kinds. A package that fails to import is named in a notice; only its own kinds are missing then."""
    found = _Registry({group: dict(kinds) for group, kinds in BUILT_IN.items()}, {}, {})
    for offer in packages.offers():
        if offer.group == packages.CONF:
            continue
        key = packages.KINDS[offer.group], offer.name
        _refuse_clash(offer, found.offered.get(key), built_in=offer.name in BUILT_IN[key[0]])
        found.offered[key] = offer
        try:
            found.kinds[key[0]][offer.name] = _loaded(offer, BASES[key[0]])
        except Exception as error:
            found.broken[key] = f"{offer} can't be used: {type(error).__name__}: {first_line(error)}"
            warnings.warn(f"{found.broken[key]}; repair or uninstall it", stacklevel=1)
    return found


def _refuse_clash(offer: Offer, other: Offer | None, *, built_in: bool) -> None:
    if built_in or other is not None:
        group = packages.KINDS[offer.group]
        raise ConfigError(
            f"{group}.kind={offer.name}: {offer.package} and {other.package if other else 'gptexp'} have a kind of "
            "this name; rename it in one of them, or uninstall one"
        )


def _loaded(offer: Offer, base: type) -> type:
    """Import a config class and check it."""
    without_torch = "torch" not in sys.modules
    package.FOLDERS.append(packages.folder_of(offer.top))
    module, _, name = offer.value.partition(":")
    schema = getattr(import_module(module), name)
    if without_torch and "torch" in sys.modules:
        slow = f"{offer.package}: {module} imports torch, so every command starts slowly"
        warnings.warn(f"{slow}; import it in the module of the implementation", stacklevel=1)
    if not (isinstance(schema, type) and issubclass(schema, base) and is_dataclass(schema)):
        raise TypeError(f"must be a dataclass derived from {base.__name__}")
    kind = next(field.default for field in fields(schema) if field.name == "kind")
    if kind != offer.name:
        raise ValueError(f"its `kind` must be {offer.name!r}, as the entry point's name; it is {kind!r}")
    if issubclass(base, ScheduleConfig):  # a schedule is its config class
        return schema
    named = str(getattr(schema, "implementation", ""))
    if ":" not in named or named.partition(":")[0].partition(".")[0] not in (offer.top, "gptexp"):
        raise ValueError(f"its `implementation` must name code of {offer.top}, as module:name; it is {named!r}")
    return schema


def implementation(group: str, kind: object) -> Any:
    """Return the class or function that a kind names, importing its module.

    Raises:
        ConfigError: there is no such kind, or its package has no such class.
    """
    if not isinstance(kind, str) or kind not in KINDS[group]:
        raise ConfigError(unknown(group, kind))
    schema: Any = KINDS[group][kind]
    module, _, name = schema.implementation.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        offer = _registry().offered.get((group, kind))
        if offer is None:
            raise
        raise ConfigError(f"{group}.kind={kind}: {offer.package}: {schema.implementation}: {error}") from error


def packages_of(kinds: Mapping[str, object]) -> dict[str, Offer]:
    """Return, for the kinds of each group, where those are from that installed packages offer."""
    offered = _registry().offered if kinds else {}
    return {group: offered[group, kind] for group, kind in _texts(kinds).items() if (group, kind) in offered}


def kinds_in(settings: object) -> dict[str, str]:
    """Return the kind of each group, of an experiment or of stored settings."""
    values = settings if isinstance(settings, Mapping) else {group: getattr(settings, group) for group in BUILT_IN}
    parts = {group: values.get(group) for group in BUILT_IN}
    return _texts({g: p.get("kind") if isinstance(p, Mapping) else getattr(p, "kind", None) for g, p in parts.items()})


def _texts(kinds: Mapping[str, object]) -> dict[str, str]:
    return {group: kind for group, kind in kinds.items() if isinstance(kind, str)}


def require_installed(kinds: Mapping[str, object], recorded: object, source: object) -> None:
    """Refuse kinds that are not installed, naming the packages that a file records for them.

    recorded: name and version of the package by group, as plain data that may come from an untrusted file.

    Raises:
        ConfigError: naming the source, the setting and the package.
    """
    for group, kind in _texts(kinds).items():
        if group in BUILT_IN and kind not in KINDS[group]:
            raise ConfigError(f"{source}: {unknown(group, kind, recorded)}")


def unknown(group: str, kind: object, recorded: object = None) -> str:
    """Return the error for a kind that doesn't exist; recorded: as in `require_installed`."""
    if (why := _registry().broken.get((group, str(kind)))) is not None:
        return f"{group}.kind={kind}: {why}"
    from_file = recorded.get(group) if isinstance(recorded, Mapping) else None
    if isinstance(from_file, str) and _RECORDED.fullmatch(from_file):
        return f"{group}.kind={kind}: comes from the package {from_file}, which is not installed; install it"
    return f"{group}.kind={kind}: unknown; choose one of {', '.join(KINDS[group])}"
