"""Small work beside an event, for which nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

_LAST = 3.0  # seconds in which errands may still end at shutdown


class Errands:
    """Keeps what was started until it has ended; an errand reports its own failures."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Errands]:
        """Let what is under way end, within seconds, before this returns."""
        try:
            yield self
        finally:
            if self._running:
                await asyncio.wait(self._running, timeout=_LAST)
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Do this work beside the caller."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
