"""What a thread remembers: its exchanges, oldest first."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

from bot.domain import Exchange, Person, ThreadKey
from bot.store import Store
from bot.text.sanitize import whole_characters
from bot.turns.records import Unreadable, read_number, read_object, read_person, read_text

log = logging.getLogger(__name__)


class History:
    """Reads and forgets exchanges, which `TurnLeases.finish` writes. Raises StoreUnavailable."""

    def __init__(self, *, store: Store, keep_seconds: float) -> None:
        self._store = store
        self._keep_ms = int(keep_seconds * 1000)

    async def read(self, thread: ThreadKey) -> list[Exchange]:
        """Return the thread's exchanges, oldest first, and keep them for `keep_seconds` more."""
        name = self._store.key("history", str(thread))
        lines: list[str] = await self._store.command("LRANGE", name, 0, -1)
        await self._store.command("PEXPIRE", name, self._keep_ms)
        exchanges = [exchange for line in lines if (exchange := _readable(line))]
        if unreadable := len(lines) - len(exchanges):
            log.warning("Thread %s: leaving out %d unreadable exchanges", thread, unreadable)
        return await self._named(thread, exchanges)

    async def call(self, thread: ThreadKey, person: Person) -> None:
        """Save the name of a person whose exchanges have only an id."""
        names = self._store.key("names", str(thread))
        person_id, name = whole_characters(person.id), whole_characters(person.name)
        await self._store.command("HSET", names, person_id, name)
        await self._store.command("PEXPIRE", names, self._keep_ms)

    async def forget(self, thread: ThreadKey) -> None:
        """Drop all exchanges of a thread."""
        keys = [self._store.key(kind, str(thread)) for kind in ("history", "names")]
        await self._store.command("DEL", *keys)

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
    return json.dumps(value, ensure_ascii=False)


def decode(line: str) -> Exchange:
    """Read what `encode` of this or another version returned. Raises Unreadable."""
    value = read_object(line)
    return Exchange(
        turn_id=read_text(value, "turn_id"),
        person=read_person(value),
        asked_at=read_number(value, "asked_at"),
        question=read_text(value, "question"),
        answer=read_text(value, "answer"),
    )


def _readable(line: str) -> Exchange | None:
    try:
        return decode(line)
    except Unreadable:
        return None
