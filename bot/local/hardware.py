"""What this machine has for us: memory, cores, a GPU that a wheel may not know, open files."""

from __future__ import annotations

import gc
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")
# Objects that are new before Python looks for cycles among them. With its own 700 and a thousand
# answers at once it looked 50 times a second, and through all objects for 0.2 s (bench/model.py).
_NEW_OBJECTS = 20_000
# A driver's own files, for its tools may not be installed.
_DRIVERS = {"NVIDIA": ("proc/driver/nvidia/version", "dev/nvidiactl"), "AMD": ("dev/kfd",)}


def free_memory(root: Path = _ROOT) -> int | None:
    """Return how many bytes more a process of ours may use, the limits of a container included.

    None where the system does not tell; of macOS, all that the machine has.
    """
    left = [free for free in (_system_memory(root), *_limits(root, _memory_left)) if free >= 0]
    return int(min(left)) if left else None


def cores(root: Path = _ROOT) -> int:
    """Return how many cores we may use, the limits of a container included."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min([own, *_limits(root, _cores_left)]))


def collect_garbage_seldom() -> None:
    """Let Python's garbage collector look rarely, and not at what has been loaded by now."""
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


def gpu_maker(root: Path = _ROOT) -> str | None:
    """Return whose GPU has its driver here, "NVIDIA" or "AMD"."""
    for maker, files in _DRIVERS.items():
        if any((root / file).exists() for file in files):
            return maker
    return None


def allow_files(count: int) -> int | None:
    """Let this process open so many files, sockets included; return how many it may, if known.

    A shell or a service manager begins with 256 (macOS) or 1024 (Linux), and lets us have more.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY:
        return None
    allowed = max(now, count if most == resource.RLIM_INFINITY else min(count, most))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def resident(pid: int, root: Path = _ROOT) -> int | None:
    """Return how much memory a process has, in bytes, its pages of files included."""
    found = _numbers(root / f"proc/{pid}/status", r"VmRSS:\s*(\d+)")
    return 1024 * found[0] if found else None


def _system_memory(root: Path) -> int:
    # Swapped out, what is left alone for long makes room too.
    found = _numbers(root / "proc/meminfo", r"(?:MemAvailable|SwapFree):\s*(\d+)")
    if found:
        return 1024 * sum(found)
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return -1


def _limits(root: Path, left: Callable[[Path, bool], float | None]) -> Iterator[float]:
    """Yield what each control group above us leaves, of the first version and the second.

    Within a container our group may be named as outside of it, or be the mount itself
    (Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            top = mount / name
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(top) and (value := left(folder, not name)) is not None:
                    yield value


def _memory_left(group: Path, second: bool) -> float | None:
    limit, used = (
        ("memory.max", "memory.current")
        if second
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    most, now = _numbers(group / limit, r"^(\d+)"), _numbers(group / used, r"^(\d+)")
    if not most or not now:
        return None
    # Pages of files count as used, and are given up first.
    files = _numbers(group / "memory.stat", r"^(?:total_)?inactive_file (\d+)")
    return max(0, most[0] - now[0] + max(files, default=0))


def _cores_left(group: Path, second: bool) -> float | None:
    found = (
        _numbers(group / "cpu.max", r"^(\d+) (\d+)")
        if second
        else _numbers(group / "cpu.cfs_quota_us", r"^(\d+)")
        + _numbers(group / "cpu.cfs_period_us", r"^(\d+)")
    )
    return found[0] / found[1] if len(found) == 2 and found[1] else None


def _numbers(file: Path, pattern: str) -> list[int]:
    found = re.finditer(pattern, _text(file), re.MULTILINE)
    return [int(number) for match in found for number in match.groups()]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeError):
        return ""
