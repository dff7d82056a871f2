"""One attempt at the answer of a turn, and the tokens that it uses."""

from __future__ import annotations

import asyncio

from bot.domain import Delta, Exchange, Reading, Shown, Turn, Used
from bot.tokens.counters import estimate
from bot.turns.context import TurnContext
from bot.turns.lease import Lease

RETRY_WHILE_BLOCKING_SECONDS = 15.0  # in which a failing model may block the thread's next turn


class Attempt:
    """The state of an answer that is written under a lease.

    `shown` was saved last, at first by an earlier attempt. `wrote` is True if a write to the
    platform may have been sent. After the end, `superseded_turn_id` is the turn whose reply is no
    longer the thread's newest one, or empty. `began_at` is in loop time.
    """

    def __init__(
        self, lease: Lease, *, blocking_seconds: float = RETRY_WHILE_BLOCKING_SECONDS
    ) -> None:
        self.lease = lease
        self.began_at = asyncio.get_running_loop().time()
        self.shown = lease.taken.shown
        self.context = TurnContext(lease.turn.quote, lease.turn.context)
        self.meter = Meter(lease.taken.used)
        self.wrote = False
        self.superseded_turn_id = ""
        self._may_block_until = self.began_at + blocking_seconds

    @property
    def turn(self) -> Turn:
        """The turn that is answered."""
        return self.lease.turn

    async def save(self, shown: Shown) -> None:
        """Save the reply before it is written. Raises LeaseLost and QuestionEdited."""
        self.wrote, self.shown = True, shown
        await self.lease.save(shown, used=self.meter.tokens)

    async def save_context(self, context: TurnContext) -> None:
        """Save the messages of others in the prompt. Raises LeaseLost."""
        self.context = context
        await self.lease.save_context(context.quote, context.messages or ())

    async def before_retry(self, error: Exception) -> None:
        """Raise the error of a failing model if it has blocked the thread's next turn too long."""
        is_late = asyncio.get_running_loop().time() >= self._may_block_until
        if is_late and await self.lease.blocks_others():
            raise error

    async def finish(self, shown: Shown, exchange: Exchange | None) -> None:
        """End the turn. Raises LeaseLost and QuestionEdited."""
        used = self.meter.tokens
        self.superseded_turn_id = await self.lease.finish(shown, exchange, used=used)


class Meter:
    """Counts the tokens that a turn uses, `before` by earlier attempts.

    They are estimated if the server does not report them or the answer did not end.
    """

    def __init__(self, before: int = 0) -> None:
        self._before = before
        self._read = self._written = 0  # by ended attempts at a model
        self._under_way = Used(0, 0)
        self._texts: list[str] = []  # not counted yet in the running attempt

    @property
    def used(self) -> Used:
        """What this attempt at the turn has read and written so far."""
        now = self._under_way
        unseen = estimate("".join(self._texts)) if self._texts else 0
        return Used(self._read + now.read, self._written + now.written + unseen)

    @property
    def tokens(self) -> int:
        """Tokens read and written so far, earlier attempts included."""
        return self._before + self.used.read + self.used.written

    def note(self, delta: Delta) -> None:
        """Count a delta."""
        if isinstance(delta, str):
            self._texts.append(delta)
        elif isinstance(delta, Reading):
            self._read, self._written = self.used.read, self.used.written
            self._texts.clear()
            self._under_way = Used(delta.tokens, 0)
        elif isinstance(delta, Used):
            # A server without counts sends zeros.
            self._under_way = Used(delta.read or self._under_way.read, delta.written)
            if delta.written:
                self._texts.clear()
