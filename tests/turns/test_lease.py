"""The lease is renewed in time and reports a stop; an attempt saves what it shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bot.concurrency import cancelled
from bot.domain import Exchange, Shown, Thought, Turn
from bot.errors import ModelBusy, QuestionEdited, StoreUnavailable
from bot.store import Store
from bot.turns.lease import RETRY_WHILE_BLOCKING_SECONDS, Attempt, Lease
from bot.turns.queue import Taken, TurnLeases
from bot.turns.repair import WorkPolicy
from tests.support.at_work import BOB, make_leases, make_queue, make_turn, take
from tests.support.waiting import until


class Unreliable(TurnLeases):
    """Counts what it does, and fails to store the end of a turn for some times."""

    renewed = 0
    saves = 0
    refuses_saves = False
    failures = 12

    async def renew(self, taken: Taken, **use: Any) -> bool:
        self.renewed += 1
        return await super().renew(taken, **use)

    async def save(self, taken: Taken, shown: Shown, **use: Any) -> bool:
        self.saves += 1
        if self.refuses_saves:
            raise StoreUnavailable("out of memory")
        return await super().save(taken, shown, **use)

    async def finish(
        self, taken: Taken, shown: Shown, exchange: Exchange | None, **use: Any
    ) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreUnavailable("out of memory")
        return await super().finish(taken, shown, exchange, **use)


class Clock:
    """Passes the time of a lease without waiting for it."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


async def make_lease(
    store: Store, *turns: Turn, clock: Clock | None = None
) -> tuple[Lease, Unreliable]:
    queue, leases = make_queue(store), make_leases(Unreliable, store)
    for turn in turns or (make_turn(),):
        await queue.admit(turn)
    lease = Lease(
        leases=leases,
        taken=await take(queue),
        seconds=60,
        finish_retry=WorkPolicy().finish_retry,
        sleep=(clock or Clock()).sleep,
    )
    return lease, leases


async def test_a_lease_is_renewed_three_times_before_it_would_end(store: Store) -> None:
    clock = Clock()
    lease, leases = await make_lease(store, clock=clock)

    renewing = asyncio.create_task(lease.renew_until_cancelled())
    await until(lambda: leases.renewed >= 6)
    await cancelled(renewing)

    assert clock.pauses[:6] == [20.0] * 6


async def test_a_renewal_tells_of_a_stop(store: Store) -> None:
    lease, _ = await make_lease(store)

    await make_queue(store).changes.stop(lease.turn.id)
    renewing = asyncio.create_task(lease.renew_until_cancelled())
    await until(lease.stop.is_set)
    await cancelled(renewing)


async def test_a_renewal_that_hears_of_an_edit_stops_the_answer(store: Store) -> None:
    lease, _ = await make_lease(store)
    edited = replace(make_turn(), text="as it stands now")
    await make_queue(store).edit(edited, edited_at=2000.0)

    with pytest.raises(QuestionEdited):
        await lease.renew_until_cancelled()

    assert lease.stop.is_set()


async def test_a_save_tells_of_a_stop(store: Store) -> None:
    lease, _ = await make_lease(store)
    await lease.save(Shown(("m1",), "Half", "Half"))
    before = lease.stop.is_set()

    await make_queue(store).changes.stop(lease.turn.id)
    await lease.save(Shown(("m1",), "Half of", "Half of"))

    assert (before, lease.stop.is_set()) == (False, True)


async def test_an_end_is_stored_later_if_the_store_refuses_it(store: Store) -> None:
    clock = Clock()
    lease, _ = await make_lease(store, clock=clock)

    await lease.finish(Shown(("m1",), "Hi", "Hi", outcome="done"), None)

    assert clock.pauses[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert set(clock.pauses[4:]) == {2.0}
    assert len(clock.pauses) == 12
    assert (await make_queue(store).load([])).open == 0


async def test_a_store_that_is_away_is_not_asked_to_save(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.store.PING_PAUSE", 60)
    lease, leases = await make_lease(store)
    leases.refuses_saves = True

    attempt = Attempt(lease)
    for number in range(20):
        await attempt.save(Shown(("m1",), f"Hi {number}", f"Hi {number}"))

    assert (leases.saves, attempt.shown.text) == (1, "Hi 19")


async def test_a_question_that_only_fails_holds_its_thread_for_a_while_if_another_waits(
    store: Store,
) -> None:
    lease, _ = await make_lease(store, make_turn(), make_turn(2, person=BOB))

    await Attempt(lease).before_retry(ModelBusy("full"))
    with pytest.raises(ModelBusy):
        await Attempt(lease, blocking_seconds=0.0).before_retry(ModelBusy("full"))

    assert RETRY_WHILE_BLOCKING_SECONDS == 15.0


async def test_a_question_behind_which_nothing_waits_may_fail_for_longer(store: Store) -> None:
    first, second = make_turn(), make_turn(2)
    joined = [replace(one, joins=True) for one in (first, second)]
    lease, _ = await make_lease(store, *joined)

    await Attempt(lease, blocking_seconds=0.0).before_retry(ModelBusy("full"))

    assert lease.turn.text == "question 1\n\nquestion 2"


async def test_a_thought_is_saved_again_only_when_it_has_changed(store: Store) -> None:
    lease, _ = await make_lease(store)
    name, shown = store.key("thoughts", lease.turn.id), Shown(("m1",), "4", "4")
    found = []

    for text in ("Hm.", "Hm.", "Hm. Yes.", "Hm. Yes."):
        await lease.save(replace(shown, thought=Thought(text, 1)))
        found.append(await store.command("HGET", name, "text"))
        await store.command("DEL", name)

    assert found == ["Hm.", None, "Hm. Yes.", None]
