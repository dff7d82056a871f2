"""The resources of this machine: memory, cores, GPUs, open files."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")
# New objects before a garbage collection. With Python's default of 700 and a thousand
# answers at once it ran 50 times a second, and a full collection took 0.2 s (bench/model.py).
_NEW_OBJECTS = 20_000
# Files of the driver itself: its tools may not be installed.
_DRIVER_FILES = {"NVIDIA": ("proc/driver/nvidia/version", "dev/nvidiactl"), "AMD": ("dev/kfd",)}


def total_memory() -> int | None:
    """Return the size of this machine's memory in bytes, if the system reports it."""
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def cores(root: Path = _ROOT) -> int:
    """Return how many cores this process may use; the CPU quota of a container counts."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min([own, *_cpu_quotas(root)]))


def collect_garbage_seldom() -> None:
    """Make garbage collections rare, and exempt all existing objects; may be called again."""
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


def gpu_maker(root: Path = _ROOT) -> str | None:
    """Return the maker of a GPU with an installed driver: "NVIDIA", "AMD" or None."""
    for maker, files in _DRIVER_FILES.items():
        if any((root / file).exists() for file in files):
            return maker
    return None


def allow_files(count: int) -> int | None:
    """Raise the limit of open files, often 256 or 1024, to `count`; return it if it is known."""
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


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quota, in cores, of each control group (version 2) of this process."""
    path = _read(root / "proc/self/cgroup").strip().rpartition("::")[2]
    group = root / "sys/fs/cgroup" / path.lstrip("/")
    for folder in (group, *group.parents):
        # Without a limit the quota is "max".
        limit = _read(folder / "cpu.max").split()
        if len(limit) == 2 and limit[0].isdecimal() and int(limit[1]):
            yield int(limit[0]) / int(limit[1])


def _read(file: Path) -> str:
    with suppress(OSError, UnicodeError):
        return file.read_text()
    return ""
