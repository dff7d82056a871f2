"""The clock of the emulators goes by itself, and faster when a test says so."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.emulators.clock import Clock
from tests.support.waiting import at_least


def test_the_clock_goes_with_real_time() -> None:
    clock = Clock()
    early = time.monotonic()
    before = clock.now()
    late = time.monotonic()
    time.sleep(0.02)

    # However slow the machine is, the clock was read between two looks at real time.
    least = time.monotonic() - late
    passed = clock.now() - before
    assert 0.02 <= least <= passed <= time.monotonic() - early


def test_time_that_is_added_is_over_at_once() -> None:
    clock = Clock()
    before = clock.now()
    clock.advance(300)
    clock.advance(0.5)

    assert clock.now() - before == pytest.approx(300.5, abs=0.1)


async def test_a_sleeper_wakes_by_itself() -> None:
    began = time.monotonic()
    await Clock().sleep(0.05)

    assert time.monotonic() - began >= at_least(0.05)


async def test_a_sleeper_wakes_when_its_time_is_added() -> None:
    clock = Clock()
    sleeping = asyncio.create_task(clock.sleep(300))
    await asyncio.sleep(0)
    clock.advance(200)
    await asyncio.sleep(0.02)
    assert not sleeping.done()
    clock.advance(100)

    await asyncio.wait_for(sleeping, 60)


async def test_each_sleeper_wakes_when_it_is_due() -> None:
    clock = Clock()
    sleeping = {seconds: asyncio.create_task(clock.sleep(seconds)) for seconds in (60, 120)}
    await asyncio.sleep(0)
    clock.advance(60)
    await asyncio.wait_for(sleeping[60], 60)
    assert not sleeping[120].done()
    clock.advance(60)

    await asyncio.wait_for(sleeping[120], 60)


def test_what_is_over_needs_no_sleep() -> None:
    with pytest.raises(StopIteration):
        Clock().sleep(-1).send(None)


async def test_a_sleeper_can_be_cancelled() -> None:
    sleeping = asyncio.create_task(Clock().sleep(300))
    await asyncio.sleep(0)
    sleeping.cancel()

    with pytest.raises(asyncio.CancelledError):
        await sleeping
