"""The index of a person's conversations."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from bot.domain import Person, ThreadKey, Turn
from bot.store import Store, store_errors
from bot.text.graphemes import cut_before
from bot.text.sanitize import one_line, whole_characters

PLATFORM = "web"
_TITLE = 60  # characters, about the width of the sidebar
_LONGEST_TITLE = 200  # of a title that a person enters
_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation in a person's list; `updated` is in seconds since the epoch."""

    id: str
    title: str
    updated: float


class Talks:
    """The index of conversations; their content is in records and histories.

    With `remembers` False nothing is listed, and titles are not stored. Raises StoreUnavailable.
    """

    def __init__(self, *, store: Store, keep_seconds: float, remembers: bool = True) -> None:
        self._store = store
        self._remembers = remembers
        self.keep_ms = int(keep_seconds * 1000)

    async def all_of(self, person: Person) -> list[Talk]:
        """Return a person's conversations, the newest first."""
        if not self._remembers:
            return []
        talks, titles = self._index(person.id)
        oldest = time.time() - self.keep_ms / 1000
        if expired := await self._store.command("ZRANGEBYSCORE", talks, "-inf", oldest):
            await self._store.command("HDEL", titles, *expired)
            await self._store.command("ZREM", talks, *expired)
        with store_errors():
            found: Any = await self._store.redis.zrange(talks, 0, -1, desc=True, withscores=True)
        named = await self._store.command("HGETALL", titles)
        return [Talk(one, named.get(one, ""), float(at)) for one, at in found]

    async def title(self, thread: ThreadKey) -> str | None:
        """Return the title of a conversation; None if it is not listed."""
        talks, titles = self._index(thread.channel)
        if await self._store.command("ZSCORE", talks, thread.thread) is None:
            return None
        title = await self._store.command("HGET", titles, thread.thread)
        return str(title or "")

    async def turns(self, thread: ThreadKey) -> list[str]:
        """Return the ids of a conversation's turns, in the order in which they were asked."""
        found: list[str] = await self._store.command("ZRANGE", self._turns(thread), 0, -1)
        return found

    async def add(self, turn: Turn, *, title: str = "") -> None:
        """Add a turn before its admission. Turns that are never admitted are skipped when shown."""
        (talks, titles), turns = self._index(turn.person.id), self._turns(turn.key)
        command = self._store.command
        await command("ZADD", turns, "NX", turn.asked_at, turn.id)
        await command("ZADD", talks, "GT", turn.asked_at, turn.key.thread)
        if title and self._remembers:
            await command("HSETNX", titles, turn.key.thread, title)
        for key in (talks, titles, turns):
            await command("PEXPIRE", key, self.keep_ms)
        await self.keep(turn.key)

    async def keep(self, thread: ThreadKey) -> None:
        """Let what was chosen for a conversation expire with it."""
        if thread.thread:
            chosen = self._store.key("preferences", str(thread))
            await self._store.command("PEXPIRE", chosen, self.keep_ms)

    async def remove(self, thread: ThreadKey, turn_id: str) -> None:
        """Drop a turn, and its conversation with the last one."""
        await self._store.command("ZREM", self._turns(thread), turn_id)
        if not await self._store.command("EXISTS", self._turns(thread)):
            await self.forget(thread)

    async def rename(self, thread: ThreadKey, title: str) -> None:
        """Give a conversation another title."""
        if not self._remembers:
            return
        _, titles = self._index(thread.channel)
        title = one_line(whole_characters(title)).strip()[:_LONGEST_TITLE]
        await self._store.command("HSET", titles, thread.thread, title)
        await self._store.command("PEXPIRE", titles, self.keep_ms)

    async def forget(self, thread: ThreadKey) -> None:
        """Drop a conversation from the index."""
        talks, titles = self._index(thread.channel)
        await self._store.command("DEL", self._turns(thread))
        await self._store.command("HDEL", titles, thread.thread)
        await self._store.command("ZREM", talks, thread.thread)

    def _index(self, person_id: str) -> tuple[str, str]:
        """Return the keys of a person's conversations, by their times, and of the titles."""
        key = self._store.key
        return key(PLATFORM, "talks", person_id), key(PLATFORM, "titles", person_id)

    def _turns(self, thread: ThreadKey) -> str:
        return self._store.key(PLATFORM, "turns", str(thread))


def is_id(text: object) -> bool:
    """Whether this is a valid id of a conversation, a question or a press."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def thread_of(person: Person, talk: str) -> ThreadKey:
    """Return the thread of a person's conversation; ids of other people's do not resolve."""
    return ThreadKey(PLATFORM, "", person.id, talk)


def turn_id_of(person: Person, question: str) -> str:
    """Return the turn id of a question with this id in the page."""
    return f"{PLATFORM}:{person.id}:{question}"


def title_of(question: str) -> str:
    """Return a title: the beginning of the first question, cut at a word."""
    text = one_line(whole_characters(question[: 4 * _TITLE])).strip()
    if len(text) <= _TITLE:
        return text
    head = text[:_TITLE]
    cut = head.rfind(" ") if " " in head[_TITLE // 2 :] else cut_before(text, _TITLE)
    return f"{head[:cut].rstrip()}…"
