"""Replies that grow in a Redis stream, from which any process follows them.

A thread has one stream. Its entries change the text of one turn's reply: what stays of the text
before, and what follows. So an answer is not written whole with each delta, and a follower begins
with what the turn's record shows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from bot.domain import EditBudget, End, Page, ThreadKey, Turn
from bot.errors import StoreUnavailable, WriteFailed
from bot.reply.draft import BUSY, WAITING
from bot.store import Store
from bot.turns.records import read_end

_KEPT_ENTRIES = 500  # most of a thread; a follower that is later reads the records again
_KEPT_SECONDS = 24 * 3600  # more than a reply may take; the records stay longer
_LAST_SECONDS = 60  # for followers that are late, if nothing is remembered
# A word waits for half of the time between two writes on average: less than people notice.
_WRITES, _SECONDS = 14, 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """What one entry says of a turn's reply: its text is `text[:keep] + add` now.

    `keep` and `size`, the length of the whole text, are in characters. `note` is a sign of life
    below the text. On the `last` change the reply has ended, and its record tells how. If the
    change is to `look`, only the record has the news, of one turn or of all if `turn_id` is empty.
    A thread that is `gone` was deleted.
    """

    turn_id: str = ""
    keep: int = 0
    add: str = ""
    size: int = 0
    note: str = ""
    last: bool = False
    end: End = ""
    look: bool = False
    gone: bool = False

    def applied(self, text: str) -> str | None:
        """Return the text after the change; None if it was made to another text than this."""
        changed = text[: self.keep] + self.add
        return changed if len(changed) == self.size and self.keep <= len(text) else None


class LiveSurface:
    """The place of one reply in its thread's stream.

    If nothing `remembers` the reply, its words expire soon after its end.
    """

    limit = sys.maxsize  # one page holds every reply
    shows_work = True

    def __init__(self, *, store: Store, turn: Turn, remembers: bool = True) -> None:
        self._store = store
        self._remembers = remembers
        self._turn = turn
        self._text: str | None = None  # what followers have; None while that is not known
        self._budget = EditBudget(
            f"live:{turn.id}", writes=_WRITES, seconds=_SECONDS, refills=False, kept=0, own=True
        )

    def measure(self, text: str) -> int:
        """Return the number of characters."""
        return len(text)

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return as many writes as a person can follow."""
        return self._budget

    async def begin(self) -> None:
        """Tell followers that a worker has the turn."""
        with suppress(StoreUnavailable):
            await announce(self._store, self._turn.key, self._turn.id)

    async def post(self, page: Page) -> str:
        """Show a page."""
        await self._write(page)
        return f"{self._turn.id}/{page.number}"

    async def edit(self, message_id: str, page: Page) -> None:
        """Replace the page."""
        await self._write(page)

    async def _write(self, page: Page) -> None:
        """Write what differs; the raw text of a page that grows, so that mostly its end does."""
        text, note = (page.text, "") if page.final else (page.said, _note(page))
        keep = 0 if self._text is None else common(self._text, text)
        change: dict[str, str | int] = {
            "turn": self._turn.id,
            "keep": keep,
            "add": text[keep:],
            "size": len(text),
            "note": note,
            "last": "1" if page.last else "",
            "end": page.end,
        }
        seconds = _KEPT_SECONDS if self._text is None else 0
        # The end of a reply whose thread is gone keeps no words.
        if page.last and not self._remembers:
            seconds = _LAST_SECONDS
        # A write that fails may have been applied.
        self._text = None
        try:
            await _add(self._store, self._turn.key, change)
            if seconds:
                stream = stream_of(self._store, self._turn.key)
                await self._store.command("EXPIRE", stream, seconds)
        except StoreUnavailable as error:
            raise WriteFailed(str(error)) from error
        self._text = text


async def announce(
    store: Store, thread: ThreadKey, turn_id: str = "", *, gone: bool = False
) -> None:
    """Tell followers to look at a turn's record, or the whole thread. Raises StoreUnavailable."""
    fields: dict[str, str | int] = {"turn": turn_id, "look": "1", "gone": "1" if gone else ""}
    await _add(store, thread, fields)
    # What expires soon has words that are not to be kept.
    limit = (_LAST_SECONDS,) if gone else (_KEPT_SECONDS, "NX")
    await store.command("EXPIRE", stream_of(store, thread), *limit)


async def forget(store: Store, thread: ThreadKey) -> None:
    """Drop the words in a thread's stream. Announce it then. Raises StoreUnavailable."""
    # The ids of further entries are still greater than those that followers have.
    await store.command("XTRIM", stream_of(store, thread), "MAXLEN", 0)


def stream_of(store: Store, thread: ThreadKey) -> str:
    """Return the key of a thread's stream."""
    return store.key("live", str(thread))


async def last_entry(store: Store, stream: str) -> str:
    """Return the id of a stream's last entry, from which `read` returns what follows.

    Take it before the records are read: between the two, nothing is missed. Raises
    StoreUnavailable.
    """
    found = await store.command("XREVRANGE", stream, "+", "-", "COUNT", 1)
    return str(found[0][0]) if found else "0-0"


async def read(
    store: Store, positions: Mapping[str, str], *, block_seconds: float
) -> list[tuple[str, str, Change]]:
    """Wait for entries behind these ids in these streams; return stream, id and change of each.

    Nothing if none came in time, which is two seconds at most. Raises StoreUnavailable.
    """
    block = int(block_seconds * 1000)
    words = "STREAMS", *positions, *positions.values()
    found = await store.command("XREAD", "COUNT", 200, "BLOCK", block, *words)
    # RESP3 answers {stream: [entries]}, RESP2 [[stream, entries]].
    streams = found.items() if isinstance(found, Mapping) else found or ()
    return [
        (stream, entry, _change(fields or {}))
        for stream, entries in streams
        for entry, fields in entries
    ]


def common(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    if other.startswith(one):
        return len(one)
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[:middle] == other[:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def _note(page: Page) -> str:
    return next((sign for sign in (BUSY, WAITING) if page.text.endswith(sign)), "")


async def _add(store: Store, thread: ThreadKey, fields: Mapping[str, str | int]) -> None:
    stream = stream_of(store, thread)
    pairs = [word for pair in fields.items() if pair[1] != "" for word in pair]
    await store.command("XADD", stream, "MAXLEN", "~", _KEPT_ENTRIES, "*", *pairs)


def _change(fields: Mapping[str, str]) -> Change:
    """Read an entry. What another version has written differently is only to be looked at."""
    try:
        return Change(
            turn_id=fields.get("turn", ""),
            keep=int(fields.get("keep", "0")),
            add=fields.get("add", ""),
            size=int(fields.get("size", "0")),
            note=fields.get("note", ""),
            last=bool(fields.get("last")),
            end=read_end(fields.get("end", "")),
            look=bool(fields.get("look")) or "keep" not in fields,
            gone=bool(fields.get("gone")),
        )
    except ValueError:
        return Change(turn_id=fields.get("turn", ""), look=True)
