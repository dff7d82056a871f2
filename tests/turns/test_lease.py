"""The lease: renewed in time, and the way by which a stop is sure to come."""

from __future__ import annotations

import asyncio
import time

from bot.domain import Shown
from bot.store import Store
from bot.turns.lease import Lease
from bot.turns.queue import Taken, TurnQueue
from tests.support.at_work import LIMITS, a_queue, a_turn, take
from tests.support.waiting import until


async def a_lease(queue: TurnQueue, *, seconds: float) -> Lease:
    await queue.admit(a_turn())
    return Lease(queue=queue, taken=await take(queue), seconds=seconds)


class Counting(TurnQueue):
    """Knows how often a lease was renewed."""

    renewed = 0

    async def renew(self, taken: Taken) -> bool:
        self.renewed += 1
        return await super().renew(taken)


async def test_a_lease_is_renewed_three_times_before_it_would_end(store: Store) -> None:
    queue = Counting(store=store, worker="w1", limits=LIMITS, lease_seconds=0.6, keep_seconds=60)
    lease = await a_lease(queue, seconds=0.6)
    began = time.monotonic()

    keeping = asyncio.create_task(lease.keep())
    await until(lambda: queue.renewed == 6)
    lasted = time.monotonic() - began
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)

    # As often as it would end, it would take 3.6 seconds.
    assert 1.0 < lasted < 3.0


async def test_a_renewal_tells_of_a_stop(store: Store) -> None:
    queue = a_queue(store)
    lease = await a_lease(queue, seconds=0.1)

    await queue.stop(lease.turn.id)
    keeping = asyncio.create_task(lease.keep())
    async with asyncio.timeout(10):
        await lease.stop.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_a_save_tells_of_a_stop(store: Store) -> None:
    queue = a_queue(store)
    lease = await a_lease(queue, seconds=60)
    await lease.save(Shown(("m1",), "Half", "Half"))
    before = lease.stop.is_set()

    await queue.stop(lease.turn.id)
    await lease.save(Shown(("m1",), "Half of", "Half of"))

    assert (before, lease.stop.is_set()) == (False, True)
