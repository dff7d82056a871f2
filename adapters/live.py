"""Replies that grow in a Redis stream, from which any process follows them.

Each thread has one stream. An entry is a difference to the text of a turn's reply: the length of
the prefix that stays, and the text after it. A follower starts from the turn's record.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from adapters.uploads import read_upload
from bot.domain import (
    ContextMessage,
    EditBudget,
    End,
    FileRef,
    Page,
    Purpose,
    StepNotes,
    ThreadKey,
    Turn,
)
from bot.errors import StoreUnavailable, WriteFailed
from bot.store import Store
from bot.turns.records import read_end

_MOST_ENTRIES = 500  # of a thread; a follower that falls further behind reloads the records
_EXPIRE_SECONDS = 24 * 3600  # longer than a reply may take; the records expire later
_LAST_SECONDS = 60  # for slow followers, if nothing is remembered
_UPLOAD_SECONDS = 3600  # after it was read
_LAST_ENTRIES = 8  # of which one has what a turn shows now
# The average delay is half an interval, which people do not notice.
_WRITES, _SECONDS = 14, 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """One entry: the text of a turn's reply becomes `text[:keep] + add`.

    `keep` and `size` (of the whole text) are in characters. `note` is a status text below it; with
    `consent`, the id of a call, it says what a person is to allow. `last`: the reply has ended, and
    its record has the result. `look`: reload the record of the turn, or of all turns if `turn_id`
    is empty. `gone`: the thread was deleted. `thought` is for how many seconds the model has
    thought; what it has is not here.
    """

    turn_id: str = ""
    keep: int = 0
    add: str = ""
    size: int = 0
    note: str = ""
    consent: str = ""
    last: bool = False
    end: End = ""
    look: bool = False
    gone: bool = False
    thought: int = 0

    def applied(self, text: str) -> str | None:
        """Return the text after the change; None if it does not apply to this text."""
        changed = text[: self.keep] + self.add
        return changed if len(changed) == self.size and self.keep <= len(text) else None


class LivePlatform:
    """A platform whose replies are streams: any process can write them.

    With `announces`, followers learn that a worker took a turn. With `remembers` False, the texts
    expire soon after the end. With `shows_thoughts`, what the model thinks is saved.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        announces: bool = False,
        remembers: bool = True,
        shows_thoughts: bool = False,
    ) -> None:
        self.name = name
        self._store = store
        self._announces = announces
        self._remembers = remembers
        self._shows_thoughts = shows_thoughts

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncGenerator[LiveSurface]:
        """Open the surface of a turn's reply; all purposes share it."""
        if self._announces and not purpose.has_ended:
            with suppress(StoreUnavailable):
                await announce(self._store, turn.key, turn.id)
        yield LiveSurface(
            store=self._store,
            turn=turn,
            remembers=self._remembers,
            shows_thoughts=self._shows_thoughts,
        )

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return nothing: a thread has one person, and its history is complete."""
        return ()

    def earlier(self, turn: Turn) -> None:
        """Return nothing, as `read_context`."""

    def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        """Yield the bytes of an upload, which stays for another attempt or answer."""
        keep_seconds = _UPLOAD_SECONDS if self._remembers else _LAST_SECONDS
        return read_upload(self._store, file, keep_seconds=keep_seconds)

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return nothing: page ids are page numbers, so none can be orphaned."""
        return ()


class LiveSurface:
    """Writes one reply to its thread's stream."""

    limit = sys.maxsize  # one page holds every reply
    shows_work = True
    has_buttons = True

    def __init__(
        self, *, store: Store, turn: Turn, remembers: bool = True, shows_thoughts: bool = False
    ) -> None:
        self.shows_thoughts = shows_thoughts
        self._store = store
        self._remembers = remembers
        self._turn = turn
        self._text: str | None = None  # the text that followers have; None if unknown
        self._budget = EditBudget(
            f"live:{turn.id}", writes=_WRITES, seconds=_SECONDS, for_finals=0, own=True
        )

    def note_step(self, steps: StepNotes) -> bool:
        """Show nothing: the reply itself says it."""
        return False

    def measure(self, text: str) -> int:
        """Return the number of characters."""
        return len(text)

    def shows_whole(self, table: str) -> bool:
        """Whether a table is shown as wide as it is: the page scrolls, the terminal wraps."""
        return True

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return as many writes as a person can follow."""
        return self._budget

    async def post(self, page: Page) -> str:
        """Show a page."""
        await self._write(page)
        return f"{self._turn.id}/{page.number}"

    async def edit(self, message_id: str, page: Page) -> None:
        """Replace the page."""
        await self._write(page)

    async def _write(self, page: Page) -> None:
        """Append the difference.

        Growing pages use the unprocessed text, whose beginning rarely changes.
        """
        text, note = (page.text, "") if page.final else (page.said, page.sign)
        keep = 0 if self._text is None else common(self._text, text)
        seconds = _EXPIRE_SECONDS if self._text is None else 0
        if page.last and not self._remembers:
            seconds = _LAST_SECONDS
        # A write that fails may have been applied.
        self._text = None
        try:
            await _add(
                self._store,
                self._turn.key,
                turn=self._turn.id,
                keep=keep,
                add=text[keep:],
                size=len(text),
                note=note,
                consent=page.consent,
                last="1" if page.last else "",
                end=page.end,
                thought=page.thought or "",
            )
            if seconds:
                stream = stream_of(self._store, self._turn.key)
                await self._store.command("EXPIRE", stream, seconds)
        except StoreUnavailable as error:
            raise WriteFailed(str(error)) from error
        self._text = text


async def announce(
    store: Store, thread: ThreadKey, turn_id: str = "", *, gone: bool = False
) -> None:
    """Notify followers to reload a turn, or the whole thread. Raises StoreUnavailable."""
    await _add(store, thread, turn=turn_id, look="1", gone="1" if gone else "")
    # A stream that expires soon has text that must not be kept longer: NX leaves its time.
    limit = (_LAST_SECONDS,) if gone else (_EXPIRE_SECONDS, "NX")
    await store.command("EXPIRE", stream_of(store, thread), *limit)


async def forget(store: Store, thread: ThreadKey) -> None:
    """Trim a thread's stream. Call `announce` afterwards. Raises StoreUnavailable."""
    # The ids of further entries are still greater than those that followers have.
    await store.command("XTRIM", stream_of(store, thread), "MAXLEN", 0)


def stream_of(store: Store, thread: ThreadKey) -> str:
    """Return the key of a thread's stream."""
    return store.key("live", str(thread))


async def last_entry(store: Store, stream: str) -> str:
    """Return the id of a stream's last entry, for `read` to start after it.

    Call this before reading the records, so that no entry is missed. Raises StoreUnavailable.
    """
    entry, _ = await last_changes(store, stream)
    return entry


async def last_changes(store: Store, stream: str) -> tuple[str, list[Change]]:
    """Return the id of a stream's last entry, as `last_entry`, and a few changes up to it."""
    found = await store.command("XREVRANGE", stream, "+", "-", "COUNT", _LAST_ENTRIES)
    changes = [_change(fields or {}) for _, fields in reversed(found)]
    return (str(found[0][0]) if found else "0-0"), changes


async def read(
    store: Store, positions: Mapping[str, str], *, block_seconds: float
) -> list[tuple[str, str, Change]]:
    """Wait for entries after these ids in these streams; return stream, id and change of each.

    Empty if no entry came in time. Raises StoreUnavailable.
    """
    block = int(block_seconds * 1000)
    arguments = "STREAMS", *positions, *positions.values()
    found = await store.command("XREAD", "COUNT", 200, "BLOCK", block, *arguments)
    # RESP3 answers {stream: [entries]}, RESP2 [[stream, entries]].
    streams = found.items() if isinstance(found, Mapping) else found or ()
    return [
        (stream, entry, _change(fields or {}))
        for stream, entries in streams
        for entry, fields in entries
    ]


def common(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    if other.startswith(one):
        return len(one)
    lengths = range(min(len(one), len(other)))
    return bisect_left(lengths, True, key=lambda end: one[: end + 1] != other[: end + 1])


async def _add(store: Store, thread: ThreadKey, **fields: str | int) -> None:
    pairs = [part for pair in fields.items() if pair[1] != "" for part in pair]
    await store.command("XADD", stream_of(store, thread), "MAXLEN", "~", _MOST_ENTRIES, "*", *pairs)


def _change(fields: Mapping[str, str]) -> Change:
    """Parse an entry. An entry of another version becomes a reload."""
    try:
        return Change(
            turn_id=fields.get("turn", ""),
            keep=int(fields.get("keep", "0")),
            add=fields.get("add", ""),
            size=int(fields.get("size", "0")),
            note=fields.get("note", ""),
            consent=fields.get("consent", ""),
            last=bool(fields.get("last")),
            end=read_end(fields.get("end", "")),
            look=bool(fields.get("look")) or "keep" not in fields,
            gone=bool(fields.get("gone")),
            thought=int(fields.get("thought", "0")),
        )
    except ValueError:
        return Change(turn_id=fields.get("turn", ""), look=True)
