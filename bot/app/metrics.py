"""The metrics of the whole queue and of this process's connections."""

from __future__ import annotations

import asyncio
import math
import platform as python
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Gauge, Info

from bot.errors import StoreUnavailable
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
) -> None:
    """Set all gauges; those of the queue are NaN while the store is unavailable."""
    _BUILD.info({"version": version, "python": python.python_version()})
    for name, downtime in downtimes.items():
        _CONNECTED.labels(name).set(downtime() == 0)
    waiting, running, oldest = math.nan, dict[str, float](), dict[str, float]()
    try:
        async with asyncio.timeout(REFRESH_SECONDS):
            load = await queue.load(platforms)
        waiting, running, oldest = load.waiting, {**load.running}, {**load.oldest}
    except (StoreUnavailable, TimeoutError):
        pass
    _PRIMARY.clear()
    if primary := queue.leases.store.primary:
        _PRIMARY.labels(primary).set(1)
    _WAITING.set(waiting)
    for name in platforms:
        _RUNNING.labels(name).set(running.get(name, math.nan))
        _OLDEST.labels(name).set(oldest.get(name, math.nan))
