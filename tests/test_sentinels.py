"""A store with replicas, and the Sentinels that name its primary."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from bot.app.check import examine_store, examined
from bot.app.metrics import refresh
from bot.app.status import show_status
from bot.errors import CannotStart, StoreUnavailable, TooFewReplicas
from bot.store import Store, connect
from tests.app.test_metrics import served
from tests.support.at_work import make_queue
from tests.support.outage import Joined, Line
from tests.support.sentinels import Node, servers, settled, watched
from tests.support.settings import settings_of

SET = "return redis.call('SET', KEYS[1], ARGV[1])"


async def stored(store: Store, text: str) -> None:
    """Write a text as soon as the store takes it."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                await store.command("SET", store.key("text"), text)
                return
            await asyncio.sleep(0.02)


async def test_the_primary_that_sentinels_name_is_followed(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(data_dir, password="s3cret") as all_:
        url = f"{all_.url}?sentinel_password=s3cret"
        settings = settings_of(redis_url=url, redis_replicas=1, data_dir=data_dir)
        async with connect(url=url, data_dir=data_dir, replicas=1) as store:
            before = await all_.primary()
            assert store.primary == before.address
            found = await examined("Store", partial(examine_store, settings))
            assert f"The Sentinels name {before.address} as the primary" in [
                it.text for it in found
            ]
            assert not any(it.wrong for it in found)
            await store.script(SET, lasting=True)(keys=[store.key("text")], args=["one"])
            # Many at once: one of them tells it.
            after = await all_.fail_over()
            await asyncio.gather(*(stored(store, "two") for _ in range(20)))

            assert store.primary == after.address
            assert await after.redis.get(store.key("text")) == "two"
            with pytest.raises(TooFewReplicas):
                await store.replicate()
            (cure,) = [
                it for it in await examined("Store", partial(examine_store, settings)) if it.wrong
            ]
            assert "lower REDIS_REPLICAS" in cure.cure
            output, queue = io.StringIO(), make_queue(store)
            metrics = partial(refresh, queue, [], {}, version="", embedded_in=None)
            async with served(store, metrics) as address:
                await show_status(settings_of(port=int(address.rpartition(":")[2])), output)
            assert f"primary {after.address}" in output.getvalue()
        with pytest.raises(CannotStart, match="do they want a password"):
            await connect(url=all_.url, data_dir=data_dir).__aenter__()
    told = [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]
    assert told.count(f"The primary of the store is now {after.address}") == 1
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_sentinels_that_cannot_be_reached_are_named_without_passwords(
    scheme: str, data_dir: Path
) -> None:
    url = f"{scheme}+sentinel://bot:s3cret@127.0.0.1:1,127.0.0.1:2/main/0?sentinel_password=s3cret"
    settings = settings_of(redis_url=url, data_dir=data_dir)

    (found,) = await examined("Store", partial(examine_store, settings))

    assert found.wrong
    assert "REDIS_URL (main of 127.0.0.1:1, 127.0.0.1:2)" in found.text
    assert "no Sentinel knows a primary 'main' that is up: do they run" in found.text
    assert "s3cret" not in found.text


class Name(Line):
    """A name that is moved to another server: new connections lead there, others stay."""

    def __init__(self, node: Node) -> None:
        self.node, self._port = node, 0
        super().__init__(
            connect=lambda: asyncio.open_connection("127.0.0.1", self.node.port),
            listen=self._listen_anywhere,
        )

    @property
    def url(self) -> str:
        """The address by which the server is reached."""
        return f"redis://127.0.0.1:{self._port}/0"

    async def _listen_anywhere(self, joined: Joined) -> asyncio.Server:
        server = await asyncio.start_server(joined, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        return server


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.command("SET", store.key("text"), "new"),
        lambda store: store.commands([("SET", store.key("text"), "new")]),
        lambda store: store.script(SET)(keys=[store.key("text")], args=["new"]),
    ],
    ids=["command", "commands", "script"],
)
async def test_a_server_that_has_become_a_replica_is_left_for_where_its_name_leads(
    write: Callable[[Store], Awaitable[object]], data_dir: Path
) -> None:
    async with (
        servers(data_dir, 2) as (old, new),
        Name(old) as name,
        connect(url=name.url, data_dir=data_dir) as store,
    ):
        # Several idle connections lead to the old server.
        await asyncio.gather(*(store.command("PING") for _ in range(9)))
        await old.follow(new)
        name.node = new

        with pytest.raises(StoreUnavailable, match="is a replica"):
            await write(store)
        await write(store)

        assert await new.redis.get(store.key("text")) == "new"
        # None of the others is used again, which would read what is old.
        ids = await asyncio.gather(*(store.redis.info("server") for _ in range(9)))
        assert {it["tcp_port"] for it in ids} == {new.port}


async def test_a_write_that_replicas_may_not_have_is_refused_and_so_is_its_repetition(
    data_dir: Path,
) -> None:
    async with servers(data_dir, 2) as (primary, replica):
        await replica.follow(primary)
        url = f"redis://{primary.address}/0"
        async with (
            connect(url=url, data_dir=data_dir, replicas=1) as store,
            connect(url=url, data_dir=data_dir, replicas=1) as other,
        ):
            source, text = "return redis.call('SETNX', KEYS[1], ARGV[1])", store.key("text")
            replica.pause()
            # The primary takes it for a replica still, and the second call writes nothing.
            for one in (store, other):
                with pytest.raises(TooFewReplicas, match="0 of REDIS_REPLICAS=1"):
                    await one.script(source, lasting=True)(keys=[text], args=["one"])
            # What need not last is stored.
            await store.command("SET", store.key("other"), "two")
            replica.pause(False)
            await settled(primary.has_replica)

            await store.script(source, lasting=True)(keys=[text], args=["one"])

            assert await replica.redis.get(text) == "one"
