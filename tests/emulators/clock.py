"""The time that limits, expiry and retries run by: real seconds, and those that a test adds."""

from __future__ import annotations

import asyncio
import contextlib
import time


class Clock:
    """A clock that goes by itself and can be put forward; the emulators of a test may share one.

    Only rules look at it: how long a rate limit, a token, a stream or an interaction lasts and when
    Slack tells again. Ids, timestamps, latency and records stay on real time, for the bot compares
    them with its own clock.
    """

    def __init__(self) -> None:
        self._ahead = 0.0  # seconds
        self._moved = asyncio.Event()

    def now(self) -> float:
        """Return the seconds since an arbitrary moment."""
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let that much time be over at once; who sleeps on this clock wakes when it is due."""
        self._ahead += seconds
        self._moved.set()
        self._moved = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Return when that much time is over on this clock."""
        due = self.now() + seconds
        while (left := due - self.now()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._moved.wait()
