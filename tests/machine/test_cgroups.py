"""Free memory within the limit of a container, read from folders like those of Linux cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptexp.machine import hardware
from gptexp.machine.cgroups import UNLIMITED, available_memory

UNLIMITED_1 = 9223372036854771712  # the value of version 1 without a limit
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = ("memory.max", "memory.current")


def group(folder: Path, names: tuple[str, str], limit: object, used: int, **stat: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text("anon 7\n" + "".join(f"{key} {value}\n" for key, value in stat.items()))


def process(root: Path, *lines: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))


def test_cgroup_version_2_counts_reclaimable_memory_as_free(tmp_path: Path) -> None:
    process(tmp_path, "0::/")
    stat = {"file": 100, "inactive_file": 60, "active_file": 30, "slab_reclaimable": 5, "slab_unreclaimable": 2}
    group(tmp_path / "sys/fs/cgroup", V2, 1000, 995, **stat)
    assert available_memory(tmp_path) == 5 + 60 + 30 + 5


def test_cgroup_version_1_also_counts_the_cache_of_its_children(tmp_path: Path) -> None:
    process(tmp_path, "5:devices:/job", "4:cpu,memory:/job", "0::/")
    stat = {"inactive_file": 1, "total_inactive_file": 60, "total_active_file": 30}
    group(tmp_path / "sys/fs/cgroup/memory/job", V1, 1000, 990, **stat)
    group(tmp_path / "sys/fs/cgroup/memory", V1, UNLIMITED_1, 5000)
    assert available_memory(tmp_path) == 10 + 60 + 30


@pytest.mark.parametrize("limits", [(900, 2000, 3000), (3000, 900, 2000), (2000, 3000, 900), ("max", 900, "max")])
def test_the_smallest_limit_of_nested_cgroups_applies(tmp_path: Path, limits: tuple[object, ...]) -> None:
    process(tmp_path, "0::/user/job")
    for place, limit in zip(("", "user", "user/job"), limits, strict=True):
        group(tmp_path / "sys/fs/cgroup" / place, V2, limit, 500)
    assert available_memory(tmp_path) == 400


@pytest.mark.parametrize("path", ["/docker/0123abcd", "/../../outside"])
def test_a_container_with_the_path_of_the_host_uses_its_mount(tmp_path: Path, path: str) -> None:
    process(tmp_path, f"4:memory:{path}")
    group(tmp_path / "sys/fs/cgroup/memory", V1, 1000, 400)
    group(tmp_path / "sys/outside", V1, 0, 0)
    assert available_memory(tmp_path) == 600


def test_a_cgroup_above_its_limit_has_no_free_memory(tmp_path: Path) -> None:
    process(tmp_path, "0::/")
    group(tmp_path / "sys/fs/cgroup", V2, 1000, 1200, inactive_file=50)
    assert available_memory(tmp_path) == 0


def test_without_cgroups_memory_is_not_limited(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == UNLIMITED
    process(tmp_path, "0::/", "1:name=systemd:/")
    assert available_memory(tmp_path) == UNLIMITED


def test_the_cgroup_limit_bounds_the_memory_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "available_memory", lambda: 12345)
    assert hardware.free_memory("cpu") == 12345
