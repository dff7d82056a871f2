"""Events that wait for the store, in the order in which they came."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from bot.errors import StoreUnavailable, WriteDelayed, WriteFailed

Errand = Callable[[], Awaitable[None]]

_log = logging.getLogger(__name__)

_LIMIT = 100  # errands that wait while the store is away
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 2.0  # seconds


class Backlog:
    """Runs errands one after the other, so that a thread's turns are admitted in their order.

    An errand that finds the store or Discord away is tried again, and those behind it wait; of
    more than a hundred the oldest are dropped, with a line in the log.
    """

    def __init__(self) -> None:
        self._errands: deque[Errand] = deque()
        self._arrived = asyncio.Event()

    def add(self, errand: Errand) -> None:
        """Put an errand behind the others."""
        self._errands.append(errand)
        self._arrived.set()

    async def work(self) -> None:
        """Run errands until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            errand = await self._next()
            try:
                await errand()
            except (StoreUnavailable, WriteDelayed, WriteFailed) as error:
                _log.warning("events from Discord wait, %d so far: %s", len(self._errands), error)
                self._drop_oldest()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            except Exception:
                _log.exception("an event from Discord was not handled")
            self._errands.popleft()
            pause = _FIRST_PAUSE

    async def _next(self) -> Errand:
        while not self._errands:
            self._arrived.clear()
            await self._arrived.wait()
        return self._errands[0]

    def _drop_oldest(self) -> None:
        while len(self._errands) > _LIMIT:
            self._errands.popleft()
            _log.error("an event from Discord was dropped: more than %d wait", _LIMIT)
