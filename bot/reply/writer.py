"""The single writer of a reply: deltas become pages, pages are posted and edited."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

from bot.concurrency import cancelled
from bot.domain import Delta, EditBudget, LeftOut, Page, Shown, Start
from bot.errors import (
    AnswerCut,
    GivenUp,
    MessageGone,
    ModelError,
    PlaceGone,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.ports import Surface
from bot.reply.draft import Draft
from bot.reply.edit_budget import EditBudgets
from bot.reply.screen import Screen

log = logging.getLogger(__name__)

# Nobody waits longer than about ten seconds without wondering (Nielsen, "Response Times: The 3
# Important Limits"). Before the first word the platform shows that we work: a message that begins
# with a sign is for what is slow indeed.
SILENCE = 10.0  # seconds without a delta
FIRST_SILENCE = 20.0  # seconds without the first one
_FIRST_PAUSE = 0.5  # seconds before a failed write is repeated; doubles up to the longest
_LONGEST_PAUSE = 30.0

Save = Callable[[Shown], Awaitable[None]]


class Reply:
    """The text growing from deltas, on its surface.

    `left` is what an earlier try has shown: its messages are edited, and the old text stays until
    the new one is longer, or for good when that never comes. `former` is the answer that the pages
    held before that: it gives way to the first new word, and comes back where the new answer fails.
    `save` is called before each write and after each post: it raises LeaseLost when somebody else
    writes this reply now, and otherwise remembers what is shown. So the end is known before the
    first write that shows it, and whoever finds it in what was left has only to write it (`end`).
    """

    def __init__(
        self,
        *,
        surface: Surface,
        budgets: EditBudgets,
        left: Shown,
        former: str,
        stop: asyncio.Event,
        save: Save,
        patience: float,
    ) -> None:
        self._budgets = budgets
        self._screen = Screen(surface=surface, pages=left.pages, save=self._remember)
        self._draft = Draft(
            limit=surface.limit,
            measure=surface.measure,
            left=left,
            former=former,
        )
        self._stop = stop
        self._save = save
        self._patience = patience  # seconds for which final writes are repeated
        self._heard_at = 0.0  # loop time of the last delta, or of the beginning
        self._stale_since: float | None = None  # loop time of the first news not on the screen
        self._wrote_at = -math.inf  # loop time of the last write
        self._pause = _FIRST_PAUSE  # seconds after the next failed write
        self._news = asyncio.Event()
        self._ended = asyncio.Event()

    async def stream(self, deltas: AsyncGenerator[Delta]) -> Shown:
        """Show deltas as they arrive, then the end, whole.

        A ModelError among the deltas ends the reply with its apology; anything else is raised, and
        what stands there stays for the next try.
        Raises LeaseLost, WriteFailed or WriteDelayed when the final text did not get through in
        time, and PlaceGone or WriteRefused when not even an apology is taken.
        """
        self._heard_at = asyncio.get_running_loop().time()
        collecting = asyncio.create_task(self._collect(deltas))
        try:
            try:
                await self._write_interims()
                # Whatever is no end of the answer ends here, before a final page can tell of one.
                await collecting
                await self._write_final()
            except (PlaceGone, WriteRefused) as refusal:
                await cancelled(collecting)
                await self._end_refused(refusal)
        except MessageGone:
            await cancelled(collecting)
            self._draft.leave()
            await self._end_deleted()
        finally:
            await cancelled(collecting)
        return self._draft.shown(self._screen.standing)

    async def end(self) -> Shown:
        """Write the whole text that was left, whatever stands there; raises as `stream`."""
        return await self.stream(_nothing())

    async def _collect(self, deltas: AsyncGenerator[Delta]) -> None:
        try:
            if not self._draft.ended:
                await self._hear_out(deltas)
                # Here alone: what is cancelled, or crashes, has no end that may be saved or shown.
                self._draft.ended = True
        finally:
            self._ended.set()
            self._news.set()

    async def _hear_out(self, deltas: AsyncGenerator[Delta]) -> None:
        reading = asyncio.create_task(self._read(deltas))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            else:
                self._draft.stop()
        except AnswerCut as cut:
            log.info("The answer is cut: %s", cut)
            self._draft.cut(cut.apology)
        except ModelError as error:
            log.warning("The model failed: %s", error)
            self._draft.fail(error.apology, "dead" if isinstance(error, GivenUp) else "failed")
        finally:
            await cancelled(reading, stopping)

    async def _read(self, deltas: AsyncGenerator[Delta]) -> None:
        now = asyncio.get_running_loop().time
        async with aclosing(deltas):
            async for delta in deltas:
                if isinstance(delta, Start):
                    self._draft.start(delta.model)
                    continue
                if isinstance(delta, LeftOut):
                    self._draft.leave_out(delta.characters)
                    continue
                self._draft.add(delta)
                self._heard_at = now()
                self._tell()

    def _tell(self) -> None:
        self._stale_since = self._stale_since or asyncio.get_running_loop().time()
        self._news.set()

    # Only this coroutine calls the platform, so writes can neither overlap nor overtake.
    async def _write_interims(self) -> None:
        while True:
            await self._listen()
            if self._ended.is_set():
                return
            page = self._stale()
            if page and await self._granted(budget := self._screen.budget(page), page):
                # The text is chosen when the write may go out, not when it was asked for.
                await self._write_interim(budget)

    async def _listen(self) -> None:
        """Wait for news, and take a long silence for one."""
        patience = SILENCE if self._draft.begun else FIRST_SILENCE
        try:
            async with asyncio.timeout_at(
                None if self._draft.silent else self._heard_at + patience
            ):
                await self._news.wait()
        except TimeoutError:
            # A delta may have come in the same moment.
            if not self._news.is_set():
                self._draft.silent = True
                self._tell()
        self._news.clear()

    async def _granted(self, budget: EditBudget | None, page: Page) -> bool:
        return budget is None or await self._budgets.interim(
            budget,
            new=self._screen.is_new(page),
            since=self._stale_since or 0.0,
            wrote=self._wrote_at,
            unless=self._ended,
        )

    async def _write_interim(self, budget: EditBudget | None) -> None:
        page = self._stale()
        # Where it has ended in the same moment, its end may be none that a page can tell of.
        if page is None or self._ended.is_set():
            return
        if self._screen.budget(page) != budget:
            # The slot is another bucket's. What asks again keeps its place in the order.
            self._tell()
            return
        since, self._stale_since = self._stale_since, None
        try:
            await self._write_page(page)
        except (WriteDelayed, WriteFailed) as error:
            log.info("An interim write is to be repeated: %s", error)
            self._stale_since = since
            wait = await self._held_up(error, budget)
            # Where the surface has another way now, nobody waits for this one.
            if self._screen.budget(page) == budget:
                await self._rest(wait)
        if self._stale() is not None:
            self._tell()

    async def _write_final(self) -> None:
        now = asyncio.get_running_loop().time
        deadline = now() + self._patience
        self._pause = _FIRST_PAUSE
        while page := self._stale():
            budget = self._screen.budget(page)
            await self._final_slot(budget, deadline)
            try:
                await self._write_page(page)
            except (WriteDelayed, WriteFailed) as error:
                wait = await self._held_up(error, budget)
                if now() + wait > deadline:
                    raise
                await asyncio.sleep(wait)

    async def _end_refused(self, refusal: PlaceGone | WriteRefused) -> None:
        """Close what stands on the screen when the platform takes no more of the text."""
        nothing_stands = isinstance(refusal, PlaceGone) and not self._screen.pages
        if nothing_stands or self._draft.is_notice:
            raise refusal
        log.warning("The platform takes no more of a reply: %s", refusal)
        if self._draft.replaces:
            self._draft.fail(refusal.apology)
            self._draft.ended = True
            await self._write_final()
            return
        last = len(self._screen.pages) - 1
        closed, alone = self._draft.refuse(self._screen.words, last, refusal.apology)
        if last >= 0:
            with suppress(WriteRefused):
                await self._write_end(Page(last, closed, final=True, last=True))
                return
        await self._write_end(Page(last + 1, alone, final=True, last=True))

    async def _write_end(self, page: Page) -> None:
        deadline = asyncio.get_running_loop().time() + self._patience
        await self._final_slot(self._screen.budget(page), deadline)
        await self._screen.end(page)

    async def _end_deleted(self) -> None:
        """Leave no sign, no Stop and no page that waits on what a person left standing."""
        deadline = asyncio.get_running_loop().time() + self._patience
        final = self._draft.pages(len(self._screen.pages))
        for page in self._screen.unclosed(final):
            with suppress(WriteDelayed):
                await self._final_slot(self._screen.budget(page), deadline)
                await self._screen.close(page)

    async def _final_slot(self, budget: EditBudget | None, deadline: float) -> None:
        if budget:
            await self._budgets.final(budget, deadline=deadline)

    def _stale(self) -> Page | None:
        return self._screen.stale(self._draft.pages(len(self._screen.pages)))

    async def _write_page(self, page: Page) -> None:
        self._wrote_at = asyncio.get_running_loop().time()
        await self._screen.write(page)
        self._pause = _FIRST_PAUSE

    async def _remember(self, pages: Sequence[str]) -> None:
        await self._save(self._draft.shown(pages))

    async def _held_up(self, error: WriteDelayed | WriteFailed, budget: EditBudget | None) -> float:
        """Return the seconds before a write is repeated; what is paused is so for everybody."""
        if isinstance(error, WriteDelayed):
            if budget:
                paused = replace(budget, bucket=error.bucket or budget.bucket)
                await self._budgets.pause(paused, error.retry_after)
            return error.retry_after
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return pause

    async def _rest(self, seconds: float) -> None:
        """Wait, but no longer than until the reply ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()


async def _nothing() -> AsyncGenerator[Delta]:
    return
    yield


async def restore(shown: Shown, *, surface: Surface, budgets: EditBudgets, patience: float) -> None:
    """Write what an ended reply shows once more, in the messages that it has; SurfaceError.

    One that is gone, or takes no edits any more, stays as it is: nobody would know of another.
    """
    draft = Draft(limit=surface.limit, measure=surface.measure, left=shown, former="")
    pages = draft.pages(len(shown.pages))
    if shown.outcome == "dead" and 0 < len(shown.pages) < len(pages):
        pages = _closed(draft, pages[: len(shown.pages)])
    for message_id, page in zip(shown.pages, pages, strict=False):
        await _final_slot(surface.budget(page, new=False), budgets, patience)
        with suppress(MessageGone, WriteRefused):
            await surface.edit(message_id, page)


async def apologize(*, surface: Surface, budgets: EditBudgets, patience: float) -> str:
    """Post an apology alone and return its message id; SurfaceError."""
    page = Page(0, GivenUp.apology, final=True, last=True)
    await _final_slot(surface.budget(page, new=True), budgets, patience)
    return await surface.post(page)


async def _final_slot(budget: EditBudget | None, budgets: EditBudgets, patience: float) -> None:
    if budget:
        deadline = asyncio.get_running_loop().time() + patience
        await budgets.final(budget, deadline=deadline)


def _closed(draft: Draft, pages: Sequence[Page]) -> list[Page]:
    """Return the pages with an apology at their end, for those behind them have no message."""
    *others, last = pages
    stands = {page.number: page.text for page in pages}
    text, _ = draft.refuse(stands, last.number, GivenUp.apology)
    return [*others, Page(last.number, text, final=True, last=True)]
