"""A worker that is told to end lets its replies end, and hands over the rest."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bot.store import Store, connect
from bot.turns import worker as worker_module
from bot.turns.queue import GROUP, Taken, Token, TurnQueue
from tests.support.at_work import (
    LEASE,
    LIMITS,
    WORDS,
    a_queue,
    a_turn,
    a_worker,
    all_ended,
    outcome,
    ready,
    running,
    take,
)
from tests.support.fakes import FakeModel, FakePlatform
from tests.support.outage import line
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("short_reads")


async def test_a_worker_that_ends_takes_nothing_more(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.05)

    async with running(a_worker(store, FakePlatform(), model)) as stopping:
        await a_queue(store).admit(a_turn(1))
        async with asyncio.timeout(5):
            while not model.prompts:
                await asyncio.sleep(0.01)
        stopping.set()
        await asyncio.sleep(0.2)
        other = a_queue(store, "other")
        await other.admit(a_turn(2, thread="t2"))
        await ready(other)

    assert len(model.prompts) == 1


async def test_shutdown_lets_a_reply_end(store: Store) -> None:
    platform = FakePlatform()

    async with running(a_worker(store, platform, FakeModel(WORDS, pause=0.02))) as stopping:
        await a_queue(store).admit(a_turn())
        while not platform.shown.states:
            await asyncio.sleep(0.01)
        stopping.set()

    assert await outcome(store) == "done"
    assert platform.shown.text == "".join(WORDS)


async def test_shutdown_hands_over_what_does_not_end_in_time(store: Store) -> None:
    platform = FakePlatform()
    slow = FakeModel(WORDS * 100, pause=0.02)

    async with running(a_worker(store, platform, slow, name="old", drain=0.2)) as stopping:
        await a_queue(store).admit(a_turn())
        while not platform.shown.states:
            await asyncio.sleep(0.01)
        stopping.set()
    # A lease so long that only what was handed over can be answered in time.
    new = a_worker(store, platform, FakeModel(["All of it."]), name="new", lease=60)
    async with running(new), asyncio.timeout(3):
        await all_ended(store)

    assert platform.shown.text == "All of it."
    assert await outcome(store) == "done"
    assert slow.hung_up == 1


async def test_shutdown_spends_no_try(store: Store) -> None:
    thinking = FakeModel(WORDS, pause=60)

    async with running(a_worker(store, FakePlatform(), thinking, drain=0.1)) as stopping:
        await a_queue(store).admit(a_turn())
        while not await store.command("HGET", store.key("turn", "console:1"), "worker"):
            await asyncio.sleep(0.01)
        stopping.set()

    assert await store.command("HGET", store.key("turn", "console:1"), "tries") == "0"


class LateTokens(TurnQueue):
    """Tells of tokens a while after they were read."""

    has_read = False

    async def ready(
        self, platforms: Sequence[str], *, count: int, block_seconds: float
    ) -> list[Token]:
        tokens = await super().ready(platforms, count=count, block_seconds=block_seconds)
        if tokens:
            self.has_read = True
            await asyncio.sleep(0.2)
        return tokens


async def test_shutdown_loses_no_token_that_was_just_read(store: Store) -> None:
    queue = LateTokens(store=store, worker="w1", limits=LIMITS, lease_seconds=60, keep_seconds=60)

    async with running(
        a_worker(store, FakePlatform(), FakeModel(["Hi"]), queue=queue, lease=60)
    ) as stopping:
        await a_queue(store).admit(a_turn())
        await until(lambda: queue.has_read)
        stopping.set()

    assert await outcome(store) == "done"


async def test_a_worker_that_ends_takes_nothing_more_however_late_it_is_read(
    store: Store, valkey_url: str, tmp_path: Path
) -> None:
    model, prefix = FakeModel(WORDS, pause=0.1), store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as there,
            running(a_worker(there, FakePlatform(), model, lease=60)) as stopping,
        ):
            await a_queue(store).admit(a_turn(1))
            await until(lambda: model.at_once)
            way.hold()
            await a_queue(store).admit(a_turn(2, thread="t2"))
            stopping.set()
            await asyncio.sleep(1)
            await way.mend()

    assert len(model.prompts) == 1


class Handing(TurnQueue):
    """Remembers how many answers a model was writing whenever a turn went back."""

    model: FakeModel
    at_work: tuple[int, ...] = ()

    async def back(self, taken: Taken, *, delay_seconds: float, counts: bool) -> None:
        self.at_work += (self.model.at_once,)
        await super().back(taken, delay_seconds=delay_seconds, counts=counts)


async def test_a_reply_has_ended_before_its_turn_is_handed_over(store: Store) -> None:
    queue = Handing(store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60)
    queue.model = FakeModel(WORDS, pause=60)

    async with running(
        a_worker(store, FakePlatform(), queue.model, drain=0.1, queue=queue)
    ) as stopping:
        await a_queue(store).admit(a_turn())
        await until(lambda: queue.model.at_once)
        stopping.set()

    assert queue.at_work == (0,)


async def test_a_store_that_hangs_holds_up_no_shutdown(
    store: Store, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_HAND_OVER_SECONDS", 0.2)
    model, prefix = FakeModel(WORDS, pause=60), store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as there,
        ):
            async with running(
                a_worker(there, FakePlatform(), model, drain=0.1, lease=60)
            ) as stopping:
                await a_queue(store).admit(a_turn())
                await until(lambda: model.at_once)
                way.hold()
                began = time.monotonic()
                stopping.set()
            lasted = time.monotonic() - began
            await way.mend()

    # A command that is not answered takes three seconds.
    assert lasted < 2.5


async def test_a_worker_that_has_ended_leaves_neither_a_task_nor_its_name(store: Store) -> None:
    before = asyncio.all_tasks()
    dead, platform = a_queue(store, "dead"), FakePlatform()
    await dead.admit(a_turn())
    await take(dead)

    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        # What it mends lasts for longer than it does.
        await all_ended(store)

    assert asyncio.all_tasks() <= before
    stream = store.key("ready", "console")
    names = [each["name"] for each in await store.command("XINFO", "CONSUMERS", stream, GROUP)]
    assert "w1" not in names
