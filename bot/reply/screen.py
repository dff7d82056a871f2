"""What of a reply is on its surface, message by message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bot.domain import Page
from bot.reply.draft import answer_on, is_needed, is_pending


class Screen:
    """The messages of a reply, and what each shows as far as the platform has confirmed.

    The writer reports each write to it. `message_ids` are the messages of an earlier attempt.
    """

    def __init__(self, message_ids: Sequence[str]) -> None:
        self._ids = list(message_ids)
        self._shows: list[Page | None] = [None] * len(message_ids)
        self._answer: dict[int, str] = {}
        self._read_only: set[int] = set()  # numbers of pages whose message takes no edits
        self._deleted: set[int] = set()  # numbers of pages whose message a person deleted

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The ids of all messages."""
        return tuple(self._ids)

    @property
    def standing(self) -> tuple[str, ...]:
        """The ids of the messages that were not taken away."""
        shown = zip(self._ids, self._shows, strict=True)
        return tuple(message_id for message_id, page in shown if page is None or page.text)

    @property
    def answer(self) -> dict[int, str]:
        """What this attempt has shown of the answer, by page number."""
        return dict(self._answer)

    def message_of(self, page: Page) -> str | None:
        """Return the id of the page's message."""
        return self._ids[page.number] if page.number < len(self._ids) else None

    def needs_post(self, page: Page) -> bool:
        """Whether the page has no message, or is needed and has one that takes no edits."""
        read_only = page.number in self._read_only and is_needed(page)
        return page.number >= len(self._ids) or read_only

    def next_write(self, pages: Sequence[Page]) -> Page | None:
        """Return the page to write next; None if all messages show their pages."""
        stale = [it for it in pages if self.needs_post(it) or it != self._shows[it.number]]
        # Once the first page shows some of the new text, those that wait for it say so first.
        return min(
            stale,
            key=lambda page: (not (is_pending(page) and 0 in self._answer), page.number),
            default=None,
        )

    def unclosed(self, pages: Sequence[Page]) -> list[Page]:
        """Return the final pages that differ from what the messages still there show."""
        there = set(range(len(self._ids))) - self._deleted
        ends = [replace(page, last=False) for page in pages if page.number in there]
        return [page for page in ends if page != self._shows[page.number]]

    def posted(self, page: Page, message_id: str) -> None:
        """Note a page in a new message, which may take the place of a read-only one."""
        if page.number < len(self._ids):
            self._ids[page.number] = message_id
            self._read_only.discard(page.number)
            # The messages of the pages behind it are above it now.
            self._read_only.update(range(page.number + 1, len(self._ids)))
        else:
            self._ids.append(message_id)
        self.edited(page)

    def edited(self, page: Page) -> None:
        """Note that the page's message shows it."""
        self._shows[page.number :] = [page, *self._shows[page.number + 1 :]]
        self._answer[page.number] = answer_on(page)

    def unknown(self, page: Page) -> None:
        """Note that the page's message may show anything until the platform has answered."""
        self._shows[page.number] = None

    def read_only(self, page: Page) -> None:
        """Note that the page's message takes no edits."""
        self._read_only.add(page.number)

    def deleted(self, page: Page) -> None:
        """Note that a person deleted the page's message."""
        self._deleted.add(page.number)
