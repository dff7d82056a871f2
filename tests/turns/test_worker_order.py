"""Which turns a worker takes, how many at once, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from bot.concurrency import Backoff
from bot.store import Store
from bot.turns.queue import TurnLeases
from bot.turns.worker import Worker
from tests.support.at_work import (
    KEY,
    LEASE,
    POLICY,
    WORDS,
    all_ended,
    answer,
    expire_all,
    make_conversation,
    make_leases,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    remembered,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.waiting import until


async def test_a_worker_takes_no_more_than_its_capacity(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)
    turns = [make_turn(number, thread=f"t{number}") for number in range(12)]

    await answer(store, FakePlatform(), model, *turns, capacity=3)

    assert model.most_at_once == 3
    assert len(model.prompts) == 12


async def test_two_platforms_at_once_do_not_exceed_the_capacity(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)
    elsewhere = replace(make_turn(2), id="slack:2", key=replace(KEY, platform="slack"))

    # What was read beyond the capacity waits for room, and not for a lease to expire.
    await answer(store, FakePlatform(), model, make_turn(1), elsewhere, capacity=1, lease=600)

    assert model.most_at_once == 1
    assert len(model.prompts) == 2


async def test_what_a_dead_worker_left_comes_before_what_is_new(store: Store) -> None:
    model, dead = FakeModel(WORDS[:5], pause=0.01), make_queue(store, "dead")
    await dead.admit(make_turn(0, thread="left"))
    await take(dead)
    await expire_all(store)
    for number in range(1, 10):
        await dead.admit(make_turn(number, thread=f"t{number}"))

    await answer(store, FakePlatform(), model, capacity=1)

    assert model.prompts[0][-1].text == "question 0"


class Timed(TurnLeases):
    """Notes how long each wait may last."""

    waits: tuple[float, ...] = ()

    async def wait(self, platforms: Sequence[str], seconds: float) -> None:
        self.waits += (seconds,)
        await super().wait(platforms, seconds)


async def test_a_worker_that_waits_wakes_when_the_lease_of_another_ends(store: Store) -> None:
    leases = make_leases(Timed, store)
    dead, policy = make_queue(store, "dead"), replace(POLICY, longest_read=60.0)
    await dead.admit(make_turn())
    await take(dead)

    await answer(store, FakePlatform(), FakeModel(["Hi"]), leases=leases, policy=policy)

    assert 0 < leases.waits[0] <= LEASE


async def test_a_wait_without_time_is_not_one_without_an_end(store: Store) -> None:
    policy = replace(POLICY, longest_read=0.0)

    await answer(store, FakePlatform(), FakeModel(), make_turn(), policy=policy)

    assert await outcome(store) == "done"


async def test_a_retry_comes_when_it_is_due_however_many_turns_are_new(store: Store) -> None:
    policy = replace(POLICY, retry=Backoff(LEASE / 3, LEASE / 3))
    model = FakeModel(WORDS[:10], pause=0.01)
    platform = FakePlatform(shown=FakeSurface(errors=[ValueError("a bug")]))
    turns = [make_turn(number, thread=f"t{number}") for number in range(1, 20)]

    await answer(store, platform, model, *turns, capacity=1, policy=policy)

    asked = [prompt[-1].text for prompt in model.prompts]
    assert "question 1" in asked[1:10]


async def test_a_worker_that_takes_its_own_turn_again_goes_on_with_it(
    store: Store,
) -> None:
    model = FakeModel(WORDS, pause=0.03)

    async with working(make_worker(store, FakePlatform(), model)):
        await make_queue(store).admit(make_turn())
        await until(lambda: model.prompts)
        # As after an outage in which the lease ran out.
        for _ in range(4):
            await expire_all(store)
            await asyncio.sleep(LEASE / 3)
        await all_ended(store)

    assert len(model.prompts) == 1
    assert await remembered(store) == [("question 1", "".join(WORDS))]


async def test_turns_of_a_platform_that_is_reached_later_are_answered(store: Store) -> None:
    worker = Worker(
        queue=make_queue(store),
        platforms=(platforms := {"slack": FakePlatform()}),
        conversation=make_conversation(store, FakeModel()),
        capacity=8,
        lease_seconds=LEASE,
        drain_seconds=5.0,
        policy=POLICY,
    )
    await make_queue(store).admit(make_turn())

    async with working(worker):
        platforms["console"] = FakePlatform()
        await all_ended(store)

    assert await outcome(store) == "done"
