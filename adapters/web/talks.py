"""The index of a person's conversations."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from adapters import live
from bot.domain import Person, ThreadKey, Turn
from bot.store import Store, store_errors
from bot.text.graphemes import cut_before
from bot.text.sanitize import one_line, whole_characters

PLATFORM = "web"
_TITLE = 60  # characters, about the width of the sidebar
_LONGEST_TITLE = 200  # of a title that a person enters
_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_CLAIM_SECONDS = 60
_MOST_UNTITLED = 10_000  # newer ones, if no worker writes titles
# KEYS: the conversations without a title of the model, by when they are due. ARGV: now, and when
# the claim on the first of these ends, in seconds.
_CLAIM = """
local thread = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, 1)[1]
if thread then redis.call('ZADD', KEYS[1], ARGV[2], thread) end
return thread
"""
# KEYS: the same, and a person's titles. ARGV: a thread, its conversation, and a title or "".
_ENTITLE = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return 0 end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]) end
return 1
"""

# Where a conversation stands in the list: among the others, above them, or apart.
Place = Literal["", "pinned", "archived"]
PLACES: dict[str, Place] = {"": "", "pinned": "pinned", "archived": "archived"}


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation in a person's list; `updated` is in seconds since the epoch."""

    id: str
    title: str
    updated: float
    place: Place = ""


class Talks:
    """The index of conversations; their content is in records and histories.

    With `remembers` False nothing is listed, and neither titles nor versions of answers are stored.
    It satisfies `bot.ports.Untitled`: with `wants_titles`, new conversations get one. Raises
    StoreUnavailable.
    """

    def __init__(
        self,
        *,
        store: Store,
        keep_seconds: float,
        remembers: bool = True,
        wants_titles: bool = False,
    ) -> None:
        self._store = store
        self.remembers = remembers
        self.keep_ms = int(keep_seconds * 1000)
        self._wants_titles = wants_titles
        self._untitled = store.key("untitled", PLATFORM)
        self._claim, self._entitle = store.script(_CLAIM), store.script(_ENTITLE)

    async def all_of(self, person: Person) -> list[Talk]:
        """Return a person's conversations, the pinned ones first, and of each the newest first."""
        if not self.remembers:
            return []
        talks, titles, places = self._index(person.id)
        oldest = time.time() - self.keep_ms / 1000
        if expired := await self._store.command("ZRANGEBYSCORE", talks, "-inf", oldest):
            for key in (titles, places):
                await self._store.command("HDEL", key, *expired)
            await self._store.command("ZREM", talks, *expired)
        with store_errors():
            found: Any = await self._store.redis.zrange(talks, 0, -1, desc=True, withscores=True)
        named = await self._store.command("HGETALL", titles)
        placed = await self._store.command("HGETALL", places)
        listed = [
            Talk(one, named.get(one, ""), float(at), PLACES.get(placed.get(one, ""), ""))
            for one, at in found
        ]
        return sorted(listed, key=lambda one: one.place != "pinned")

    async def find(self, thread: ThreadKey) -> Talk | None:
        """Return a conversation as it is listed; None if it is not."""
        (talks, *details), name = self._index(thread.channel), thread.thread
        reads = [("ZSCORE", talks, name), *(("HGET", key, name) for key in details)]
        updated, title, place = await self._store.commands(reads)
        if updated is None:
            return None
        return Talk(name, title or "", float(updated), PLACES.get(place or "", ""))

    async def put(self, thread: ThreadKey, place: Place) -> None:
        """Give a conversation another place in the list."""
        if not self.remembers:
            return
        _, _, places = self._index(thread.channel)
        if place:
            await self._store.command("HSET", places, thread.thread, place)
            await self._store.command("PEXPIRE", places, self.keep_ms)
        else:
            await self._store.command("HDEL", places, thread.thread)

    async def turns(self, thread: ThreadKey) -> list[str]:
        """Return the ids of a conversation's turns, in the order in which they were asked.

        Of all its branches: the states of turns say which of them are open.
        """
        found: list[str] = await self._store.command("ZRANGE", self._turns(thread), 0, -1)
        return found

    async def add(self, turn: Turn, *, title: str = "") -> bool:
        """Add a turn before its admission. Turns that are never admitted are skipped when shown.

        A new one brings an archived conversation back. Returns whether its conversation is new and
        wants a title of the model; after the admission, `put_off` lets it be claimed at once.
        """
        (talks, titles, places), turns = self._index(turn.person.id), self._turns(turn.key)
        command = self._store.command
        is_new = await command("ZADD", turns, "NX", turn.asked_at, turn.id)
        is_titled = title and self.remembers
        wants_title = is_titled and await command("HSETNX", titles, turn.key.thread, title)
        await command("ZADD", talks, "GT", turn.asked_at, turn.key.thread)
        if wants_title and self._wants_titles:
            later = time.time() + _CLAIM_SECONDS
            await self._store.commands(
                [
                    ("ZADD", self._untitled, later, str(turn.key)),
                    ("ZREMRANGEBYRANK", self._untitled, 0, -_MOST_UNTITLED - 1),
                    ("PEXPIRE", self._untitled, self.keep_ms),
                ]
            )
        if is_new and await command("HGET", places, turn.key.thread) == "archived":
            await self.put(turn.key, "")
        keys = talks, titles, places, turns
        await self._store.commands([("PEXPIRE", key, self.keep_ms) for key in keys])
        await self.keep(turn.key)
        return bool(wants_title) and self._wants_titles

    async def keep(self, thread: ThreadKey) -> None:
        """Let what was chosen for a conversation expire with it."""
        if thread.thread:
            chosen = self._store.key("preferences", str(thread))
            await self._store.command("PEXPIRE", chosen, self.keep_ms)

    async def remove(self, thread: ThreadKey, *turn_ids: str) -> None:
        """Drop turns, and their conversation with the last one."""
        await self._store.command("ZREM", self._turns(thread), *turn_ids)
        if not await self._store.command("EXISTS", self._turns(thread)):
            await self.forget(thread)

    async def rename(self, thread: ThreadKey, title: str) -> None:
        """Give a conversation another title, which the model does not change."""
        if not self.remembers:
            return
        _, titles, _ = self._index(thread.channel)
        await self._store.command("ZREM", self._untitled, str(thread))
        title = one_line(whole_characters(title)).strip()[:_LONGEST_TITLE]
        await self._store.command("HSET", titles, thread.thread, title)
        await self._store.command("PEXPIRE", titles, self.keep_ms)

    async def forget(self, thread: ThreadKey) -> None:
        """Drop a conversation from the index."""
        talks, titles, places = self._index(thread.channel)
        await self._store.command("ZREM", self._untitled, str(thread))
        await self._store.command("DEL", self._turns(thread))
        for key in (titles, places):
            await self._store.command("HDEL", key, thread.thread)
        await self._store.command("ZREM", talks, thread.thread)

    async def claim(self) -> ThreadKey | None:
        """Return a conversation that wants a title; see `bot.ports.Untitled`."""
        now = time.time()
        thread = await self._claim(keys=[self._untitled], args=[now, now + _CLAIM_SECONDS])
        return ThreadKey.parse(thread) if thread else None

    async def put_off(self, thread: ThreadKey, *, seconds: float) -> bool:
        """Let a conversation be claimed later; see `bot.ports.Untitled`."""
        later = time.time() + seconds
        return bool(
            await self._store.command("ZADD", self._untitled, "XX", "CH", later, str(thread))
        )

    async def entitle(self, thread: ThreadKey, title: str) -> bool:
        """Store a title of the model; see `bot.ports.Untitled`."""
        keys = [self._untitled, self._index(thread.channel)[1]]
        is_wanted = await self._entitle(keys=keys, args=[str(thread), thread.thread, title])
        if is_wanted and title:
            await live.announce(self._store, thread)
        return bool(is_wanted)

    def _index(self, person_id: str) -> tuple[str, str, str]:
        """Return the keys of a person's conversations, by their times, of titles and of places."""
        key = self._store.key
        talks, titles, places = (
            key(PLATFORM, kind, person_id) for kind in ("talks", "titles", "places")
        )
        return talks, titles, places

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
