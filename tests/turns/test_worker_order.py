"""Which turns a worker takes, how many at once, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bot.store import Store
from bot.turns import worker as worker_module
from bot.turns.queue import Token, TurnQueue
from tests.support.at_work import (
    KEY,
    LEASE,
    LIMITS,
    WORDS,
    a_queue,
    a_turn,
    a_worker,
    all_ended,
    expire,
    ready,
    remembered,
    running,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface

pytestmark = pytest.mark.usefixtures("short_reads")


async def test_a_worker_takes_no_more_than_its_capacity(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)

    async with running(a_worker(store, FakePlatform(), model, capacity=3)):
        for number in range(12):
            await a_queue(store).admit(a_turn(number, thread=f"t{number}"))
        await all_ended(store)

    assert model.most_at_once == 3
    assert len(model.prompts) == 12


async def test_two_platforms_at_once_do_not_exceed_the_capacity(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)
    elsewhere = replace(a_turn(2), key=replace(KEY, platform="slack"))

    async with running(a_worker(store, FakePlatform(), model, capacity=1)):
        await asyncio.gather(a_queue(store).admit(a_turn(1)), a_queue(store).admit(elsewhere))
        await all_ended(store)

    assert model.most_at_once == 1
    assert len(model.prompts) == 2


async def test_what_was_read_beyond_the_capacity_waits_for_room_only(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)
    elsewhere = replace(a_turn(2), key=replace(KEY, platform="slack"))
    await asyncio.gather(a_queue(store).admit(a_turn(1)), a_queue(store).admit(elsewhere))

    async with running(a_worker(store, FakePlatform(), model, capacity=1, lease=60)):
        async with asyncio.timeout(5):
            await all_ended(store)

    assert len(model.prompts) == 2


async def test_what_a_dead_worker_left_comes_before_what_is_new(store: Store) -> None:
    model, dead = FakeModel(WORDS[:5], pause=0.01), a_queue(store, "dead")
    await dead.admit(a_turn(0, thread="left"))
    (token,) = await ready(dead)
    assert await dead.take(token)
    await expire(store, token, "dead")
    for number in range(1, 10):
        await dead.admit(a_turn(number, thread=f"t{number}"))

    async with running(a_worker(store, FakePlatform(), model, capacity=1)):
        await all_ended(store)

    assert model.prompts[0][-1].text == "question 0"


class Timed(TurnQueue):
    """Remembers of all reads how long they may last, and until when after the last look."""

    looked_at = 0.0
    latest = 0.0
    shortest = 60.0

    async def reclaim(self, platforms: Sequence[str], *, count: int) -> list[Token]:
        self.looked_at = time.monotonic()
        return await super().reclaim(platforms, count=count)

    async def ready(
        self, platforms: Sequence[str], *, count: int, block_seconds: float
    ) -> list[Token]:
        self.latest = max(self.latest, time.monotonic() + block_seconds - self.looked_at)
        self.shortest = min(self.shortest, block_seconds)
        return await super().ready(platforms, count=count, block_seconds=block_seconds)


async def test_no_read_of_new_turns_holds_up_the_look_for_what_others_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BLOCK_SECONDS", 1.0)
    lease = 1.5
    queue = Timed(store=store, worker="w1", limits=LIMITS, lease_seconds=lease, keep_seconds=60)

    async with running(
        a_worker(store, FakePlatform(), FakeModel(["Hi"]), lease=lease, queue=queue)
    ):
        for number in range(4):
            await asyncio.sleep(lease / 7)
            await a_queue(store).admit(a_turn(number, thread=f"t{number}"))
        await all_ended(store)

    assert 0 < queue.latest < lease / 3 + 0.1


async def test_no_read_of_new_turns_is_one_without_an_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BLOCK_SECONDS", 0.0)
    queue = Timed(store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60)

    async with running(a_worker(store, FakePlatform(), FakeModel(["Hi"]), queue=queue)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    # Redis takes no milliseconds for ever.
    assert int(queue.shortest * 1000) > 0


async def test_a_retry_comes_when_it_is_due_however_many_turns_are_new(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_BACK", LEASE / 3)
    model = FakeModel(WORDS[:10], pause=0.01)
    platform = FakePlatform(shown=FakeSurface(errors=[ValueError("a bug")]))
    for number in range(1, 20):
        await a_queue(store).admit(a_turn(number, thread=f"t{number}"))

    async with running(a_worker(store, platform, model, capacity=1)):
        await all_ended(store)

    asked = [prompt[-1].text for prompt in model.prompts]
    assert "question 1" in asked[1:10]


async def test_a_worker_that_reclaims_its_own_turn_goes_on_with_it(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.03)

    async with running(a_worker(store, FakePlatform(), model)):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(5):
            while not model.prompts:
                await asyncio.sleep(0.01)
        # As after an outage in which the lease ran out.
        stream = store.key("ready", "console")
        ((entry, _),) = await store.command("XRANGE", stream, "-", "+")
        for _ in range(4):
            await store.command(
                *("XCLAIM", stream, "workers", "w1", 0, entry, "IDLE", 10_000, "JUSTID")
            )
            await asyncio.sleep(LEASE / 3)
        await all_ended(store)

    assert len(model.prompts) == 1
    assert await remembered(store) == [("question 1", "".join(WORDS))]
