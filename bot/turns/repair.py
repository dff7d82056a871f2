"""Puts right what a try of a turn left behind: late writes, and messages that nobody knows of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from bot.concurrency import cancelled
from bot.domain import Page, Purpose, Turn
from bot.errors import StoreUnavailable, SurfaceError, WriteDelayed, WriteFailed
from bot.ports import Platform
from bot.turns.conversation import Conversation
from bot.turns.lease import Lease
from bot.turns.queue import Mend, TurnQueue

log = logging.getLogger(__name__)

AWAY_SECONDS = 0.5  # pause while the store is away, or before a late write is mended again
_LONGEST_PAUSE = 60.0  # seconds
_AT_ONCE = 16
# Leases after which whoever posted a message has saved its id, though the answer was lost; and
# after which a turn is mended anew, for whoever began to is gone, or the platform was away.
SAVED, PATIENCE = 6, 12

_T = TypeVar("_T")


class Reconciler:
    """Mends beside the work what the queue wants mended, whoever has seen that it has to be."""

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
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Mend until cancelled."""
        try:
            while True:
                with suppress(StoreUnavailable):
                    await self._take_what_is_due()
                await asyncio.sleep(self._lease_seconds / 3)
        finally:
            await cancelled(*self._tasks)

    def lost(self, lease: Lease) -> None:
        """Have the turn mended: our last write may land after its end."""
        self._begin(self._tell(lease))

    async def _tell(self, lease: Lease) -> None:
        while True:
            with suppress(StoreUnavailable):
                return await self._queue.late(lease.turn, lease.shown.pages)
            await asyncio.sleep(AWAY_SECONDS)

    async def _take_what_is_due(self) -> None:
        # One that was unreachable may join them meanwhile.
        for name in list(self._platforms):
            while len(self._tasks) < _AT_ONCE:
                mend = await self._queue.mend(name, patience=self._patience)
                if mend is None:
                    break
                self._begin(self._mend(mend))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _mend(self, mend: Mend) -> None:
        """The outermost handler of a turn that is mended; what does not succeed is tried anew."""
        try:
            async with asyncio.timeout(self._patience):
                await self._put_right(mend)
                await self._queue.mended(mend)
        except (TimeoutError, StoreUnavailable):
            log.info("What an earlier try at a turn has left is looked at again later")
        except Exception:
            log.exception("Turn %s could not be mended", mend.turn.id)

    # Each step asks anew how the turn has ended: a person may have it answered anew meanwhile.
    async def _put_right(self, mend: Mend) -> None:
        turn = mend.turn
        # Not after each new try: a platform takes few writes, and others wait for them.
        if mend.late:
            await _through(partial(self._restore, turn, mend.late))
        apology = await _through(partial(self._apologize, turn)) or ()
        await _through(partial(self._take_strays_away, turn, apology))

    async def _apologize(self, turn: Turn) -> tuple[str, ...]:
        """Return the message that tells of the end of a turn that lacks its apology.

        The surface knows what an earlier look, or try, has posted: that becomes the apology.
        """
        if not await self._queue.lacks_apology(turn.id):
            return ()
        async with self._platform_of(turn).surface(turn, Purpose.APOLOGIZE) as surface:
            return (await self._conversation.apologize(surface),)

    async def _restore(self, turn: Turn, posted: Sequence[str]) -> None:
        """Put the final text back where a late write may have landed after it.

        A message that only its writer knows of is taken away.
        """
        ended = await self._queue.ended(turn.id)
        if ended is None:
            return
        async with self._platform_of(turn).surface(turn, Purpose.RESTORE) as surface:
            await self._conversation.restore(ended, surface, posted=posted)

    async def _take_strays_away(self, turn: Turn, apology: Sequence[str]) -> None:
        ended, platform = await self._queue.ended(turn.id), self._platform_of(turn)
        if ended is None:
            return
        found = await platform.orphaned_messages(turn, but=(*ended.pages, *apology))
        strays = await self._unknown(turn, found)
        if not strays:
            return
        log.warning("Messages that nobody knows of are taken away: %s", strays)
        async with platform.surface(turn, Purpose.RESTORE) as surface:
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

    @property
    def _patience(self) -> float:
        return PATIENCE * self._lease_seconds

    def _platform_of(self, turn: Turn) -> Platform:
        return self._platforms[turn.key.platform]


async def _through(step: Callable[[], Awaitable[_T]]) -> _T | None:
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
