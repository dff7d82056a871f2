"""Tasks end together and are cancelled once; pauses between retries grow to their limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from itertools import islice

import pytest

from bot.concurrency import BackgroundTasks, Backoff, cancelled, prefetch, running, together
from tests.support.waiting import until

NEVER = 60.0  # seconds


class Lane:
    """Runs until it is cancelled, cleans up in several steps, and counts its cancellations."""

    def __init__(self, *, steps: int = 0) -> None:
        self.cancellations = 0
        self.ended = False
        self._steps = steps
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        try:
            await asyncio.sleep(NEVER)
        finally:
            self.cancellations += 1
            for _ in range(self._steps):
                await asyncio.sleep(0)
            self.ended = True


async def failing() -> None:
    await asyncio.sleep(0)
    raise ValueError("lost")


async def soon(work: Awaitable[None]) -> None:
    async with asyncio.timeout(NEVER / 4):
        await work


async def test_together_raises_the_first_error_after_the_other_tasks_have_ended() -> None:
    lanes, fails = [Lane(), Lane(steps=9)], asyncio.create_task(failing())

    with pytest.raises(ValueError, match="lost"):
        await soon(together(lanes[0].task, fails, lanes[1].task))

    assert [(lane.cancellations, lane.ended) for lane in lanes] == [(1, True)] * 2


async def test_together_passes_a_cancellation_on_once_and_waits_for_the_end() -> None:
    lanes = [Lane(), Lane(steps=9)]
    joined = asyncio.create_task(together(*(lane.task for lane in lanes)))
    await asyncio.sleep(0.01)

    joined.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(joined)

    assert [(lane.cancellations, lane.ended) for lane in lanes] == [(1, True)] * 2


async def test_running_ends_its_task_with_the_block() -> None:
    lane = Lane()

    async with running(lane.run()) as task:
        await asyncio.sleep(0)

    assert task.cancelled()
    assert lane.ended
    await cancelled(lane.task)


async def counting(seen: list[str], *, fails: bool = False) -> AsyncGenerator[int]:
    try:
        for number in range(3):
            seen.append(f"asked for {number}")
            yield number
        if fails:
            raise ValueError("broken")
    finally:
        seen.append("closed")


async def test_prefetch_asks_for_the_first_item_before_anybody_iterates() -> None:
    seen: list[str] = []

    async with prefetch(counting(seen)) as items:
        await until(lambda: seen == ["asked for 0"])
        found = [item async for item in items]

    assert found == [0, 1, 2]


async def test_prefetch_closes_a_stream_that_was_left_early() -> None:
    seen: list[str] = []

    async with prefetch(counting(seen)) as items:
        await anext(items)

    assert seen == ["asked for 0", "closed"]


async def test_prefetch_passes_errors_on() -> None:
    async with prefetch(counting([], fails=True)) as items:
        with pytest.raises(ValueError, match="broken"):
            [item async for item in items]


@pytest.mark.parametrize("ends", [True, False])
async def test_background_tasks_are_cancelled_after_their_grace(ends: bool) -> None:
    async with BackgroundTasks(grace_seconds=NEVER if ends else 0.01) as background:
        task = background.start(asyncio.sleep(0.01 if ends else NEVER))

    assert task.cancelled() is not ends


async def test_background_tasks_end_that_others_start_as_they_end() -> None:
    started: list[asyncio.Task[bool]] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            started.append(background.start(asyncio.Event().wait()))

    async with BackgroundTasks() as background:
        background.start(work())
        await asyncio.sleep(0)

    assert [task.cancelled() for task in started] == [True]


async def test_background_tasks_forgets_a_task_that_has_ended() -> None:
    async with BackgroundTasks() as background:
        background.start(asyncio.sleep(0))
        assert len(background) == 1

        await until(lambda: not len(background))


def test_backoff_doubles_up_to_the_longest_pause() -> None:
    backoff = Backoff(first=0.5, longest=3.0)

    assert list(islice(backoff.pauses(), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.delay(10**6) == 3.0
