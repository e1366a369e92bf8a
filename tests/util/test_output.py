"""A closed standard output, standard error or terminal does not stop a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptexp.training.callbacks.checkpoints import Signals
from gptexp.util.signals import Interrupted
from support.runs import TINY, TINY_GPT

PROGRAM = """
import sys
from gptexp.util.output import outlive_readers
outlive_readers()
for name in ("stdout", "stderr"):
    for i in range(3000):
        print("a line é", i, file=getattr(sys, name), flush=i % 2 == 0)
open("ended", "w").write(sys.stdout.encoding + sys.stdout.errors)
"""


@pytest.mark.parametrize("lost", ["| head -n 1", "2>&1 | head -n 1", "> /dev/full", "> /dev/full 2>&1"])
def test_a_process_continues_if_its_output_is_lost(tmp_path: Path, lost: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    shell = f"set -o pipefail; {sys.executable} program.py {lost}"
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:replace"}
    done = subprocess.run(["bash", "-c", shell], capture_output=True, cwd=tmp_path, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ended").read_text() == "utf-8replace"


def test_sighup_saves_and_ends_a_run(
    train_here: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = Signals.catch

    def catch(self: Signals, *, quietly: bool) -> None:
        caught(self, quietly=quietly)
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(Signals, "catch", catch)
    with pytest.raises(Interrupted, match=r"^interrupted by SIGHUP after step 1; continue with resume=run$"):
        train_here(*TINY_GPT, "trainer.max_steps=9")
    assert Path("run/checkpoints/last.ckpt").is_file()


def test_sighup_stays_ignored_under_nohup() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = Signals()
    try:
        signals.catch(quietly=True)
        signal.raise_signal(signal.SIGHUP)
        assert signals.received == 0
    finally:
        signals.release()
        signal.signal(signal.SIGHUP, former)


@pytest.mark.slow
def test_a_run_with_a_closed_output_pipe_completes(workplace: Path) -> None:
    settings = " ".join([*TINY, *TINY_GPT, "data.path=story.txt", "trainer.max_steps=6", "hydra.run.dir=run"])
    for output in ("2>&1 | head -c 1", "> /dev/full 2>&1"):
        shell = f"set -o pipefail; {sys.executable} -m gptexp.train {settings} {output}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert "completed" in Path("run/result.json").read_text()
        subprocess.run(["rm", "-r", "run"], check=True)


def test_an_unshared_stream_stays_open(tmp_path: Path) -> None:
    program = "import sys; sys.stdout = open(1, 'w', closefd=False); from gptexp.util.output import outlive_readers"
    program += "; outlive_readers(); print('written')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "written\n", "")
