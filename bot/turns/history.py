"""What a thread remembers, oldest first."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

from bot.domain import ContextMessage, Exchange, Person, ThreadKey
from bot.store import Store
from bot.text.sanitize import whole_characters
from bot.turns.forgetting import named
from bot.turns.records import (
    Unreadable,
    read_all_said,
    read_number,
    read_object,
    read_person,
    read_said,
    read_text,
    write_said,
)

log = logging.getLogger(__name__)

# Nothing of a person is written who is forgotten at that moment: KEYS are the jobs, and where it
# goes. ARGV: the name of the job, how long it is kept (ms), the value, and perhaps a hash's field.
_SAVE = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if not ARGV[4] then return redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2]) end
redis.call('HSET', KEYS[2], ARGV[4], ARGV[3])
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""
_MESSAGE_SECONDS = 3600  # for which a person may write a question about a message


class History:
    """Reads and forgets exchanges, which `TurnLeases.finish` writes. Raises StoreUnavailable.

    One that does not remember drops what it finds.
    """

    def __init__(self, *, store: Store, keep_seconds: float, remembers: bool = True) -> None:
        self._store = store
        self.remembers = remembers
        self._keep_ms = int(keep_seconds * 1000)
        self._save = store.script(_SAVE)

    async def read(self, thread: ThreadKey) -> list[Exchange]:
        """Return the thread's exchanges, oldest first, and keep them for `keep_seconds` more."""
        name = self._store.key("history", str(thread))
        if not self.remembers:
            await self._store.command("DEL", name, self._store.key("names", str(thread)))
            return []
        lines: list[str] = await self._store.command("LRANGE", name, 0, -1)
        await self._store.command("PEXPIRE", name, self._keep_ms)
        exchanges = [exchange for line in lines if (exchange := _readable(line))]
        if unreadable := len(lines) - len(exchanges):
            log.warning("Thread %s: leaving out %d unreadable exchanges", thread, unreadable)
        return await self._named(thread, exchanges)

    async def ratings(self, thread: ThreadKey, person_id: str) -> dict[str, str]:
        """Return what a person thinks of the thread's answers, by their turns' ids."""
        name = self._store.key("history", str(thread))
        lines: list[str] = await self._store.command("LRANGE", name, 0, -1)
        return dict(found for line in lines if (found := _rating(line, person_id)))

    async def save_name(self, thread: ThreadKey, person: Person) -> None:
        """Save the name of a person whose exchanges have only an id."""
        keys = [self._store.key("forgetting"), self._store.key("names", str(thread))]
        person_id, name = whole_characters(person.id), whole_characters(person.name)
        job = named("person", thread.platform, person.id)
        await self._save(keys=keys, args=[job, self._keep_ms, name, person_id])

    async def forget(self, thread: ThreadKey) -> None:
        """Drop all exchanges of a thread, and read nothing as context that was said before."""
        seen = self._store.key("seen", str(thread))
        await self._store.command("SET", seen, "1", "PX", self._keep_ms)
        keys = [self._store.key(kind, str(thread)) for kind in ("history", "names", "told")]
        await self._store.command("DEL", *keys)

    async def is_seen(self, thread: ThreadKey) -> bool:
        """Return whether nothing older is read as context, though nothing is remembered.

        Something of the thread was forgotten, which no context may bring back, or the first
        question has no answer, and nothing was before it.
        """
        return bool(await self._store.command("EXISTS", self._store.key("seen", str(thread))))

    async def tells(self, thread: ThreadKey, turn_id: str) -> bool:
        """Return whether this turn is to tell that the thread's beginning no longer fits.

        That is the first turn that asks; it may ask again.
        """
        told = self._store.key("told", str(thread))
        await self._store.command("SET", told, turn_id, "NX", "PX", self._keep_ms)
        await self._store.command("PEXPIRE", told, self._keep_ms)
        return bool(await self._store.command("GET", told) == turn_id)

    async def keep_message(self, name: str, message: ContextMessage) -> None:
        """Keep a message of others for an hour."""
        written = json.dumps(write_said(message), ensure_ascii=False)
        keys = [self._store.key("forgetting"), self._store.key("message", name)]
        person = message.person.id if message.person else ""
        job = named("person", name.partition(":")[0], person)
        await self._save(keys=keys, args=[job, _MESSAGE_SECONDS * 1000, written])

    async def kept_message(self, name: str) -> ContextMessage | None:
        """Return the message that `keep_message` kept; None if there is none any more."""
        written = await self._store.command("GET", self._store.key("message", name))
        try:
            return read_said(read_object(written)) if isinstance(written, str) else None
        except Unreadable:
            return None

    async def _named(self, thread: ThreadKey, exchanges: Sequence[Exchange]) -> list[Exchange]:
        unnamed = [one.person.id for one in exchanges if one.person.name == one.person.id]
        if not unnamed:
            return list(exchanges)
        key = self._store.key("names", str(thread))
        found: list[str | None] = await self._store.command("HMGET", key, *unnamed)
        await self._store.command("PEXPIRE", key, self._keep_ms)
        names = {Person(one, one): name for one, name in zip(unnamed, found, strict=True) if name}
        return [
            replace(one, person=replace(one.person, name=names.get(one.person, one.person.name)))
            for one in exchanges
        ]


def encode(exchange: Exchange) -> str:
    """Return an exchange as the JSON object that is stored."""
    value = asdict(exchange)
    # Older versions cannot read a person with another field.
    del value["person"]["workspace"]
    del value["quote"], value["context"], value["model"]
    if exchange.quote:
        value["quote"] = write_said(exchange.quote)
    if exchange.context:
        value["context"] = [write_said(each) for each in exchange.context]
    if exchange.model:
        value["model"] = exchange.model
    return json.dumps(value, ensure_ascii=False)


def decode(line: str) -> Exchange:
    """Read what `encode` of this or another version returned. Raises Unreadable."""
    value = read_object(line)
    model = value.get("model")
    return Exchange(
        turn_id=read_text(value, "turn_id"),
        person=read_person(value),
        asked_at=read_number(value, "asked_at"),
        question=read_text(value, "question"),
        answer=read_text(value, "answer"),
        quote=read_said(value.get("quote")),
        context=read_all_said(value.get("context")),
        model=whole_characters(model) if isinstance(model, str) else "",
    )


def _readable(line: str) -> Exchange | None:
    try:
        return decode(line)
    except Unreadable:
        return None


def _rating(line: str, person_id: str) -> tuple[str, str] | None:
    # Most lines have none, and all of them are long.
    if '"ratings"' not in line:
        return None
    try:
        value = read_object(line)
        ratings = value.get("ratings")
        rating = ratings.get(person_id) if isinstance(ratings, dict) else None
        return (read_text(value, "turn_id"), rating) if isinstance(rating, str) else None
    except Unreadable:
        return None
