"""What the Makefile installs, according to `make -n`; these tests install nothing."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from support.documents import ROOT

CPU = "https://download.pytorch.org/whl/cpu"
make = shutil.which("make")
pytestmark = pytest.mark.skipif(make is None or platform.system() != "Linux", reason="needs make, and is about Linux")


def planned(place: Path, *arguments: str, gpu: bool = False) -> list[str]:
    """The lines that `make` would run on a machine with only these programs, where `ls` finds no device."""
    programs = {"sh": "sh", "uname": "uname", "ls": "false", **({"nvidia-smi": "true"} if gpu else {})}
    for name, program in programs.items():
        (place / name).symlink_to(shutil.which(program) or f"/bin/{program}")
    line = [str(make), "-n", "-C", str(ROOT), f"VENV={place / 'venv'}", *arguments]
    env = {"PATH": str(place), "SHELL": "/bin/sh"}
    return subprocess.run(line, env=env, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()


@pytest.mark.parametrize("target", ["install", "dev"])
def test_make_installs_the_cpu_build_of_torch_without_a_gpu(tmp_path: Path, target: str) -> None:
    lines = planned(tmp_path, target)
    first, rest = [line for line in lines if " pip install " in line]
    assert first.endswith(f"--no-deps --retries 1 --extra-index-url {CPU} torch")
    assert CPU not in rest
    assert "gpt2" in rest or target == "dev"
    assert lines.index('echo "  0.4 GB with a CPU build of torch (1.7 GB on the disk)"') < lines.index(first)
    assert not any("--quiet" in line for line in lines)


def test_make_installs_the_default_torch_with_a_gpu(tmp_path: Path) -> None:
    lines = planned(tmp_path, "install", gpu=True)
    assert len([line for line in lines if " pip install " in line]) == 1
    assert any("2.9 GB" in line for line in lines)


def test_the_index_of_torch_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert not any("--extra-index-url" in line for line in planned(tmp_path / "a", "install", "TORCH_INDEX="))
    other = planned(tmp_path / "b", "install", "TORCH_INDEX=https://example.org/rocm", gpu=True)
    assert any("--extra-index-url https://example.org/rocm torch" in line for line in other)
