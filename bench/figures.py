"""What the benches share: what processes use, and figures in words."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_STORE = "valkey-server"
_COMMON = """
import aiohttp.web
import prometheus_client
import redis.asyncio
import uvloop
from huggingface_hub import AsyncInferenceClient
"""
# What a role imports from others, as its modules do.
LIBRARIES = {
    "discord": f"import discord.app_commands\n{_COMMON}",
    "slack": f"""
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
{_COMMON}""",
}


def resident(pid: int, *, peak: bool = False) -> float:
    """Return the memory that a process has, or had at most, in MB."""
    return _megabytes(Path(f"/proc/{pid}/status").read_text(encoding="ascii"), peak=peak)


def libraries(role: str) -> float:
    """Return the memory of a Python that has imported a role's libraries and nothing else."""
    code = f"{LIBRARIES[role]}\nprint(open('/proc/self/status').read())"
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return _megabytes(out.stdout, peak=False)


def processor(pid: int) -> float:
    """Return the CPU seconds of a process and of those it started, the embedded store aside."""
    return sum(cpu(one) for one in _family(pid))


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(one) for each in lists for one in each.read_text(encoding="ascii").split()]


def middle_and_worst(values: Sequence[float], *, unit: float = 1.0, digits: int = 1) -> str:
    """Write the median and the largest of some seconds, in a unit of so many seconds."""
    if not values:
        return "-"
    middle, worst = statistics.median(values) / unit, max(values) / unit
    return f"{middle:.{digits}f} / {worst:.{digits}f}"


def sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing itself is among them
            found += one.is_socket()
    return found


def allow_files(count: int) -> None:
    """Let this process open so many files, as far as it may."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = count if most == resource.RLIM_INFINITY else min(count, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, allowed), most))


def load() -> str:
    """Write how busy the machine is and was."""
    loads = " ".join(f"{one:.2f}" for one in os.getloadavg())
    return f"load average {loads} on {os.cpu_count()} cores"


def _megabytes(status: str, *, peak: bool) -> float:
    name = "VmHWM" if peak else "VmRSS"
    (line,) = [line for line in status.splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def _family(pid: int) -> Iterator[int]:
    """Return a process and all that came of it, without the embedded store."""
    if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == _STORE:
        return
    yield pid
    for child in children(pid):
        yield from _family(child)


def cpu(pid: int) -> float:
    """Return the CPU seconds of one process."""
    # What clock_getcpuclockid(3) returns on Linux: /proc/PID/stat counts in steps of 10 ms.
    return time.clock_gettime(~pid << 3 | 2)
