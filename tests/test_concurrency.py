"""Tasks that run together end together, each told once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from bot.concurrency import cancelled, together

NEVER = 60.0  # seconds


class Lane:
    """Runs until it is told to end, takes `last` seconds for that, and knows how often it was."""

    def __init__(self, *, last: float = 0.0) -> None:
        self.told = 0
        self.ended = False
        self._last = last
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await asyncio.sleep(NEVER)
        finally:
            self.told += 1
            await asyncio.sleep(self._last)
            self.ended = True


async def failing() -> None:
    await asyncio.sleep(0.01)
    raise ValueError("lost")


async def within_a_moment(work: Awaitable[None]) -> None:
    async with asyncio.timeout(NEVER / 4):
        await work


async def test_the_first_failure_is_told_when_the_others_have_ended() -> None:
    lanes, fails = [Lane(), Lane(last=0.2)], asyncio.create_task(failing())

    with pytest.raises(ValueError, match="lost"):
        await within_a_moment(together(lanes[0].task, fails, lanes[1].task))

    assert [(lane.told, lane.ended) for lane in lanes] == [(1, True)] * 2


async def test_whoever_is_cancelled_alone_takes_the_others_along() -> None:
    lanes = [Lane(), Lane()]
    asyncio.get_running_loop().call_later(0.01, lanes[0].task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await within_a_moment(together(*(lane.task for lane in lanes)))

    assert [lane.told for lane in lanes] == [1, 1]


async def test_a_cancellation_reaches_each_once_and_is_over_when_all_have_ended() -> None:
    lanes = [Lane(), Lane(last=0.2)]
    running = asyncio.create_task(together(*(lane.task for lane in lanes)))
    await asyncio.sleep(0.01)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_a_moment(running)

    assert [(lane.told, lane.ended) for lane in lanes] == [(1, True)] * 2


async def test_whatever_comes_of_a_task_that_is_cancelled_is_no_matter() -> None:
    lane, failed = Lane(last=0.1), asyncio.create_task(failing())
    await asyncio.sleep(0.02)

    await cancelled(lane.task, failed)

    assert lane.ended
