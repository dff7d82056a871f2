"""The single writer of a reply: deltas become pages, pages are posted and edited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from bot.budget import EditBudgets
from bot.domain import Outcome, Page
from bot.errors import (
    MessageGone,
    ModelError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.guard import whole_characters
from bot.markdown import close, pages
from bot.ports import Surface

log = logging.getLogger(__name__)

STOPPED = "(Stopped.)"
_FIRST_PAUSE = 0.5  # seconds before a failed final write is repeated; doubles up to the longest
_LONGEST_PAUSE = 30.0

Save = Callable[[Sequence[str], str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Shown:
    """How a reply ended: what the model said, and all that stands on the pages.

    `text` is empty when there is nothing to remember: not a word came, or a person deleted it.
    """

    outcome: Outcome
    text: str
    shown: str
    pages: tuple[str, ...]


class Reply:
    """The text growing from deltas, on its surface.

    `pages` and `older` are what an earlier try left on the surface: those messages are edited, and
    the old text stays until the new one is longer, or for good when that never comes.
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
        stop: asyncio.Event,
        save: Save,
        patience: float,
    ) -> None:
        self._surface = surface
        self._budgets = budgets
        self._ids = list(pages)
        self._on_screen: list[Page | None] = [None] * len(pages)
        self._stood: dict[int, str] = {}  # by page number, the text that the platform last took
        # What was saved before a first post that failed stands nowhere.
        self._older = older if pages else ""
        self._stop = stop
        self._save = save
        self._patience = patience  # seconds for which final writes are repeated
        self._text = ""
        self._notice = ""
        self._outcome: Outcome = "done"
        self._news = asyncio.Event()
        self._ended = asyncio.Event()

    async def stream(self, deltas: AsyncGenerator[str]) -> Shown:
        """Show deltas as they arrive, then the end, whole.

        A ModelError among the deltas ends the reply with its apology.
        Raises PlaceGone and LeaseLost, WriteFailed or WriteDelayed when the final text did not get
        through in time, and WriteRefused when not even an apology is taken.
        """
        collecting = asyncio.create_task(self._collect(deltas))
        try:
            try:
                await self._write()
                await collecting
            except WriteRefused as refusal:
                await self._end_refused(refusal)
        except MessageGone:
            return Shown("stopped", "", self._whole, tuple(self._ids))
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)
        return Shown(self._outcome, self._said, self._whole, tuple(self._ids))

    @property
    def _said(self) -> str:
        return whole_characters(self._text)

    @property
    def _whole(self) -> str:
        return "\n\n".join(part for part in (self._said, self._notice) if part.strip())

    async def _collect(self, deltas: AsyncGenerator[str]) -> None:
        reading = asyncio.create_task(self._read(deltas))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            else:
                self._outcome, self._notice = "stopped", STOPPED
        except ModelError as error:
            log.warning("The model failed: %s", error)
            self._outcome, self._notice = "failed", error.apology
        finally:
            stopping.cancel()
            reading.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)
            if self._outcome != "done" and len(self._text) < len(self._older):
                # What people have read already stays.
                self._text = self._older
            self._ended.set()
            self._news.set()

    async def _read(self, deltas: AsyncGenerator[str]) -> None:
        async with aclosing(deltas):
            async for delta in deltas:
                self._text += delta
                self._news.set()

    # Only this coroutine calls the platform, so writes can neither overlap nor overtake.
    async def _write(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._ended.is_set():
                break
            if len(self._text) <= len(self._older) or not self._text.strip():
                continue
            # The text is chosen when the write may go out, not when it was asked for.
            page = self._stale()
            new = page is not None and self._is_new(page)
            if await self._budgets.interim(self._surface.budget, new=new, unless=self._ended):
                await self._write_interim()
        await self._write_final()

    async def _end_refused(self, refusal: WriteRefused) -> None:
        """Close what stands on the screen when the platform takes no more of the text."""
        log.warning("The platform takes no more of a reply: %s", refusal)
        stands = self._stood or dict(enumerate(self._cut(self._older)))
        self._outcome, self._notice = "failed", refusal.apology
        self._text = "\n".join(stands.values())
        last = len(self._ids) - 1
        closing = "\n\n".join(part for part in (stands.get(last), refusal.apology) if part)
        if last < 0 or self._surface.measure(closing) > self._surface.limit:
            return await self._post(Page(last + 1, refusal.apology, final=True))
        try:
            await self._surface.edit(self._ids[last], Page(last, closing, final=True))
        except WriteRefused:
            await self._post(Page(last + 1, refusal.apology, final=True))

    async def _write_interim(self) -> None:
        page = self._stale()
        if page is None:
            return
        try:
            await self._write_page(page)
        except WriteDelayed as error:
            self._budgets.pause(self._surface.budget, error.retry_after)
        except WriteFailed as error:
            log.info("An interim write was skipped: %s", error)
        else:
            if self._stale() is not None:
                self._news.set()

    async def _write_final(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._patience
        pause = _FIRST_PAUSE
        while page := self._stale():
            try:
                await self._budgets.final(
                    self._surface.budget, new=self._is_new(page), deadline=deadline
                )
                await self._write_page(page)
                pause = _FIRST_PAUSE
            except (WriteDelayed, WriteFailed) as error:
                wait = error.retry_after if isinstance(error, WriteDelayed) else pause
                if asyncio.get_running_loop().time() + wait > deadline:
                    raise
                if isinstance(error, WriteDelayed):
                    self._budgets.pause(self._surface.budget, wait)
                else:
                    await asyncio.sleep(wait)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    def _targets(self) -> list[Page]:
        ended = self._ended.is_set()
        texts = self._cut(self._whole if ended else self._said.rstrip())
        last = len(texts) - 1
        if not ended:
            texts[last] = close(texts[last])
        targets = [Page(i, text, final=ended or i < last) for i, text in enumerate(texts)]
        if ended:
            # An earlier try may have filled more pages than the answer needs now.
            targets += [Page(i, "", final=True) for i in range(len(texts), len(self._ids))]
        return targets

    def _cut(self, text: str) -> list[str]:
        return pages(text, limit=self._surface.limit, measure=self._surface.measure)

    def _stale(self) -> Page | None:
        for page in self._targets():
            if self._is_new(page) or page != self._on_screen[page.number]:
                return page
        return None

    def _is_new(self, page: Page) -> bool:
        return page.number >= len(self._ids)

    async def _write_page(self, page: Page) -> None:
        await self._save(self._ids, self._said)
        if self._is_new(page):
            await self._post(page)
        else:
            await self._edit(page)

    async def _edit(self, page: Page) -> None:
        # What stands there is uncertain until the platform has answered.
        self._on_screen[page.number] = None
        try:
            await self._surface.edit(self._ids[page.number], page)
        except WriteRefused as error:
            # The page starts anew as another message; the old one keeps what it shows.
            log.info("A message takes no edits any more: %s", error)
            self._ids[page.number] = await self._surface.post(page)
            await self._save(self._ids, self._said)
        except MessageGone:
            if page.text:
                raise
        self._took(page)

    async def _post(self, page: Page) -> None:
        self._ids.append(await self._surface.post(page))
        self._took(page)
        await self._save(self._ids, self._said)

    def _took(self, page: Page) -> None:
        self._on_screen[page.number :] = [page, *self._on_screen[page.number + 1 :]]
        self._stood[page.number] = page.text


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
        stop=asyncio.Event(),
        save=save,
        patience=patience,
    )
    await reply.stream(_one_delta(text))


async def _one_delta(text: str) -> AsyncGenerator[str]:
    yield text
