"""The metrics of the whole queue and of this process's connections."""

from __future__ import annotations

import asyncio
import math
import platform as python
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import Gauge, Info

from bot.errors import StoreUnavailable
from bot.store import Store
from bot.turns.queue import TurnQueue

REFRESH_SECONDS = 1.0  # for which a request for metrics waits for the store

_WAITING = Gauge("parley_turns_waiting", "Turns that wait, of all platforms and processes")
_RUNNING = Gauge("parley_turns_running", "Turns that workers of any process answer", ["platform"])
_OLDEST = Gauge(
    "parley_queue_age_seconds", "How long the next turn of the queue has waited", ["platform"]
)
_CONNECTED = Gauge(
    "parley_platform_connected", "1 if this process hears the platform's events", ["platform"]
)
_USED = Gauge(
    "parley_store_used_bytes", "The store's memory, and the disk of the embedded one", ["kind"]
)
_ALLOWED = Gauge(
    "parley_store_allowed_bytes", "What there is of both: at most so much is taken", ["kind"]
)
_PRIMARY = Gauge(
    "parley_store_primary", "1 for the server that Sentinels name as the primary", ["address"]
)
_BUILD = Info("parley_build", "The version of Parley and of Python")


async def refresh(
    queue: TurnQueue,
    platforms: Sequence[str],
    downtimes: Mapping[str, Callable[[], float]],
    *,
    version: str,
    embedded_in: Path | None,
) -> None:
    """Set all gauges; those of the queue and the store are NaN while the store is unavailable.

    `embedded_in` is the folder of an embedded store.
    """
    _BUILD.info({"version": version, "python": python.python_version()})
    for name, downtime in downtimes.items():
        _CONNECTED.labels(name).set(downtime() == 0)
    waiting, running, oldest = math.nan, dict[str, float](), dict[str, float]()
    sizes: dict[str, tuple[float, float]] = {"memory": (math.nan, math.nan)}
    try:
        async with asyncio.timeout(REFRESH_SECONDS):
            load = await queue.load(platforms)
            waiting, running, oldest = load.waiting, {**load.running}, {**load.oldest}
            # Many hosted servers forbid INFO.
            sizes["memory"] = await _memory(queue.leases.store)
    except (StoreUnavailable, TimeoutError):
        pass
    _PRIMARY.clear()
    if primary := queue.leases.store.primary:
        _PRIMARY.labels(primary).set(1)
    _WAITING.set(waiting)
    for name in platforms:
        _RUNNING.labels(name).set(running.get(name, math.nan))
        _OLDEST.labels(name).set(oldest.get(name, math.nan))
    if embedded_in:
        with suppress(OSError):
            disk = await asyncio.to_thread(shutil.disk_usage, embedded_in)
            # What only root may use counts as used.
            sizes["disk"] = disk.total - disk.free, disk.total
    for kind, (used, allowed) in sizes.items():
        _USED.labels(kind).set(used)
        _ALLOWED.labels(kind).set(allowed)


async def _memory(store: Store) -> tuple[float, float]:
    """Return how many bytes the store has in use, and how many it may; NaN for what it hides."""
    found = await store.command("INFO", "memory")
    # Without a limit of its own it may take what the machine has.
    most = found.get("maxmemory") or found.get("total_system_memory") or math.nan
    return found.get("used_memory", math.nan), most
