"""A documented command line made small: the same command in a second, by one rule.

A hundredth of the steps; one layer, two heads, 32 channels, windows of 32, unless the line itself says otherwise; of
each swept setting the first two values, of several seeds one; little to score and to write. What the line shows stays.
"""

from __future__ import annotations

from hydra.core.override_parser.overrides_parser import OverridesParser

from gptexp.compose.composition import Bases, compose, compose_raw
from gptexp.compose.overrides import quoted
from gptexp.config.override_syntax import is_swept

SHAKESPEARE = "tinyshakespeare.txt"  # a text that replaces it without a network
SIZES = {"block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 32}
CHEAP = {"data.val_bytes": "2048", "callbacks.samples.tokens": "8", "trainer.log_every_steps": "1"}
STEPS = ("trainer.max_steps", "trainer.val_every_steps")
SHORT = {"max_tokens": "2000", "max_flops": "1e9", "tokens_per_parameter": "0.01", "max_time": "1s"}
NEW_TOKENS = 8
_bases = Bases()
# Of a training that is killed in its third step, with a checkpoint of the second: something to go on with.
KILLED = ["callbacks.checkpoint.every_steps=1"]
KILLED += ["+callbacks.plugins.trace={_target_: gptexp.training.callbacks.trace.Trace, kill_at: 3}"]
RESUME = ["--steps", "6", "--kill-at", "4"]


def of(module: str, arguments: list[str], values: int = 2) -> list[str]:
    """The arguments of `python -m MODULE`, made small. values: how many of each swept setting."""
    if module == "gptexp.train":
        return training(arguments, values)
    if module == "gptexp.prepare":
        return [*arguments, f"data.val_bytes={CHEAP['data.val_bytes']}"]
    if module == "gptexp.verify_resume":
        settings = [argument for argument in training(arguments, values) if not argument.startswith(STEPS[0])]
        return [*RESUME, *settings]
    if module == "gptexp.generate":
        at = arguments.index("--max-new-tokens") if "--max-new-tokens" in arguments else len(arguments)
        return [*arguments[:at], *arguments[at + 2 :], "--max-new-tokens", str(NEW_TOKENS)]
    if module == "gptexp.commands.novelty":
        return [*arguments, "--samples", "2", "--tokens", str(NEW_TOKENS)]  # the last of an option counts
    return arguments


def training(arguments: list[str], values: int) -> list[str]:
    """Overrides of `gptexp.train`, made small; options such as --help are kept."""
    flags = [argument for argument in arguments if argument.startswith("-")]
    if {"--help", "--cfg"} & set(flags):
        return arguments
    given = dict(quoted(argument).split("=", 1) for argument in arguments if argument not in flags)
    if given.get("resume", "auto") != "auto":  # its settings come from a run that is already small
        return [*flags, *_joined(given | {key: _hundredth(given[key]) for key in STEPS if key in given})]
    if "-m" in flags:
        given = _axes(given, values)
    return [*flags, *_joined(given | _cheap(given))]


def _axes(given: dict[str, str], values: int) -> dict[str, str]:
    """The overrides with the axes of the sweep preset written out, and fewer values of each."""
    all_axes = {**(_preset(given) if "sweep" in given else {}), **given}
    keep = values if given.get("sweep") != "scaling" else 3  # a scaling law needs three points on each axis
    several = {key: _values(f"{key}={value}") for key, value in all_axes.items()}
    if len([key for key, listed in several.items() if listed]) > 1 and "seed" in several:
        several["seed"] = several["seed"][:1]
    return {key: ",".join(several[key][:keep]) or value for key, value in all_axes.items()}


def _preset(given: dict[str, str]) -> dict[str, str]:
    fixed = [override for override in _joined(given) if not is_swept(override) and not override.startswith("hydra")]
    return {key: str(value) for key, value in compose_raw(fixed).hydra.sweeper.params.items()}


def _cheap(given: dict[str, str]) -> dict[str, str]:
    first = [f"{key}={(_values(f'{key}={value}') or [value])[0]}" for key, value in given.items()]
    config = compose([o for o in first if not o.startswith("hydra") and not is_swept(o)], bases=_bases)
    cheap = {key: value for key, value in CHEAP.items() if key not in given}
    warmup = given.get("schedule.warmup_steps", "null")
    cheap["schedule.warmup_steps"] = "null" if warmup == "null" else ",".join(map(_hundredth, warmup.split(",")))
    if "init_from" not in given:
        sizes = {f"model.{name}": str(size) for name, size in SIZES.items() if hasattr(config.model, name)}
        cheap |= {key: size for key, size in sizes.items() if key not in given}
    budgets = {f"trainer.{name}": short for name, short in SHORT.items() if f"trainer.{name}" in given}
    cheap |= budgets
    for key in STEPS[bool(budgets) :]:
        now = given.get(key, str(getattr(config.trainer, key.removeprefix("trainer."))))
        cheap[key] = ",".join(_hundredth(value) for value in now.split(","))
    if config.data.kind == "shakespeare":
        cheap["data.path"] = SHAKESPEARE
    if given.get("hydra/launcher") == "cores":
        cheap["hydra.launcher.n_jobs"] = "1"
    if given.get("hydra/sweeper") == "optuna":
        cheap["sweep.n_trials"] = "2"
    return cheap


def _hundredth(steps: str) -> str:
    return str(max(1, int(steps) // 100))


def _values(override: str) -> list[str]:
    """The listed values of a swept setting; none where there is one value, or a space to search."""
    parsed = OverridesParser.create().parse_override(override)
    return list(parsed.sweep_string_iterator()) if parsed.is_choice_sweep() else []


def _joined(given: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in given.items()]
