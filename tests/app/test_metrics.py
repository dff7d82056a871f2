"""What /metrics tells of the queue and of the connections."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import REGISTRY

from bot.app import http, metrics
from bot.store import Store, connect
from config.settings import Settings
from tests.support.at_work import ANN, BOB, make_queue, make_turn, take
from tests.support.fakes import RefusingStore
from tests.support.outage import line

refresh = partial(metrics.refresh, version="", embedded_in=None)


def gauge(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(f"parley_{name}", labels)
    assert value is not None, name
    return value


@asynccontextmanager
async def served(
    store: Store, metrics: Callable[[], Awaitable[None]], **options: Any
) -> AsyncIterator[str]:
    """Serve these metrics; yield the address."""
    async with http.serve(
        Settings(port=0, **options),
        store=store,
        downtimes={},
        posts={},
        gets={},
        stopping=asyncio.Event(),
        refresh_metrics=metrics,
    ) as url:
        yield url


async def test_waiting_and_running_turns_are_counted_when_somebody_asks(store: Store) -> None:
    queue = make_queue(store)
    for number, thread in enumerate(("t1", "t1", "t2"), 1):
        await queue.admit(make_turn(number, thread=thread, person=BOB if number > 2 else ANN))
    await take(queue)
    metrics = partial(refresh, queue, ["console", "web"], {"console": lambda: 0.0}, version="1.2")
    async with (
        served(store, metrics) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics") as response,
    ):
        said = await response.text()

    assert "parley_turns_waiting 2.0" in said
    assert 'parley_turns_running{platform="console"} 1.0' in said
    assert 'parley_turns_running{platform="web"} 0.0' in said
    assert 'parley_platform_connected{platform="console"} 1.0' in said
    assert 'parley_build_info{python="3.' in said
    assert 'version="1.2"} 1.0' in said


async def test_the_next_turn_tells_how_long_it_has_waited(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    name = store.key("open")
    admitted = await store.command("ZSCORE", name, "console:1")
    await store.command("ZADD", name, float(admitted) - 5000, "console:1")
    await refresh(queue, ["console"], {})

    assert 5.0 <= gauge("queue_age_seconds", platform="console") < 60.0
    assert 5.0 <= (await take(queue)).waited < 60.0


async def test_a_platform_that_is_away_is_not_connected(store: Store) -> None:
    downtimes: dict[str, Callable[[], float]] = {"discord": lambda: 3.0, "slack": lambda: math.inf}
    await refresh(make_queue(store), [], downtimes)

    assert gauge("platform_connected", platform="discord") == 0
    assert gauge("platform_connected", platform="slack") == 0


async def test_without_the_store_the_queue_is_unknown(valkey_url: str, data_dir: Path) -> None:
    async with line(valkey_url, data_dir) as way, connect(url=way.url, data_dir=data_dir) as store:
        await way.cut()
        await refresh(make_queue(store), ["console"], {})

    assert math.isnan(gauge("turns_waiting"))
    assert math.isnan(gauge("turns_running", platform="console"))


async def test_it_tells_how_full_the_store_is(store: Store, tmp_path: Path) -> None:
    await store.command("CONFIG", "SET", "maxmemory", 10**9)
    try:
        await refresh(make_queue(store), [], {}, embedded_in=tmp_path)
    finally:
        await store.command("CONFIG", "SET", "maxmemory", 0)

    assert 0 < gauge("store_used_bytes", kind="memory") < 10**9
    assert gauge("store_allowed_bytes", kind="memory") == 10**9
    assert 0 < gauge("store_used_bytes", kind="disk") <= gauge("store_allowed_bytes", kind="disk")


async def test_without_a_limit_the_store_may_take_the_memory_of_its_machine(store: Store) -> None:
    await refresh(make_queue(store), [], {})

    info = await store.command("INFO", "memory")
    assert gauge("store_allowed_bytes", kind="memory") == info["total_system_memory"]


async def test_without_the_store_its_size_is_unknown(valkey_url: str, data_dir: Path) -> None:
    async with line(valkey_url, data_dir) as way, connect(url=way.url, data_dir=data_dir) as store:
        await way.cut()
        await refresh(make_queue(store), [], {})

    assert math.isnan(gauge("store_used_bytes", kind="memory"))


async def test_a_server_that_hides_its_memory_still_tells_of_the_queue(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    store.refused.add("memory")
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await refresh(queue, ["console"], {})

    assert math.isnan(gauge("store_used_bytes", kind="memory"))
    assert gauge("turns_waiting") == 1
