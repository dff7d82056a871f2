"""The single writer of a reply: deltas become pages, pages are posted and edited."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from bot.concurrency import Backoff, cancelled
from bot.domain import (
    BeginningLeftOut,
    ConsentNeeded,
    ContextUnread,
    Delta,
    EditBudget,
    FilesRead,
    LeftOut,
    Page,
    ReadingFiles,
    Retrying,
    Shown,
    Start,
    StepNotes,
)
from bot.errors import (
    AnswerCut,
    GivenUp,
    MessageGone,
    ModelError,
    PlaceGone,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.ports import Surface
from bot.reply.draft import Draft, Ending, Screen, fitted, is_needed
from bot.reply.edit_budget import EditBudgets
from bot.reply.freshness import Freshness
from bot.text.files import left_out_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplyTiming:
    """How long a reply waits, in seconds."""

    patience: float = 30.0  # in which final writes are repeated
    # People wait for about ten seconds without wondering (Nielsen, "Response Times: The 3 Important
    # Limits"). Before the first word the platform shows a sign of work.
    silence: float = 10.0  # without a delta, until a sign of life
    first_silence: float = 20.0  # without the first delta
    unseen_silence: float = 2.0  # the same if nothing else shows that the bot is working
    busy_silence: float = 6.0  # without a delta, while a model that has failed is asked again
    sign_pause: float = 1.0  # until a sign of life that found no spare slot is tried again
    repeat: Backoff = Backoff(first=0.5, longest=30.0)  # of failed writes
    longest_edit: float = 5.0  # until the rest of an answer is posted below, if that is possible
    free_post: float = 1.0  # in which a post counts as free, because several may turn to posts
    closing: float = 5.0  # in which the page above such a rest is closed, before the turn ends


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a reply asks of the turn that it answers.

    `save` is called before each write and after each post. It raises LeaseLost if another process
    writes this reply now and QuestionEdited if the question has changed, and otherwise saves what
    is shown. So the end is saved before the first write that shows it, and an attempt that finds an
    end only writes that. `before_retry` is called before a failing model is asked again; it raises
    the model's error to end the reply instead. `claims_truncation_notice` returns whether this
    reply notes that the model no longer reads the beginning of the conversation.
    """

    save: Callable[[Shown], Awaitable[None]]
    before_retry: Callable[[Exception], Awaitable[None]]
    claims_truncation_notice: Callable[[], Awaitable[bool]]


class Reply:
    """The text growing from deltas, on its surface; `freshness` has the figures.

    `unclosed` is a page whose rest is below it, which still has the buttons of a growing one.
    """

    def __init__(
        self,
        *,
        turn_id: str,
        surface: Surface,
        budgets: EditBudgets,
        draft: Draft,
        callbacks: Callbacks,
        stop: asyncio.Event,
        timing: ReplyTiming,
    ) -> None:
        self._turn_id = turn_id
        self._surface = surface
        self._budgets = budgets
        self._screen = Screen(draft.earlier)
        self._draft = draft
        self._callbacks = callbacks
        self._stop = stop
        self._timing = timing
        platform = turn_id.partition(":")[0]
        self.freshness = Freshness(platform, asyncio.get_running_loop().time())
        self.unclosed: Page | None = None
        self._last_delta_at = 0.0  # loop time of the last delta, or of the beginning
        self._stale_since: float | None = None  # loop time of the first news not on the screen
        self._sign_after = 0.0  # loop time of the next try to show a sign of life
        self._wrote_at = -math.inf  # loop time of the last write
        self._failures = 0  # of writes, since the last one that succeeded
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        draft.thoughts.heard = self._note_thinking

    async def stream(self, deltas: AsyncGenerator[Delta]) -> Shown:
        """Show deltas as they arrive, then the whole text.

        After a ConsentNeeded the text has no outcome: it shows what a person is asked. A ModelError
        among the deltas ends the reply with its apology. Any other error is raised, and what is
        shown stays for the next attempt. Raises what `save` raises, WriteFailed or WriteDelayed if
        the final text was not written in time, and PlaceGone or WriteRefused if even an apology is
        refused.
        """
        self._last_delta_at = asyncio.get_running_loop().time()
        if self._draft.thoughts.is_growing:
            self._note_thinking()
        # Only the task that runs this method writes, so writes can neither overlap nor overtake.
        collecting = asyncio.create_task(self._collect(deltas))
        try:
            async with self._budgets.reserving(self._left_owing()):
                try:
                    await self._write_interims()
                    # Errors other than the end of an answer are raised before a final page.
                    await collecting
                    await self._write_final()
                    if self._stop.is_set() and not self._draft.has_ended:
                        # Somebody had stopped the answer before it asked, as the save has told.
                        self._draft.end(Ending("stopped"))
                        await self._write_final()
                except (PlaceGone, WriteRefused) as refusal:
                    await cancelled(collecting)
                    await self._end_refused(refusal)
        except MessageGone:
            await cancelled(collecting)
            self._draft.end(Ending("stopped", is_deleted=True))
            await self._close_messages()
        finally:
            await cancelled(collecting)
        self.freshness.end(asyncio.get_running_loop().time())
        return self._draft.shown(self._screen.remaining)

    def _left_owing(self) -> Sequence[EditBudget]:
        """Return what an earlier attempt owed for the message that grew."""
        growing = Page(0, "", final=False)
        budget = self._surface.budget(growing, new=False) if self._screen.message_ids else None
        return budget.owes if budget else ()

    async def _collect(self, deltas: AsyncGenerator[Delta]) -> None:
        try:
            if not self._draft.has_ended:
                # An answer that is cancelled or crashes has no end to save or show.
                ending = await self._read_until_end(deltas)
                if ending.outcome != "done" or not self._draft.consent:
                    self._draft.end(ending)
        finally:
            self.freshness.text_ended_at = asyncio.get_running_loop().time()
            self._ended.set()
            self._news.set()

    async def _read_until_end(self, deltas: AsyncGenerator[Delta]) -> Ending:
        reading = asyncio.create_task(self._read(deltas))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                return Ending("stopped")
            reading.result()
        except AnswerCut as cut:
            log.info("Turn %s: the answer was cut: %s", self._turn_id, cut)
            return Ending("done", cut.apology)
        except ModelError as error:
            log.warning("Turn %s: the model failed: %s", self._turn_id, error)
            return Ending("dead" if isinstance(error, GivenUp) else "failed", error.apology)
        finally:
            await cancelled(reading, stopping)
        return Ending("done")

    async def _read(self, deltas: AsyncGenerator[Delta]) -> None:
        now = asyncio.get_running_loop().time
        async with aclosing(deltas):
            async for delta in deltas:
                match delta:  # `Meter` counts what is missing here
                    case str():
                        self._draft.add(delta)
                        self._last_delta_at = now()
                        self.freshness.add_delta(self._last_delta_at)
                        self._note_news()
                    case Start():
                        self._draft.start(delta.model)
                    case Retrying():
                        await self._callbacks.before_retry(delta.error)
                        self._draft.is_retried, self._draft.thoughts.is_growing = True, False
                        self._news.set()  # the time until a sign of life has changed
                    case LeftOut():
                        self._draft.left_out_by_model = delta.characters
                    case BeginningLeftOut():
                        claims = self._callbacks.claims_truncation_notice
                        self._draft.is_beginning_left_out = await claims()
                    case ReadingFiles():
                        self._draft.reading = delta.names
                        self._news.set()  # the time until a sign of life has changed
                    case FilesRead():
                        self._draft.files_left_out = left_out_of(delta.files)
                    case StepNotes():
                        # What is done now is shown at once: it may take long.
                        self._draft.note_steps(delta)
                        self._draft.silent = not self._surface.note_step(delta)
                        self._note_news()
                    case ConsentNeeded():
                        self._draft.consent = delta
                    case ContextUnread():
                        self._draft.is_context_unread = True

    def _note_thinking(self) -> None:
        """Let the sign of life say that the model thinks: at once where no other reply waits."""
        self._draft.is_retried = False
        growing = Page(0, "", final=False)
        budget = self._surface.budget(growing, new=not self._screen.message_ids)
        if budget and budget.own and not self._draft.has_ended:
            self._draft.silent = True
            self._note_news()
        else:
            self._news.set()  # the time until a sign of life, or its words, have changed

    def _note_news(self) -> None:
        self._stale_since = self._stale_since or asyncio.get_running_loop().time()
        self._news.set()

    async def _write_interims(self) -> None:
        while True:
            await self._wait_for_news()
            if self._ended.is_set():
                return
            if page := self._next_page():
                budget = self._budget(page)
                # Beside the platform's own sign, ours takes no slot from an answer. But the message
                # of an earlier attempt may have the buttons of a question that has its answer.
                message = self._screen.message_of(page)
                is_sign = self._draft.silent and (message is None or message.page is not None)
                if budget and not budget.own and is_sign and self._surface.shows_work:
                    await self._write_sign(budget)
                # The text is chosen when the write may go out, not when the slot was requested.
                elif budget is None or await self._budgets.interim(
                    budget,
                    new=self._screen.needs_post(page),
                    since=self._stale_since or 0.0,
                    wrote=self._wrote_at,
                    unless=self._ended,
                ):
                    async with self._budgets.few_at_once(budget):
                        await self._write_interim(budget)

    async def _write_sign(self, budget: EditBudget) -> None:
        if await self._budgets.spare(budget):
            await self._write_interim(budget)
        else:
            self._draft.silent = False
            self._sign_after = asyncio.get_running_loop().time() + self._timing.sign_pause

    async def _wait_for_news(self) -> None:
        """Wait for a delta, the end, or a silence that is long enough for a sign of life."""
        timing = self._timing
        if self._draft.is_retried:
            silence = timing.busy_silence
        elif self._draft.has_begun:
            silence = timing.silence
        else:
            # A sign of the platform does not say what is read.
            seen = self._surface.shows_work and not self._draft.reading
            silence = timing.first_silence if seen else timing.unseen_silence
        try:
            async with asyncio.timeout_at(
                None if self._draft.silent else max(self._last_delta_at + silence, self._sign_after)
            ):
                await self._news.wait()
        except TimeoutError:
            # A delta may have arrived in the same moment.
            if not self._news.is_set():
                self._draft.silent = True
                self._note_news()
        self._news.clear()

    async def _write_interim(self, budget: EditBudget | None) -> None:
        page = self._next_page()
        # If the answer has just ended, its pages are written with the patience of final ones.
        if page is None or self._ended.is_set():
            return
        if self._budget(page) != budget:
            # The slot is for another bucket. The next request keeps its position in the order.
            self._note_news()
            return
        since, self._stale_since = self._stale_since, None
        try:
            await self._write_page(page)
        except (WriteDelayed, WriteFailed) as error:
            log.info(
                "Turn %s: an interim write failed and will be repeated: %s", self._turn_id, error
            )
            self._stale_since = since
            pause = await self._pause_after(error, budget)
            # The pause does not apply if the surface now writes the page in another way.
            if self._budget(page) == budget:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._ended.wait()
        if self._next_page():
            self._note_news()

    async def _write_final(self) -> None:
        now = asyncio.get_running_loop().time
        deadline = now() + self._timing.patience
        self._failures = 0
        while page := self._next_page():
            if page.number == self._draft.split_page:
                await self._close_split(page)
                return
            budget, page = await self._slot_or_split(page, deadline)
            try:
                await self._write_page(page)
            except (WriteDelayed, WriteFailed) as error:
                pause = await self._pause_after(error, budget)
                own = (None, budget.bucket) if budget else ()
                if isinstance(error, WriteDelayed) and error.bucket in own:
                    # The next slot comes after the pause; or the rest may be posted below.
                    continue
                if now() + pause > deadline:
                    raise
                await asyncio.sleep(pause)

    async def _slot_or_split(self, page: Page, deadline: float) -> tuple[EditBudget | None, Page]:
        """Wait for the slot of a final page; return the page that may be written, and its budget.

        If an edit has to wait for long while a post is free, the page ends at what is on the
        screen, and its rest is posted. Raises WriteDelayed.
        """
        now, budget = asyncio.get_running_loop().time, self._budget(page)
        message, edit_deadline = self._screen.message_of(page), now() + self._timing.longest_edit
        visible = message and message.page
        is_split = visible and visible.said and page.text and self._draft.has_ended
        if visible and is_split and edit_deadline < deadline:
            with suppress(WriteDelayed):
                await self._budgets.final(budget, deadline=edit_deadline)
                return budget, page
            below = self._surface.budget(page, new=True)
            with suppress(WriteDelayed):
                await self._budgets.final(below, deadline=now() + self._timing.free_post)
                if self._draft.split(visible):
                    return below, self._next_page() or page
        await self._budgets.final(budget, deadline=deadline)
        return budget, page

    async def _close_split(self, page: Page) -> None:
        """Take the buttons off a page whose rest is below it, if an edit is free soon."""
        deadline = asyncio.get_running_loop().time() + self._timing.closing
        budget = self._budget(page)
        try:
            if budget:
                await self._budgets.call(budget, deadline=deadline)
            await self._write_page(page)
        except (PlaceGone, WriteRefused):
            pass
        except (WriteDelayed, WriteFailed) as error:
            await self._pause_after(error, budget)
            self.unclosed = page

    async def _end_refused(self, refusal: PlaceGone | WriteRefused) -> None:
        """Write an apology, because the platform refuses more of the text."""
        nowhere = isinstance(refusal, PlaceGone) and not self._screen.message_ids
        if nowhere or self._draft.is_apology:
            raise refusal
        log.warning("Turn %s: the platform refuses more of the reply: %s", self._turn_id, refusal)
        if self._draft.previous_answer:
            self._draft.end(Ending("failed", refusal.apology))
            await self._write_final()
            return
        last = len(self._screen.message_ids) - 1
        *edits, post = self._draft.refuse(refusal.apology, visible=self._screen.answer, last=last)
        deadline = asyncio.get_running_loop().time() + self._timing.patience
        for page in edits:
            with suppress(WriteRefused):
                await self._write_end(page, deadline)
                return
        await self._write_end(post, deadline)

    async def _write_end(self, page: Page, deadline: float) -> None:
        message = self._screen.message_of(page)
        budget = self._surface.budget(page, new=message is None)
        await self._budgets.final(budget, deadline=deadline)
        await self._save_shown()
        if message:
            await self._surface.edit(message.id, page)
        else:
            await self._post(page)

    async def _close_messages(self) -> None:
        """Remove signs of life, Stop and waiting pages from the messages that were not deleted."""
        deadline = asyncio.get_running_loop().time() + self._timing.patience
        for page in self._screen.unclosed(self._draft.pages(len(self._screen.message_ids))):
            with suppress(SurfaceError):
                await self._write_end(page, deadline)

    async def _write_page(self, page: Page) -> None:
        self._wrote_at = asyncio.get_running_loop().time()
        if not page.text:
            # The platform reports each deletion without its author, so this is saved before.
            self._screen.removed[self._screen.message_ids[page.number]] = None
        pending = self.freshness.pending()
        await self._save_shown()
        try:
            if self._screen.needs_post(page):
                await self._post(page)
            else:
                await self._edit(page)
        except SurfaceError as error:
            self.freshness.record_failure(error)
            raise
        self.freshness.record_write(pending, asyncio.get_running_loop().time())
        self._failures = 0

    async def _edit(self, page: Page) -> None:
        """Edit a page's message, or note that it is read-only. Raises SurfaceError."""
        message = self._screen.messages[page.number]
        # What the message shows is unknown until the platform has answered.
        before, message.page = message.page, None
        try:
            await self._surface.edit(message.id, page)
        except WriteDelayed:
            message.page = before
            raise
        except (MessageGone, WriteRefused) as error:
            if not is_needed(page):
                log.info("Turn %s: an old message cannot be removed: %s", self._turn_id, error)
            elif isinstance(error, MessageGone):
                message.is_deleted = True
                raise
            else:
                log.info("Turn %s: a message is read-only: %s", self._turn_id, error)
                message.is_read_only = True
                return
        self._screen.note_edited(page)

    async def _post(self, page: Page) -> None:
        """Post a page, and try to delete its read-only message. Raises SurfaceError."""
        message = self._screen.message_of(page)
        old = message.id if message else ""
        self._screen.note_posted(page, await self._surface.post(page))
        await self._save_shown()
        # A post may have reused the message of a later page.
        if old and old not in self._screen.message_ids:
            with suppress(SurfaceError):
                await self._surface.edit(old, Page(page.number, "", final=True))

    def _next_page(self) -> Page | None:
        pages = self._draft.pages(len(self._screen.message_ids))
        return self._screen.next_write(pages, last=self._draft.split_page)

    def _budget(self, page: Page) -> EditBudget | None:
        return self._surface.budget(page, new=self._screen.needs_post(page))

    async def _save_shown(self) -> None:
        shown = self._draft.shown(self._screen.message_ids)
        await self._callbacks.save(replace(shown, removed=tuple(self._screen.removed)))

    async def _pause_after(self, error: SurfaceError, budget: EditBudget | None) -> float:
        """Return the seconds until a write is repeated. A delay pauses the bucket for all."""
        if isinstance(error, WriteDelayed):
            await self._budgets.pause_after(error, budget)
            return error.retry_after
        self._failures += 1
        return self._timing.repeat.delay(self._failures)


async def restore(shown: Shown, *, surface: Surface, budgets: EditBudgets, patience: float) -> None:
    """Write an ended reply again, in its messages. Raises SurfaceError.

    Messages that are gone or read-only are skipped: the id of a new one would not be recorded.
    """
    if shown.outcome == "dead":
        shown = fitted(shown, limit=surface.limit, measure=surface.measure)
    pages = _ended(shown, surface).pages(len(shown.message_ids))
    for message_id, page in zip(shown.message_ids, pages, strict=False):
        deadline = asyncio.get_running_loop().time() + patience
        await budgets.final(surface.budget(page, new=False), deadline=deadline)
        with suppress(MessageGone, WriteRefused):
            await surface.edit(message_id, page)


async def close(
    page: Page, message_id: str, *, surface: Surface, budgets: EditBudgets, patience: float
) -> None:
    """Write a page of an ended reply whose rest is below it. Raises SurfaceError."""
    if budget := surface.budget(page, new=False):
        deadline = asyncio.get_running_loop().time() + patience
        await budgets.call(budget, deadline=deadline)
    await _edit(message_id, page, surface=surface, budgets=budgets)


async def take_buttons_away(shown: Shown, *, surface: Surface, budgets: EditBudgets) -> bool:
    """Write a superseded reply without buttons; False without a spare slot. Raises SurfaceError."""
    pages = _ended(shown, surface).pages(len(shown.message_ids))
    if len(pages) != len(shown.message_ids) or not pages[-1].last:
        # Another version has cut the text into other pages.
        return True
    budget = surface.budget(pages[-1], new=False)
    if budget and not await budgets.spare(budget):
        return False
    await _edit(shown.message_ids[-1], pages[-1], surface=surface, budgets=budgets)
    return True


async def _edit(message_id: str, page: Page, *, surface: Surface, budgets: EditBudgets) -> None:
    """Write a page for which a slot was taken. A delay pauses its bucket for all."""
    budget = surface.budget(page, new=False)
    try:
        await surface.edit(message_id, page)
    except WriteDelayed as error:
        await budgets.pause_after(error, budget)
        raise


def _ended(shown: Shown, surface: Surface) -> Draft:
    limit, measure, shows_whole = surface.limit, surface.measure, surface.shows_whole
    return Draft(limit=limit, measure=measure, shows_whole=shows_whole, earlier=shown)


async def apologize(*, surface: Surface, budgets: EditBudgets, patience: float) -> str:
    """Post an apology alone and return its message id. Raises SurfaceError."""
    page = Page(0, GivenUp.apology, final=True, last=True, end="failed")
    deadline = asyncio.get_running_loop().time() + patience
    await budgets.final(surface.budget(page, new=True), deadline=deadline)
    return await surface.post(page)
