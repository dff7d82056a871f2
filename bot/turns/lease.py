"""The lease of a turn, and the attempt at its answer that it allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypedDict

from bot.access.quotas import Prices
from bot.concurrency import Backoff, running
from bot.domain import (
    Consent,
    ConsentNeeded,
    ContextMessage,
    Exchange,
    FileRef,
    FileText,
    Page,
    Shown,
    Thought,
    Turn,
)
from bot.errors import QuestionEdited, StoreUnavailable
from bot.tokens.counters import Meter
from bot.turns.context import TurnContext
from bot.turns.queue import Taken, TurnLeases
from bot.turns.records import write_bill

RETRY_WHILE_BLOCKING_SECONDS = 15.0  # in which a failing model may block the thread's next turn


class _Use(TypedDict):
    used: int
    bill: str


class Lease:
    """The right of a worker to answer a turn that it has taken.

    The work ends early for two reasons only: with LeaseLost if the store refuses the fence, and
    with QuestionEdited. While the store is away, nothing is saved and the work continues.

    `stop`: no more deltas are read, because a person has asked for the end, or has edited the
    question. `news` is set if a stop or an edit was announced; a renewal follows at once and
    returns which. `is_finishing` is True from the beginning of `finish` on.
    """

    def __init__(
        self,
        *,
        leases: TurnLeases,
        taken: Taken,
        seconds: float,
        finish_retry: Backoff,
        prices: Prices | None = None,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self.taken = taken
        self.stop = asyncio.Event()
        self.news = asyncio.Event()
        self.is_finishing = False
        self.meter = Meter(taken.bill)
        self._prices = prices or Prices()
        self._leases = leases
        self._seconds = seconds
        self._finish_retry = finish_retry
        self._sleep = sleep
        self._saved_thought: Thought | None = taken.thought
        self._set_stop(taken.stop)

    @property
    def turn(self) -> Turn:
        """The turn that is leased."""
        return self.taken.turn

    async def renew_until_cancelled(self) -> None:
        """Renew three times per lease and when `news` is set.

        Raises LeaseLost and QuestionEdited.
        """
        while True:
            pause, news = self._sleep(self._seconds / 3), self.news.wait()
            async with running(pause) as pausing, running(news) as waiting:
                await asyncio.wait((pausing, waiting), return_when=asyncio.FIRST_COMPLETED)
            self.news.clear()
            try:
                with self._noting_away():
                    self._set_stop(await self._leases.renew(self.taken, **self._use()))
            except QuestionEdited:
                # The next save raises the same error.
                self.stop.set()
                raise

    async def save(self, shown: Shown) -> None:
        """Save the reply, and the tokens used so far, if this worker may still write.

        Raises LeaseLost and QuestionEdited.
        """
        if self._leases.store.is_away:
            return
        with self._noting_away():
            new = self._without_saved(shown)
            self._set_stop(await self._leases.save(self.taken, new, **self._use()))
            self._saved_thought = shown.thought

    async def save_used(self) -> None:
        """Save the tokens used so far, before the model is asked. Raises LeaseLost."""
        if self._leases.store.is_away:
            return
        with self._noting_away():
            await self._leases.save_used(self.taken, **self._use())

    async def save_context(
        self, quote: ContextMessage | None, messages: tuple[ContextMessage, ...]
    ) -> None:
        """Save the messages of others in the prompt. Raises LeaseLost."""
        if self._leases.store.is_away:
            return
        with self._noting_away():
            await self._leases.save_context(self.taken, quote, messages)

    async def save_file(self, file: FileRef, text: FileText) -> None:
        """Save what was read of a file. Raises LeaseLost."""
        if self._leases.store.is_away:
            return
        with self._noting_away():
            await self._leases.save_file(self.taken, file.message, file.id, text)

    async def save_step(
        self, name: str, text: str, *, effect: str = "", counts: bool = False
    ) -> None:
        """Save a text of the journal before what it says is done.

        Never returns after a stop: the reply ends then. Raises LeaseLost, QuestionEdited,
        StoreUnavailable and QuotaUsed.
        """
        if await self._leases.save_step(
            self.taken, name, text, effect=effect, counts=counts, **self._use()
        ):
            self.stop.set()
            await asyncio.get_running_loop().create_future()

    async def close_consent(self, call_id: str, consent: Consent) -> str:
        """Store an answer for a call unless there is one, and return what is stored.

        Raises LeaseLost and StoreUnavailable.
        """
        return await self._leases.close_consent(self.taken, call_id, consent)

    async def suspend(self, call_id: str, *, seconds: float) -> None:
        """Give the turn back until a person has answered for a call, or for some seconds.

        Raises LeaseLost and StoreUnavailable.
        """
        await self._leases.suspend(self.taken, call_id, seconds=seconds, **self._use())

    async def blocks_others(self) -> bool:
        """Return whether another turn waits in the thread; False if the store is away."""
        with suppress(StoreUnavailable):
            return await self._leases.others_wait(self.taken)
        return False

    async def finish(self, shown: Shown, exchange: Exchange | None, *, model: str = "") -> str:
        """End the turn, which `model` has answered; retries while the store is away.

        Return the turn whose reply is no longer the thread's newest one, or "". Raises LeaseLost
        and QuestionEdited.
        """
        self.is_finishing = True
        pauses = self._finish_retry.pauses()
        while True:
            try:
                use, shown = self._use(), self._without_saved(shown)
                return await self._leases.finish(self.taken, shown, exchange, **use, model=model)
            except StoreUnavailable as error:
                self._leases.store.note_away(error)
                await self._sleep(next(pauses))

    async def give_back(self, *, delay_seconds: float = 0.0, counts: bool = False) -> None:
        """Return the turn to the queue; `counts` if the attempt has failed."""
        await self._leases.release(
            self.taken, delay_seconds=delay_seconds, counts=counts, **self._use()
        )

    def _without_saved(self, shown: Shown) -> Shown:
        """Return what is shown without a thought that was saved: it can be longer than the text."""
        return replace(shown, thought=None) if shown.thought == self._saved_thought else shown

    def _use(self) -> _Use:
        bill = self.meter.bill
        return {"used": bill.tokens, "bill": write_bill(bill, self._prices)}

    @contextmanager
    def _noting_away(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable as error:
            self._leases.store.note_away(error)

    def _set_stop(self, stop: bool) -> None:
        if stop:
            self.stop.set()


class Attempt:
    """The state of an answer that is written under a lease.

    `shown` was saved last, at first by an earlier attempt. `wrote` is True if a write to the
    platform may have been sent. After the end, `superseded_turn_id` is the turn whose reply is no
    longer the thread's newest one, or empty, and `unclosed` a page that was cut to go on below.
    `began_at` is in loop time. `files` are by their ids
    those of the prompt, if the model has seen pictures of the question. `consent` is the call for
    which the turn has to wait.
    """

    def __init__(
        self, lease: Lease, *, blocking_seconds: float = RETRY_WHILE_BLOCKING_SECONDS
    ) -> None:
        self.lease = lease
        self.began_at = asyncio.get_running_loop().time()
        self.shown = lease.taken.shown
        self.context = TurnContext(lease.turn.quote, lease.turn.context)
        self.meter = lease.meter
        self.files: Mapping[str, FileText] = {}
        self.consent: ConsentNeeded | None = None
        self.wrote = False
        self.superseded_turn_id = ""
        self.unclosed: Page | None = None
        self._may_block_until = self.began_at + blocking_seconds

    @property
    def turn(self) -> Turn:
        """The turn that is answered."""
        return self.lease.turn

    async def save(self, shown: Shown) -> None:
        """Save the reply before it is written. Raises LeaseLost and QuestionEdited."""
        self.wrote, self.shown = True, shown
        await self.lease.save(shown)

    async def save_context(self, context: TurnContext) -> None:
        """Save the messages of others in the prompt. Raises LeaseLost."""
        self.context = context
        await self.lease.save_context(context.quote, context.messages or ())

    async def before_retry(self, error: Exception) -> None:
        """Raise the error of a failing model if it has blocked the thread's next turn too long."""
        is_late = asyncio.get_running_loop().time() >= self._may_block_until
        if is_late and await self.lease.blocks_others():
            raise error

    async def finish(self, shown: Shown, exchange: Exchange | None, *, model: str) -> None:
        """End the turn, which `model` has answered. Raises LeaseLost and QuestionEdited."""
        self.superseded_turn_id = await self.lease.finish(shown, exchange, model=model)
