"""The resources of a machine, by files like those of Linux."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot.local import hardware


def write_files(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_cores_are_those_of_the_machine_without_a_quota(tmp_path: Path) -> None:
    write_files(tmp_path, proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_dot_max="max 100000\n")

    assert hardware.cores(tmp_path) == hardware.cores(tmp_path / "nothing")
    assert 1 <= hardware.cores(tmp_path) <= (os.cpu_count() or 1)


def test_the_quota_of_a_control_group_limits_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    write_files(
        tmp_path,
        proc__self__cgroup="0::/system.slice/parley.service\n",
        **{"sys__fs__cgroup__system.slice__cpu_dot_max": "50000 100000\n"},
    )

    assert hardware.cores(tmp_path) == 1


def test_a_driver_reveals_the_maker_of_the_gpu(tmp_path: Path) -> None:
    assert hardware.gpu_maker(tmp_path) is None

    write_files(tmp_path, dev__kfd="")
    assert hardware.gpu_maker(tmp_path) == "AMD"

    write_files(tmp_path, proc__driver__nvidia__version="NVRM version: 580")
    assert hardware.gpu_maker(tmp_path) == "NVIDIA"


def test_the_machine_has_memory() -> None:
    assert (hardware.total_memory() or 0) > 2**28


def test_the_garbage_collector_exempts_what_is_loaded() -> None:
    code = (
        "import gc; from bot.local import hardware; before = gc.get_threshold();"
        "hardware.collect_garbage_seldom();"
        "print(gc.get_freeze_count(), gc.get_threshold()[0] > before[0])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    frozen, seldom = out.stdout.split()
    assert int(frozen) > 1000
    assert seldom == "True"
