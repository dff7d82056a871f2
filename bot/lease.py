"""The right to work on one turn, renewed until the work is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from prometheus_client import Counter

from bot.domain import Exchange, Outcome, Turn
from bot.errors import StoreUnavailable
from bot.turns import Taken, TurnQueue

log = logging.getLogger(__name__)

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
    `pages`, `shown` and `cuts` are as last saved, at first by an earlier try; see Taken.
    """

    def __init__(self, *, queue: TurnQueue, taken: Taken, seconds: float) -> None:
        self._queue = queue
        self._seconds = seconds
        self.taken = taken
        self.stop = asyncio.Event()
        self.wrote = False
        self.ending = False
        self.pages = taken.pages
        self.shown = taken.shown
        self.cuts = taken.cuts
        self._away = False  # a store that hangs takes seconds to say so: not for every write again
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
                self._away = False
            except StoreUnavailable as error:
                self._is_away(error)

    async def save(self, pages: Sequence[str], shown: str, cuts: Sequence[int]) -> None:
        """Remember what is on the screen, and prove that we may still write. Raises LeaseLost."""
        self.wrote = True
        self.pages, self.shown, self.cuts = tuple(pages), shown, tuple(cuts)
        if self._away:
            return
        try:
            self._heed(await self._queue.save(self.taken, pages=pages, shown=shown, cuts=cuts))
        except StoreUnavailable as error:
            self._is_away(error)

    async def finish(
        self, *, outcome: Outcome, pages: Sequence[str], shown: str, exchange: Exchange | None
    ) -> None:
        """End the turn, however long the store is away. Raises LeaseLost."""
        self.ending = True
        pause = _PAUSE
        while True:
            try:
                await self._queue.finish(
                    self.taken,
                    outcome=outcome,
                    pages=pages,
                    shown=shown,
                    cuts=self.cuts,
                    exchange=exchange,
                )
            except StoreUnavailable as error:
                self._is_away(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                _ENDED.labels(self.turn.key.platform, outcome).inc()
                return

    def _is_away(self, error: StoreUnavailable) -> None:
        if not self._away:
            log.warning("A turn goes on without the store: %s", error)
        self._away = True

    def _heed(self, stop: bool) -> None:
        if stop:
            self.stop.set()
