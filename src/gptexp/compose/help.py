"""Text of `gptexp train --help`."""

from __future__ import annotations

from pathlib import Path

from gptexp.compose.registry import conf_dir, groups

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
    "paths": "paths.data=/big/disk/data paths.logs=/big/disk/logs",
}


USAGE = """\
python -m gptexp.train [group=option] [key=value] …   train one experiment
python -m gptexp.train -m key=a,b,c seed=1,2,3        one for each combination
python -m gptexp.train --cfg job [group=option] …     print the settings only
python -m gptexp.train resume=RUN                     go on where a run stopped
python -m gptexp.train init_from=RUN data=…           start from its weights
"""


def help_text() -> str:
    """The groups, their options with a line each, and an example of each group."""
    lines = [USAGE]
    for group, options in groups().items():
        if group not in EXAMPLES:
            continue
        lines.append(f"{group}    e.g. {EXAMPLES[group]}")
        lines += [f"  {option:<22}{_first_comment(conf_dir() / group / f'{option}.yaml')}" for option in options]
        lines.append("")
    lines += ["A RUN is a run folder, a checkpoint file or `latest`. For weights it may also be"]
    lines += ["gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2 or Hugging Face's folder."]
    lines += ["--cfg job lists every setting; src/gptexp/config/ explains them."]
    return "\n".join(lines)


def _first_comment(path: Path) -> str:
    """The first comment of a preset says what it is; Hydra's own header may stand above it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line[1:].strip() for line in lines if line.startswith("#") and not line.startswith("# @")), "")
