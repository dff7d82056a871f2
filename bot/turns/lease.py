"""The right to work on one turn, renewed until the work is done."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter

from bot.domain import Exchange, Shown, Turn
from bot.errors import StoreUnavailable
from bot.turns.queue import Taken, TurnQueue

_ENDED = Counter("parley_turns_total", "Turns that ended in this process", ["platform", "outcome"])

# Seconds before a finish is repeated while the store is away; doubles up to the longest.
_PAUSE = 0.2
_LONGEST_PAUSE = 2.0


class Lease:
    """A taken turn as its worker sees it.

    Only a fence that the store refuses ends the work, as LeaseLost: while the store is away the
    reply goes on, and is saved afterwards.
    `stop` is set when a person asked for the end; `wrote` tells that a write may have gone out, and
    `ending` that the end is being stored.
    `shown` is as last saved, at first by an earlier try.
    """

    def __init__(self, *, queue: TurnQueue, taken: Taken, seconds: float) -> None:
        self._queue = queue
        self._store = queue.store
        self._seconds = seconds
        self.taken = taken
        self.stop = asyncio.Event()
        self.wrote = False
        self.ending = False
        self.shown = taken.shown
        if taken.stop:
            self.stop.set()

    @property
    def turn(self) -> Turn:
        """The turn that this lease is about."""
        return self.taken.turn

    async def keep(self) -> None:
        """Renew until cancelled, three times in each lease. Raises LeaseLost."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                self._heed(await self._queue.renew(self.taken))
            except StoreUnavailable as error:
                self._store.note_away(error)

    async def save(self, shown: Shown) -> None:
        """Remember what is on the screen, and prove that we may still write. Raises LeaseLost."""
        self.wrote = True
        self.shown = shown
        if self._store.is_away:
            return
        try:
            self._heed(await self._queue.save(self.taken, shown))
        except StoreUnavailable as error:
            self._store.note_away(error)

    async def finish(self, shown: Shown, exchange: Exchange | None) -> None:
        """End the turn, however long the store is away. Raises LeaseLost."""
        self.ending = True
        pause = _PAUSE
        while True:
            try:
                await self._queue.finish(self.taken, shown, exchange)
            except StoreUnavailable as error:
                self._store.note_away(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                _ENDED.labels(self.turn.key.platform, shown.outcome).inc()
                return

    def _heed(self, stop: bool) -> None:
        if stop:
            self.stop.set()
