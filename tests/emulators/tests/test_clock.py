"""The clock of the emulators goes by itself, and faster when a test says so."""

from __future__ import annotations

import asyncio

import pytest

from tests.emulators.clock import Clock
from tests.support.waiting import at_least


async def test_the_clock_goes_with_real_time_and_can_be_put_forward() -> None:
    clock = Clock()
    before = clock.now()
    await clock.sleep(0.05)
    passed = clock.now() - before
    clock.advance(300)

    assert passed >= at_least(0.05)
    assert clock.now() - before >= 300 + passed


async def test_each_sleeper_wakes_when_it_is_due() -> None:
    clock = Clock()
    sleeping = {seconds: asyncio.create_task(clock.sleep(seconds)) for seconds in (60, 300)}
    cancelled = asyncio.create_task(clock.sleep(300))
    await asyncio.sleep(0)
    clock.advance(60)
    await asyncio.wait_for(sleeping[60], 60)
    assert not sleeping[300].done()
    cancelled.cancel()
    clock.advance(240)
    await asyncio.wait_for(sleeping[300], 60)

    with pytest.raises(asyncio.CancelledError):
        await cancelled


def test_what_is_over_needs_no_sleep() -> None:
    with pytest.raises(StopIteration):
        Clock().sleep(-1).send(None)
