"""The single writer of a reply: deltas become pages, pages are posted and edited."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from bot.budget import EditBudgets
from bot.domain import EditBudget, Outcome, Page
from bot.draft import Draft, is_needed, is_pending, words_of
from bot.errors import (
    AnswerCut,
    MessageGone,
    ModelError,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.ports import Surface

log = logging.getLogger(__name__)

# Nobody waits longer than about ten seconds without wondering (Nielsen, "Response Times: The 3
# Important Limits"). Before the first word the platform shows that we work: a message that begins
# with a sign is for what is slow indeed.
SILENCE = 10.0  # seconds without a delta
FIRST_SILENCE = 20.0  # seconds without the first one
_FIRST_PAUSE = 0.5  # seconds before a failed final write is repeated; doubles up to the longest
_LONGEST_PAUSE = 30.0

Save = Callable[[Sequence[str], str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Shown:
    """How a reply ended: what the model said, and all that stands on the pages.

    `text` is empty when there is nothing to remember: not a word came, a person deleted it, or the
    former answer is back.
    """

    outcome: Outcome
    text: str
    shown: str
    pages: tuple[str, ...]


class Reply:
    """The text growing from deltas, on its surface.

    `pages` and `older` are what an earlier try left on the surface: those messages are edited, and
    the old text stays until the new one is longer, or for good when that never comes. `former` is
    the answer that the pages held before that: it gives way to the first new word, and comes back
    where the new answer fails.
    `save` is called before each write and after each post: it raises LeaseLost when somebody else
    writes this reply now, and otherwise remembers the message ids and the text.
    """

    def __init__(
        self,
        *,
        surface: Surface,
        budgets: EditBudgets,
        pages: Sequence[str],
        older: str,
        former: str,
        stop: asyncio.Event,
        save: Save,
        patience: float,
    ) -> None:
        self._surface = surface
        self._budgets = budgets
        self._ids = list(pages)
        self._on_screen: list[Page | None] = [None] * len(pages)
        self._stood: dict[int, str] = {}  # by page number, the words that the platform last took
        self._draft = Draft(
            limit=surface.limit,
            measure=surface.measure,
            # What was saved before a first post that failed stands nowhere.
            older=older if pages else "",
            former=former,
        )
        self._stop = stop
        self._save = save
        self._patience = patience  # seconds for which final writes are repeated
        self._heard_at = 0.0  # loop time of the last delta, or of the beginning
        self._stale_since: float | None = None  # loop time of the first news not on the screen
        self._wrote_at = -math.inf  # loop time of the last write
        self._news = asyncio.Event()
        self._ended = asyncio.Event()

    async def stream(self, deltas: AsyncGenerator[str]) -> Shown:
        """Show deltas as they arrive, then the end, whole.

        A ModelError among the deltas ends the reply with its apology.
        Raises PlaceGone and LeaseLost, WriteFailed or WriteDelayed when the final text did not get
        through in time, and WriteRefused when not even an apology is taken.
        """
        self._heard_at = asyncio.get_running_loop().time()
        collecting = asyncio.create_task(self._collect(deltas))
        try:
            try:
                await self._write()
                await collecting
            except WriteRefused as refusal:
                await _cancelled(collecting)
                await self._end_refused(refusal)
        except MessageGone:
            await self._take_pending_away()
            return Shown("stopped", "", self._draft.whole, tuple(self._ids))
        finally:
            await _cancelled(collecting)
        return Shown(self._draft.outcome, self._draft.said, self._draft.whole, self._standing)

    async def _collect(self, deltas: AsyncGenerator[str]) -> None:
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
            self._draft.fail(error.apology)
        finally:
            stopping.cancel()
            reading.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)
            self._draft.ended = True
            self._ended.set()
            self._news.set()

    async def _read(self, deltas: AsyncGenerator[str]) -> None:
        now = asyncio.get_running_loop().time
        async with aclosing(deltas):
            async for delta in deltas:
                self._draft.add(delta)
                self._heard_at = now()
                self._tell()

    def _tell(self) -> None:
        self._stale_since = self._stale_since or asyncio.get_running_loop().time()
        self._news.set()

    # Only this coroutine calls the platform, so writes can neither overlap nor overtake.
    async def _write(self) -> None:
        while True:
            await self._listen()
            if self._ended.is_set():
                break
            page = self._stale()
            if page and await self._budgets.interim(
                self._budget(page),
                new=self._is_new(page),
                since=self._stale_since or 0.0,
                wrote=self._wrote_at,
                unless=self._ended,
            ):
                # The text is chosen when the write may go out, not when it was asked for.
                await self._write_interim()
        await self._write_final()

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

    async def _end_refused(self, refusal: WriteRefused) -> None:
        """Close what stands on the screen when the platform takes no more of the text."""
        log.warning("The platform takes no more of a reply: %s", refusal)
        if self._draft.replaces:
            self._draft.fail(refusal.apology)
            return await self._write_final()
        stands = self._draft.refuse(self._stood, refusal.apology)
        last = len(self._ids) - 1
        apology = Page(last + 1, refusal.apology, final=True, last=True)
        closing = "\n\n".join(part for part in (stands.get(last), refusal.apology) if part)
        if last < 0 or self._surface.measure(closing) > self._surface.limit:
            return await self._post(apology)
        try:
            await self._surface.edit(self._ids[last], Page(last, closing, final=True, last=True))
        except WriteRefused:
            await self._post(apology)

    async def _write_interim(self) -> None:
        page = self._stale()
        if page is None:
            return
        budget, self._stale_since = self._budget(page), None
        try:
            await self._write_page(page)
        except WriteDelayed as error:
            await self._budgets.pause(budget, error.retry_after)
        except WriteFailed as error:
            log.info("An interim write was skipped: %s", error)
        else:
            if self._stale() is not None:
                self._tell()

    async def _write_final(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._patience
        pause = _FIRST_PAUSE
        while page := self._stale():
            budget = self._budget(page)
            try:
                await self._budgets.final(budget, deadline=deadline)
                await self._write_page(page)
                pause = _FIRST_PAUSE
            except (WriteDelayed, WriteFailed) as error:
                wait = error.retry_after if isinstance(error, WriteDelayed) else pause
                if asyncio.get_running_loop().time() + wait > deadline:
                    raise
                if isinstance(error, WriteDelayed):
                    await self._budgets.pause(budget, wait)
                else:
                    await asyncio.sleep(wait)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    def _stale(self) -> Page | None:
        pages = self._draft.pages(len(self._ids))
        stale = [it for it in pages if self._is_new(it) or it != self._on_screen[it.number]]
        return min(stale, key=self._urgency, default=None)

    def _urgency(self, page: Page) -> tuple[bool, int]:
        """Let a page that waits for the new text be next once the first page shows some."""
        return not (is_pending(page) and 0 in self._stood), page.number

    def _budget(self, page: Page) -> EditBudget:
        return self._surface.budget(page, new=self._is_new(page))

    def _is_new(self, page: Page) -> bool:
        return page.number >= len(self._ids)

    @property
    def _standing(self) -> tuple[str, ...]:
        """The ids of the messages that were not taken away."""
        shown = zip(self._ids, self._on_screen, strict=True)
        return tuple(message_id for message_id, page in shown if page is None or page.text)

    async def _write_page(self, page: Page) -> None:
        await self._save(self._ids, self._draft.read)
        self._wrote_at = asyncio.get_running_loop().time()
        if self._is_new(page):
            await self._post(page)
        else:
            await self._edit(page)

    async def _edit(self, page: Page) -> None:
        # What stands there is uncertain until the platform has answered.
        self._on_screen[page.number] = None
        try:
            await self._surface.edit(self._ids[page.number], page)
        except (MessageGone, WriteRefused) as error:
            if not is_needed(page):
                log.info("A message that the answer does not need stays as it is: %s", error)
            elif isinstance(error, MessageGone):
                raise
            else:
                # The page starts anew as another message; the old one keeps what it shows.
                log.info("A message takes no edits any more: %s", error)
                self._ids[page.number] = await self._surface.post(page)
                await self._save(self._ids, self._draft.read)
        self._took(page)

    async def _post(self, page: Page) -> None:
        self._ids.append(await self._surface.post(page))
        self._took(page)
        await self._save(self._ids, self._draft.read)

    def _took(self, page: Page) -> None:
        self._on_screen[page.number :] = [page, *self._on_screen[page.number + 1 :]]
        self._stood[page.number] = words_of(page)

    async def _take_pending_away(self) -> None:
        """Leave no page behind that waits for a text which does not come any more."""
        for message_id, page in zip(self._ids, self._on_screen, strict=True):
            if page and is_pending(page):
                with suppress(SurfaceError):
                    await self._surface.edit(message_id, Page(page.number, "", final=True))


async def restore(
    text: str,
    *,
    surface: Surface,
    budgets: EditBudgets,
    pages: Sequence[str],
    patience: float,
) -> None:
    """Write the final pages of a text once more, whatever stands there. Raises SurfaceError."""

    async def save(pages: Sequence[str], shown: str) -> None:
        """The turn has ended: there is nothing to remember."""

    reply = Reply(
        surface=surface,
        budgets=budgets,
        pages=pages,
        older="",
        former="",
        stop=asyncio.Event(),
        save=save,
        patience=patience,
    )
    await reply.stream(_one_delta(text))


async def _one_delta(text: str) -> AsyncGenerator[str]:
    yield text


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
