"""The right to work on one turn, renewed until the work is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from bot.concurrency import Backoff
from bot.domain import Exchange, Shown, Turn
from bot.errors import StoreUnavailable
from bot.turns.queue import Taken, TurnLeases

_ENDED = Counter("parley_turns_total", "Turns that ended in this process", ["platform", "outcome"])


class Lease:
    """A taken turn, for its worker.

    Only a fence that the store refuses ends the work, with LeaseLost. While the store is away, the
    reply goes on and is saved afterwards. `stop` is set if a person asked for the end. `wrote` is
    True if a write may have gone out, and `ending` while the end is stored. `shown` is as last
    saved, at first by an earlier attempt.
    """

    def __init__(
        self,
        *,
        leases: TurnLeases,
        taken: Taken,
        seconds: float,
        finish_retry: Backoff,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._leases = leases
        self._seconds = seconds
        self._finish_retry = finish_retry
        self._sleep = sleep
        self.taken = taken
        self.stop = asyncio.Event()
        self.wrote = False
        self.ending = False
        self.shown = taken.shown
        self._set_stop(taken.stop)

    @property
    def turn(self) -> Turn:
        """The turn that is leased."""
        return self.taken.turn

    async def renew_until_cancelled(self) -> None:
        """Renew three times per lease. Raises LeaseLost."""
        while True:
            await self._sleep(self._seconds / 3)
            try:
                self._set_stop(await self._leases.renew(self.taken))
            except StoreUnavailable as error:
                self._leases.store.note_away(error)

    async def save(self, shown: Shown) -> None:
        """Save what is shown and check that this worker may still write. Raises LeaseLost."""
        self.wrote = True
        self.shown = shown
        if self._leases.store.is_away:
            return
        try:
            self._set_stop(await self._leases.save(self.taken, shown))
        except StoreUnavailable as error:
            self._leases.store.note_away(error)

    async def finish(self, shown: Shown, exchange: Exchange | None) -> None:
        """End the turn; retries for as long as the store is away. Raises LeaseLost."""
        self.ending = True
        for pause in self._finish_retry.pauses():
            try:
                await self._leases.finish(self.taken, shown, exchange)
            except StoreUnavailable as error:
                self._leases.store.note_away(error)
                await self._sleep(pause)
            else:
                _ENDED.labels(self.turn.key.platform, shown.outcome).inc()
                return

    def _set_stop(self, stop: bool) -> None:
        if stop:
            self.stop.set()
