"""What of a reply stands on its surface, message by message."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from bot.domain import EditBudget, Page
from bot.errors import MessageGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from bot.ports import Surface
from bot.reply.draft import is_needed, is_pending, words_of

log = logging.getLogger(__name__)


class Screen:
    """The messages of a reply, and what each shows as far as the platform has told.

    `pages` are the messages that an earlier try left. `save` is called with all ids before each
    write and after each post.
    """

    def __init__(
        self,
        *,
        surface: Surface,
        pages: Sequence[str],
        save: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        self._surface = surface
        self._save = save
        self._ids = list(pages)
        self._shows: list[Page | None] = [None] * len(pages)
        self._words: dict[int, str] = {}  # by page number, those that the platform last took
        self._unchanging: set[int] = set()  # numbers of pages whose message takes no edits
        self._gone: set[int] = set()  # numbers of pages whose message a person deleted

    @property
    def pages(self) -> tuple[str, ...]:
        """The ids of all messages."""
        return tuple(self._ids)

    @property
    def standing(self) -> tuple[str, ...]:
        """The ids of the messages that were not taken away."""
        shown = zip(self._ids, self._shows, strict=True)
        return tuple(message_id for message_id, page in shown if page is None or page.text)

    @property
    def words(self) -> dict[int, str]:
        """What of the answer stands there, by page number, where this try has written."""
        return dict(self._words)

    def stale(self, pages: Sequence[Page]) -> Page | None:
        """Return the page that is to be written next; None where all stand as they should."""
        stale = [it for it in pages if self.is_new(it) or it != self._shows[it.number]]
        return min(stale, key=self._urgency, default=None)

    def is_new(self, page: Page) -> bool:
        """Whether the page is to be posted: it has no message, or one that takes no edits."""
        takes_no_edits = page.number in self._unchanging and is_needed(page)
        return page.number >= len(self._ids) or takes_no_edits

    def budget(self, page: Page) -> EditBudget | None:
        """Return the edit budget that writing the page draws on, if it waits for one."""
        return self._surface.budget(page, new=self.is_new(page))

    async def write(self, page: Page) -> None:
        """Show a page; where its message takes no edits any more it is stale, and new, after that.

        Raises SurfaceError.
        """
        await self._save(self._ids)
        if page.number >= len(self._ids):
            await self._post(page)
        elif self.is_new(page):
            await self._post_anew(page)
        else:
            await self._edit(page)

    async def end(self, page: Page) -> None:
        """Show a page for good, in its message as it is or in a new one; SurfaceError."""
        await self._save(self._ids)
        if page.number < len(self._ids):
            await self._surface.edit(self._ids[page.number], page)
        else:
            await self._post(page)

    def unclosed(self, pages: Sequence[Page]) -> list[Page]:
        """Return which of the final pages of a text differ from what their messages show."""
        standing = set(range(len(self._ids))) - self._gone
        ends = [replace(page, last=False) for page in pages if page.number in standing]
        return [page for page in ends if page != self._shows[page.number]]

    async def close(self, page: Page) -> None:
        """Make a message show its page, if the platform lets us."""
        await self._save(self._ids)
        with suppress(SurfaceError):
            await self._surface.edit(self._ids[page.number], page)

    def _urgency(self, page: Page) -> tuple[bool, int]:
        """Let a page that waits for the new text be next once the first page shows some."""
        return not (is_pending(page) and 0 in self._words), page.number

    async def _edit(self, page: Page) -> None:
        # What stands there is uncertain until the platform has answered.
        self._shows[page.number] = None
        try:
            await self._surface.edit(self._ids[page.number], page)
        except (MessageGone, WriteRefused) as error:
            if not is_needed(page):
                log.info("A message that the answer does not need stays as it is: %s", error)
            elif isinstance(error, MessageGone):
                self._gone.add(page.number)
                raise
            else:
                log.info("A message takes no edits any more: %s", error)
                self._unchanging.add(page.number)
                return
        self._took(page)

    async def _post_anew(self, page: Page) -> None:
        """Post a page that has a message, and take that one away if the platform lets us."""
        old = self._ids[page.number]
        self._unchanging.discard(page.number)
        try:
            self._ids[page.number] = await self._surface.post(page)
        except (WriteDelayed, WriteFailed):
            # It may stand there already: only the post finds out, no further edit.
            self._unchanging.add(page.number)
            raise
        # Those behind it stand above it now.
        self._unchanging.update(range(page.number + 1, len(self._ids)))
        self._took(page)
        await self._save(self._ids)
        # One that stands behind may be found, and written, where it stood.
        if old not in self._ids:
            with suppress(SurfaceError):
                await self._surface.edit(old, Page(page.number, "", final=True))

    async def _post(self, page: Page) -> None:
        self._ids.append(await self._surface.post(page))
        self._took(page)
        await self._save(self._ids)

    def _took(self, page: Page) -> None:
        self._shows[page.number :] = [page, *self._shows[page.number + 1 :]]
        self._words[page.number] = words_of(page)
