"""Answers a turn under its lease: history, prompt, model, reply, end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import replace
from functools import partial
from typing import Any

from prometheus_client import Counter

from bot.concurrency import Backoff, empty_stream, prefetch, running
from bot.domain import (
    ContextMessage,
    ContextUnread,
    Delta,
    Exchange,
    Page,
    Reading,
    Shown,
    Turn,
    Used,
)
from bot.errors import GivenUp, MessageGone, QuestionEdited, StoreUnavailable, WriteRefused
from bot.ports import Model, Platform, Surface
from bot.reply.draft import Draft, given_up, shortened
from bot.reply.edit_budget import EditBudgets
from bot.reply.freshness import Freshness
from bot.reply.writer import Callbacks, Reply, ReplyTiming, apologize, restore, take_buttons_away
from bot.text.prompt import SystemPrompt, compose
from bot.tokens.counters import estimate
from bot.turns.context import complete_context
from bot.turns.queue import Taken, TurnLeases
from bot.turns.records import History

log = logging.getLogger(__name__)

_ENDED = Counter("parley_turns_total", "Turns that ended in this process", ["platform", "outcome"])
RETRY_WHILE_BLOCKING_SECONDS = 15.0  # in which a failing model may block the thread's next turn
_Opening = AbstractAsyncContextManager[Surface]


class Lease:
    """The right of a worker to answer a turn that it has taken, and the state of the answer.

    The work ends early for two reasons only: with LeaseLost if the store refuses the fence, and
    with QuestionEdited. While the store is away, the reply continues and is saved afterwards.

    `stop` is set if a person has asked for the end. `news` is set if a stop or an edit was
    announced; a renewal follows at once and returns which. `wrote` is True if a write to the
    platform may have been sent, and `is_finishing` from the beginning of `finish` on. `shown` and
    `context` were saved last, at first by an earlier attempt; the context is None if it was not
    read yet, and `context_unread` if that failed. `quote` is the message to which the question
    replies. After the end, `superseded_turn_id` is the turn whose reply is no longer the thread's
    newest one, or empty. `began_at` is in loop time.
    """

    def __init__(
        self,
        *,
        leases: TurnLeases,
        taken: Taken,
        seconds: float,
        finish_retry: Backoff,
        blocking_seconds: float = RETRY_WHILE_BLOCKING_SECONDS,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._leases = leases
        self._seconds = seconds
        self._finish_retry = finish_retry
        self._sleep = sleep
        self.began_at = asyncio.get_running_loop().time()
        self._may_block_until = self.began_at + blocking_seconds
        self.taken = taken
        self.stop = asyncio.Event()
        self.news = asyncio.Event()
        self.wrote = False
        self.is_finishing = False
        self.shown = taken.shown
        self.superseded_turn_id = ""
        self.quote, self.context = taken.turn.quote, taken.context
        self.context_unread = False
        self.meter = Meter(taken.used)
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
                    self._set_stop(await self._leases.renew(self.taken))
            except QuestionEdited:
                # The answer reads no further deltas, and its next save raises the same error.
                self.stop.set()
                raise

    async def save(self, shown: Shown) -> None:
        """Save the reply and check that this worker may still write.

        Raises LeaseLost and QuestionEdited.
        """
        self.wrote = True
        self.shown = shown
        if self._leases.store.is_away:
            return
        with self._noting_away():
            used = self.meter.tokens
            self._set_stop(await self._leases.save(self.taken, shown, used=used))

    async def before_retry(self, error: Exception) -> None:
        """Raise the error of a failing model if it has blocked the thread's next turn too long."""
        if asyncio.get_running_loop().time() < self._may_block_until:
            return
        with suppress(StoreUnavailable):
            if await self._leases.others_wait(self.taken):
                raise error

    async def save_context(
        self, quote: ContextMessage | None, context: Sequence[ContextMessage]
    ) -> None:
        """Save the messages of others in the prompt. Raises LeaseLost."""
        self.quote, self.context = quote, tuple(context)
        if self._leases.store.is_away:
            return
        with self._noting_away():
            await self._leases.save_context(self.taken, quote, context)

    async def note_speakers(self, *people: str) -> int:
        """Note people, by ids, as speakers of the thread; return how many are known.

        Raises StoreUnavailable.
        """
        return await self._leases.note_speakers(self.turn.key, *people)

    async def withheld(self, turn_ids: Sequence[str]) -> set[str]:
        """Return the turns that are excluded from the context. Raises StoreUnavailable."""
        return await self._leases.withheld(turn_ids) if turn_ids else set()

    async def finish(self, shown: Shown, exchange: Exchange | None) -> None:
        """End the turn; retries while the store is away.

        Raises LeaseLost and QuestionEdited.
        """
        self.is_finishing = True
        for pause in self._finish_retry.pauses():
            try:
                self.superseded_turn_id = await self._leases.finish(
                    self.taken, shown, exchange, used=self.meter.tokens
                )
            except StoreUnavailable as error:
                self._leases.store.note_away(error)
                await self._sleep(pause)
            else:
                return

    @contextmanager
    def _noting_away(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable as error:
            self._leases.store.note_away(error)

    def _set_stop(self, stop: bool) -> None:
        if stop:
            self.stop.set()


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


class Conversation:
    """Answers turns that a worker has taken.

    Saved texts are read up to `longest` characters, which is more than an answer has. Methods that
    open a surface raise SurfaceError, StoreUnavailable, LeaseLost and QuestionEdited; the turn has
    then not ended.
    """

    def __init__(
        self,
        *,
        history: History,
        model: Model,
        budgets: EditBudgets,
        system_prompt: SystemPrompt,
        patience: float,
        longest: int,
        thread_context: int,
    ) -> None:
        self._history = history
        self._model = model
        self._budgets = budgets
        self._system_prompt = system_prompt
        self._patience = patience
        self._longest = longest
        self._thread_context = thread_context

    async def answer(self, lease: Lease, opening: _Opening, platform: Platform) -> None:
        """Show the model's answer, or the whole saved text, and end the turn."""
        earlier = self._earlier(lease)
        answer = nullcontext(empty_stream()) if earlier.outcome else self._deltas(lease, platform)
        # The model computes while the platform opens the surface.
        async with answer as deltas, opening as surface:
            reply = self._reply(lease, surface, earlier)
            await self._finish(lease, await reply.stream(deltas), reply.freshness)

    async def end_with_apology(self, lease: Lease, opening: _Opening) -> None:
        """Show an apology instead of further attempts and end the turn as dead."""
        # A whole text that no attempt could show is dropped.
        earlier = replace(self._earlier(lease), outcome="")
        async with opening as surface:
            reply = self._reply(lease, surface, earlier)
            await self._finish(lease, await reply.stream(_no_answer()), reply.freshness)

    async def end_refused(self, lease: Lease) -> None:
        """End a turn as failed, with the text that is shown, if the platform refuses more.

        The previous answer stays remembered unless a whole new one has replaced it. Raises
        LeaseLost.
        """
        shown, previous = self._earlier(lease), self._previous_answer(lease)
        if previous and not shown.outcome:
            shown = replace(shown, text=shown.text or previous, said="")
        await self._finish_unseen(lease, replace(shown, outcome="failed", end="failed"))

    async def end_unshown(self, lease: Lease) -> None:
        """End a turn as dead, with a text that a repair will show. Raises LeaseLost.

        That is the whole text if an earlier attempt has saved it, or an apology.
        """
        earlier = self._earlier(lease)
        shown = earlier if earlier.outcome else given_up(earlier, self._previous_answer(lease))
        await self._finish_unseen(lease, replace(shown, outcome="dead"))

    async def apologize(self, surface: Surface) -> str:
        """Post an apology alone and return its message id. Raises SurfaceError."""
        return await apologize(surface=surface, budgets=self._budgets, patience=self._patience)

    async def restore(self, result: Shown, surface: Surface, *, late_writes: Sequence[str]) -> None:
        """Write an ended reply again and delete late messages that are not part of it.

        A reply whose text was forgotten stays as it is. Raises SurfaceError.
        """
        for message_id in late_writes:
            if message_id not in result.message_ids:
                with suppress(MessageGone, WriteRefused):
                    await surface.edit(message_id, Page(0, "", final=True))
        if not result.text:
            return
        result = shortened(result, self._longest)
        await restore(result, surface=surface, budgets=self._budgets, patience=self._patience)

    async def take_buttons_away(self, result: Shown, surface: Surface) -> bool:
        """Write a superseded reply without buttons; False if there is no spare slot for it.

        Raises SurfaceError.
        """
        result = shortened(result, self._longest)
        return await take_buttons_away(result, surface=surface, budgets=self._budgets)

    @asynccontextmanager
    async def _deltas(
        self, lease: Lease, platform: Platform
    ) -> AsyncIterator[AsyncGenerator[Delta]]:
        """Ask the model at once, before the first delta is read."""
        remembered = [
            replace(one, answer=one.answer[: self._longest])
            for one in await self._history.read(lease.turn.key)
        ]
        asking = partial(self._ask, lease, platform, remembered)
        async with prefetch(asking, note=lease.meter.note) as deltas:
            yield deltas

    async def _ask(
        self, lease: Lease, platform: Platform, remembered: Sequence[Exchange]
    ) -> AsyncGenerator[Delta]:
        """Read messages of others if needed, and ask the model. Raises ModelError and LeaseLost."""
        await complete_context(
            lease,
            platform,
            remembered,
            most=self._thread_context,
            is_seen=partial(self._history.is_seen, lease.turn.key),
        )
        prompt = compose(
            system=self._system_prompt.for_turn(lease.turn),
            # A regenerated turn is in the history.
            exchanges=[one for one in remembered if one.turn_id != lease.turn.id],
            turn=replace(lease.turn, quote=lease.quote),
            context=lease.context or (),
            zone=self._system_prompt.zone(lease.turn),
        )
        model = self._model.chosen(lease.turn.preferences)
        deltas = model.stream(prompt)
        return _noting_unread(deltas) if lease.context_unread else deltas

    async def _claims_truncation_notice(self, turn: Turn) -> bool:
        with suppress(StoreUnavailable):
            return await self._history.claim_truncation_notice(turn.key, turn.id)
        return False

    def _reply(self, lease: Lease, surface: Surface, earlier: Shown) -> Reply:
        return Reply(
            turn_id=lease.turn.id,
            surface=surface,
            budgets=self._budgets,
            draft=Draft(
                limit=surface.limit,
                measure=surface.measure,
                earlier=earlier,
                replaced_answer=self._previous_answer(lease),
                left_out=lease.turn.left_out,
                remembered=self._history.remembers,
            ),
            callbacks=Callbacks(
                save=lease.save,
                before_retry=lease.before_retry,
                claims_truncation_notice=partial(self._claims_truncation_notice, lease.turn),
            ),
            stop=lease.stop,
            timing=ReplyTiming(patience=self._patience),
        )

    def _earlier(self, lease: Lease) -> Shown:
        return shortened(lease.shown, self._longest)

    def _previous_answer(self, lease: Lease) -> str:
        return lease.taken.previous_answer[: self._longest]

    async def _finish_unseen(self, lease: Lease, shown: Shown) -> None:
        if not shown.message_ids:
            # The first post failed after its text was saved: nothing is shown.
            shown = replace(shown, text="", said="")
        await self._finish(lease, shown)

    async def _finish(self, lease: Lease, shown: Shown, freshness: Freshness | None = None) -> None:
        turn = lease.turn
        model = shown.model or self._model.chosen(turn.preferences).name
        exchange = Exchange(
            turn_id=turn.id,
            person=turn.person,
            asked_at=turn.asked_at,
            question=turn.text,
            answer=shown.said,
            quote=lease.quote,
            context=lease.context or (),
            model=model,
        )
        await lease.finish(shown, exchange if shown.said.strip() else None)
        _report_end(lease, shown, model=model, freshness=freshness)


async def _noting_unread(deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Delta]:
    async with aclosing(deltas):
        yield ContextUnread()
        async for delta in deltas:
            yield delta


async def _no_answer() -> AsyncGenerator[Delta]:
    raise GivenUp("every attempt at this turn failed")
    yield ""


def _report_end(lease: Lease, shown: Shown, *, model: str, freshness: Freshness | None) -> None:
    """Count an ended turn, and log its figures: ids and numbers, never message text.

    Times are in seconds since the turn was admitted. Figures of earlier attempts are not included.
    The log record has the figures as an attribute, for logs in JSON.
    """
    taken, turn, key = lease.taken, lease.turn, lease.turn.key
    _ENDED.labels(key.platform, shown.outcome).inc()
    figures: dict[str, str | int | float] = {
        "platform": key.platform,
        "server": key.workspace,
        "channel": key.channel,
        "person": turn.person.id,
        "model": model,
        "outcome": shown.outcome,
        "tries": taken.attempts,
        "waited": round(taken.waited, 3),
    }
    since = lease.began_at - taken.waited
    if freshness and freshness.first_text_at:
        figures["first_text"] = round(freshness.first_text_at - since, 3)
    figures["seconds"] = round(asyncio.get_running_loop().time() - since, 3)
    used = lease.meter.used
    figures |= {"read": used.read, "written": used.written}
    if freshness:
        figures |= {"writes": freshness.writes, "limited": freshness.limited}
    written = " ".join(f"{name}={value}" for name, value in figures.items() if value != "")
    log.info("Turn %s ended: %s", turn.id, written, extra={"figures": figures})
