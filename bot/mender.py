"""Puts right what a try of a turn left behind: late writes, and messages that nobody knows of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from bot.conversation import Conversation
from bot.domain import Page, Shown, Turn
from bot.errors import StoreUnavailable, SurfaceError, WriteDelayed, WriteFailed
from bot.lease import Lease
from bot.ports import Platform
from bot.turns import TurnQueue

log = logging.getLogger(__name__)

AWAY_SECONDS = 0.5  # pause while the store is away, or before a late write is mended again
_LONGEST_PAUSE = 60.0  # seconds
# How long a worker that lost its lease mends, the wait for the new owner's end included: an answer
# may take ten minutes.
MEND_SECONDS = 900.0
# Leases after which a post whose answer was lost has landed, or will not; and after which whoever
# posted a message has saved its id, though the answer was lost.
LANDED, SAVED = 3, 6

Step = Callable[[], Awaitable[None]]


class Mender:
    """Mends beside the work, until it is done, or the platform refuses, or a quarter of an hour."""

    def __init__(
        self,
        *,
        queue: TurnQueue,
        platforms: Mapping[str, Platform],
        conversation: Conversation,
        lease_seconds: float,
    ) -> None:
        self._queue = queue
        self._platforms = platforms
        self._conversation = conversation
        self._lease_seconds = lease_seconds
        self.tasks: set[asyncio.Task[None]] = set()

    def lost(self, lease: Lease) -> None:
        """Put the final text back where our last write may have landed after it.

        A message that only we know of is taken away, and then one that nobody knows of.
        """
        self._begin(partial(self._restore, lease), partial(self._take_strays_away, lease.turn))

    def ended(self, turn: Turn) -> None:
        """Take away what an earlier try has posted and told nobody: the answer may not need it."""
        self._begin(partial(self._take_strays_away, turn))

    def _begin(self, *steps: Step) -> None:
        task = asyncio.create_task(_mended(steps))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _restore(self, lease: Lease) -> None:
        turn = lease.turn
        ended = await self._end_of(turn.id)
        async with self._platform_of(turn).surface(turn, again=True) as surface:
            await self._conversation.restore(ended, surface, posted=lease.shown.pages)

    async def _take_strays_away(self, turn: Turn) -> None:
        await asyncio.sleep(LANDED * self._lease_seconds)
        platform = self._platform_of(turn)
        found = await platform.strays(turn, but=(await self._end_of(turn.id)).pages)
        strays = await self._unknown(turn, found)
        if not strays:
            return
        log.warning("Messages that nobody knows of are taken away: %s", strays)
        async with platform.surface(turn, again=True) as surface:
            for each in strays:
                await _through(partial(surface.edit, each, Page(0, "", final=True)))

    async def _unknown(self, turn: Turn, found: Sequence[str]) -> list[str]:
        """Return those that nobody has saved when the thread is at rest.

        Before, they may be those of a turn that goes on: while the store is away, or out of its
        reach, a reply grows in a message that stands nowhere else, and is saved at its end.
        """
        while found:
            await asyncio.sleep(SAVED * self._lease_seconds)
            with suppress(StoreUnavailable):
                if await self._queue.is_at_rest(turn.key):
                    return [each for each in found if not await self._is_known(turn, each)]
        return []

    async def _is_known(self, turn: Turn, message_id: str) -> bool:
        return bool(await self._queue.thread_of(turn.key.platform, message_id))

    async def _end_of(self, turn_id: str) -> Shown:
        while True:
            with suppress(StoreUnavailable):
                if ended := await self._queue.ended(turn_id):
                    return ended
            await asyncio.sleep(AWAY_SECONDS)

    def _platform_of(self, turn: Turn) -> Platform:
        return self._platforms[turn.key.platform]


async def _mended(steps: Sequence[Step]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(MEND_SECONDS):
            for step in steps:
                await _through(step)


async def _through(step: Step) -> None:
    """Repeat a step, later each time, until the platform has taken it, or refused it for good."""
    pause = AWAY_SECONDS
    while True:
        try:
            return await step()
        except (WriteDelayed, WriteFailed) as error:
            log.info("What may have landed late is looked at again: %s", error)
            asked = error.retry_after if isinstance(error, WriteDelayed) else 0.0
            await asyncio.sleep(max(asked, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)
        except SurfaceError as error:
            log.info("What may have landed late stays: %s", error)
            return None
