"""A worker that is told to end lets its replies end, and hands over the rest."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bot.store import Store
from bot.turns.queue import Taken, TurnLeases
from tests.support.at_work import (
    POLICY,
    WORDS,
    all_ended,
    cuttable,
    make_leases,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform
from tests.support.waiting import until


async def test_shutdown_lets_a_reply_end(store: Store) -> None:
    platform = FakePlatform()

    async with working(make_worker(store, platform, FakeModel(WORDS, pause=0.02))) as stopping:
        await make_queue(store).admit(make_turn())
        await until(lambda: platform.shown.states)
        stopping.set()

    assert await outcome(store) == "done"
    assert platform.shown.text == "".join(WORDS)


async def test_shutdown_hands_over_what_does_not_end_in_time(store: Store) -> None:
    platform = FakePlatform()
    slow = FakeModel(WORDS * 100, pause=0.02)

    async with working(make_worker(store, platform, slow, name="old", drain=0.2)) as stopping:
        await make_queue(store).admit(make_turn())
        await until(lambda: platform.shown.states)
        stopping.set()
    # A lease so long that only what was handed over can be answered in time.
    new = make_worker(store, platform, FakeModel(["All of it."]), name="new", lease=600)
    async with working(new):
        await all_ended(store)

    assert platform.shown.text == "All of it."
    assert await outcome(store) == "done"
    assert slow.hung_up == 1


async def test_shutdown_spends_no_attempt(store: Store) -> None:
    thinking = FakeModel(WORDS, pause=60)

    async with working(make_worker(store, FakePlatform(), thinking, drain=0.1)) as stopping:
        await make_queue(store).admit(make_turn())
        while not await store.command("HGET", store.key("turn", "console:1"), "worker"):
            await asyncio.sleep(0.01)
        stopping.set()

    assert await store.command("HGET", store.key("turn", "console:1"), "attempts") == "0"


class Late(TurnLeases):
    """Hears of a turn a while after it was taken."""

    has_taken = False

    async def take(self, *of: Any, **how: Any) -> Taken | float:
        taken = await super().take(*of, **how)
        if isinstance(taken, Taken):
            self.has_taken = True
            await asyncio.sleep(0.2)
        return taken


async def test_shutdown_loses_no_turn_that_was_just_taken(store: Store) -> None:
    leases = make_leases(Late, store, lease=60)

    async with working(
        make_worker(store, FakePlatform(), FakeModel(["Hi"]), leases=leases, lease=60)
    ) as stopping:
        await make_queue(store).admit(make_turn())
        await until(lambda: leases.has_taken)
        stopping.set()

    assert await outcome(store) == "done"


async def test_a_worker_that_ends_takes_nothing_more_however_late_it_is_read(
    store: Store, valkey_url: str
) -> None:
    model = FakeModel(WORDS, pause=0.04)
    async with (
        cuttable(store, valkey_url) as (way, there),
        working(make_worker(there, FakePlatform(), model, lease=60)) as stopping,
    ):
        await make_queue(store).admit(make_turn(1))
        await until(lambda: model.at_once)
        way.hold()
        await make_queue(store).admit(make_turn(2, thread="t2"))
        stopping.set()
        await asyncio.sleep(1)
        await way.mend()

    assert len(model.prompts) == 1


class Handing(TurnLeases):
    """Remembers how many answers a model was writing whenever a turn went back."""

    model: FakeModel
    at_work: tuple[int, ...] = ()

    async def release(self, taken: Taken, **how: Any) -> None:
        self.at_work += (self.model.at_once,)
        await super().release(taken, **how)


async def test_a_reply_has_ended_before_its_turn_is_handed_over(store: Store) -> None:
    leases = make_leases(Handing, store)
    leases.model = FakeModel(WORDS, pause=60)

    async with working(
        make_worker(store, FakePlatform(), leases.model, drain=0.1, leases=leases)
    ) as stopping:
        await make_queue(store).admit(make_turn())
        await until(lambda: leases.model.at_once)
        stopping.set()

    assert leases.at_work == (0,)


async def test_a_store_that_hangs_holds_up_no_shutdown(
    store: Store, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.store.COMMAND_SECONDS", 600.0)
    policy = replace(POLICY, release_grace=0.2)
    model = FakeModel(WORDS, pause=60)
    async with cuttable(store, valkey_url) as (way, there):
        async with working(
            make_worker(there, FakePlatform(), model, drain=0.1, lease=60, policy=policy)
        ) as stopping:
            await make_queue(store).admit(make_turn())
            await until(lambda: model.at_once)
            way.hold()
            stopping.set()
        await way.mend()

    assert model.hung_up == 1


async def test_a_worker_that_has_ended_leaves_neither_a_task_nor_its_name(store: Store) -> None:
    before = asyncio.all_tasks()
    dead, platform = make_queue(store, "dead"), FakePlatform()
    await dead.admit(make_turn())
    await take(dead)

    async with working(make_worker(store, platform, FakeModel(["Hi"]))):
        # Its repairs take longer than its shutdown.
        await all_ended(store)

    assert asyncio.all_tasks() <= before
