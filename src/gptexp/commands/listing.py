"""The subcommands of `gptexp`. Imports only the standard library, so that `gptexp --help` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand. module: has `main`, and `parser` unless Hydra parses the command line."""

    module: str
    about: str
    example: str
    hydra: bool = False


COMMANDS = {
    "train": Command("gptexp.train", "train an experiment, or with -m a sweep", "model=bigram seed=2", hydra=True),
    "prepare": Command("gptexp.prepare", "tokenize a corpus without training", "tokenizer=bpe", hydra=True),
    "generate": Command("gptexp.generate", "generate text from a prompt", 'latest --prompt "The"'),
    "evaluate": Command("gptexp.evaluate", "score a run on a text or a task", "latest --text FILE"),
    "lm-eval": Command("gptexp.commands.lm_eval", "score a run with lm-evaluation-harness", "--model gptexp --tasks X"),
    "novelty": Command("gptexp.commands.novelty", "find what a model's texts copy", "latest --samples 20"),
    "predict": Command("gptexp.predict", "label texts with a classifier", 'latest --text "Good."'),
    "inspect": Command("gptexp.commands.inspect", "show what a model does with a text", 'latest --prompt "The end"'),
    "runs": Command("gptexp.commands.runs", "list runs and sweeps, and find some", '--where "val/bpb<2"'),
    "compare": Command("gptexp.compare", "compare runs and sweeps, with intervals", "logs/sweeps/heads"),
    "judge": Command("gptexp.commands.judge", "keep or discard an idea by a test", '--base "…" --idea "…"'),
    "export": Command("gptexp.export", "write a run for transformers or llama.cpp", "latest --out FOLDER"),
    "replay": Command("gptexp.replay", "repeat the step at which a run failed", "RUN/nonfinite-step-2.pt"),
    "verify": Command("gptexp.commands.verify", "train a report's runs again, compare", "REPORT.html --all"),
    "diverge": Command("gptexp.commands.diverge", "find where two runs part", "RUN_A RUN_B"),
    "verify-resume": Command("gptexp.verify_resume", "check that resuming is bitwise identical", "--steps 40"),
    "new": Command("gptexp.commands.new", "write a package of your own models", "mylab"),
    "conformance": Command("gptexp.conformance.command_line", "recompute published numbers", "--fast"),
}


FLAGS = ("--help", "--version", "--completion")


def listing(version: str) -> str:
    """Return the help of `gptexp`: each subcommand with its purpose and an example."""
    lines = [f"gptexp {version}", "", "usage: gptexp COMMAND [arguments]", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<15}{command.about:<43}gptexp {name} {command.example}")
    return "\n".join(
        [
            *lines,
            "",
            "gptexp COMMAND --help explains a command, gptexp train --help model the settings of a group.",
            "gptexp --completion bash|zsh|fish prints a script that completes commands in that shell.",
            "`python -m gptexp COMMAND` is the same command.",
        ]
    )


def find(name: str) -> Command | None:
    """Return the subcommand of a name, in which _ means the same as -."""
    return COMMANDS.get(name.replace("_", "-"))


def unknown(name: str) -> str:
    """Return the error for an unknown subcommand, with a similar one."""
    near = get_close_matches(name, [*COMMANDS, *FLAGS], n=1, cutoff=0.5)
    return f"{name}: no such command; " + (f"did you mean {near[0]}?" if near else "`gptexp --help` lists them")
