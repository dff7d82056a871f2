"""What a machine has, told by files like those that Linux shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bot.local import hardware

GIB = 1024**3


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_memory_is_what_is_available_and_what_can_be_swapped_out(tmp_path: Path) -> None:
    put(
        tmp_path,
        proc__meminfo="MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapFree: 1048576 kB\n",
    )

    assert hardware.free_memory(tmp_path) == 5 * GIB


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    put(
        tmp_path,
        proc__meminfo="MemAvailable: 8388608 kB\n",
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max=f"{2 * GIB}\n",
        sys__fs__cgroup__memory_dot_current=f"{GIB}\n",
        sys__fs__cgroup__memory_dot_stat=f"anon 5\ninactive_file {GIB // 2}\n",
    )

    assert hardware.free_memory(tmp_path) == 3 * GIB // 2


def test_the_limit_of_a_group_above_counts_too(tmp_path: Path) -> None:
    put(
        tmp_path,
        proc__meminfo="MemAvailable: 8388608 kB\n",
        proc__self__cgroup="0::/system.slice/parley.service\n",
        sys__fs__cgroup__memory_dot_max="max\n",
        sys__fs__cgroup__memory_dot_current="100\n",
    )
    group = tmp_path / "sys/fs/cgroup/system.slice"
    group.mkdir()
    (group / "memory.max").write_text(str(GIB))
    (group / "memory.current").write_text("0")

    assert hardware.free_memory(tmp_path) == GIB


def test_the_first_version_of_control_groups_is_known(tmp_path: Path) -> None:
    put(tmp_path, proc__meminfo="MemAvailable: 8388608 kB\n", proc__self__cgroup="4:memory:/a\n")
    group = tmp_path / "sys/fs/cgroup/memory/a"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(str(3 * GIB))
    (group / "memory.usage_in_bytes").write_text(str(GIB))
    (group / "memory.stat").write_text(f"inactive_file 0\ntotal_inactive_file {GIB}\n")

    assert hardware.free_memory(tmp_path) == 3 * GIB


def test_cores_are_those_that_we_may_use(tmp_path: Path) -> None:
    assert hardware.cores(tmp_path) <= (os.cpu_count() or 1)

    put(
        tmp_path,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__cpu_dot_max="50000 100000\n",
    )
    assert hardware.cores(tmp_path) == 1


def test_no_limit_limits_nothing(tmp_path: Path) -> None:
    put(tmp_path, proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_dot_max="max 100000\n")

    assert hardware.cores(tmp_path) == hardware.cores(tmp_path / "nothing")


def test_a_driver_tells_of_its_gpu(tmp_path: Path) -> None:
    assert hardware.gpu_maker(tmp_path) is None

    put(tmp_path, dev__kfd="")
    assert hardware.gpu_maker(tmp_path) == "AMD"

    put(tmp_path, proc__driver__nvidia__version="NVRM version: 580")
    assert hardware.gpu_maker(tmp_path) == "NVIDIA"


def test_a_process_that_is_gone_has_no_memory_to_tell(tmp_path: Path) -> None:
    assert hardware.resident(1, tmp_path) is None


def test_the_garbage_collector_leaves_alone_what_is_loaded() -> None:
    code = (
        "import gc; from bot import machine; before = gc.get_threshold();"
        "hardware.collect_garbage_seldom();"
        "print(gc.get_freeze_count(), gc.get_threshold()[0] > before[0])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    frozen, seldom = out.stdout.split()
    assert int(frozen) > 1000
    assert seldom == "True"
