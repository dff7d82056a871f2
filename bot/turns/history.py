"""What a thread remembers: its exchanges, oldest first."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from bot.domain import Exchange, Person, ThreadKey
from bot.store import Store
from bot.turns.records import Unreadable, read_number, read_object, read_person, read_text

log = logging.getLogger(__name__)


class History:
    """Reads and forgets the exchanges of threads; the queue's `finish` writes them."""

    def __init__(self, *, store: Store, keep_seconds: float) -> None:
        self._store = store
        self._keep_ms = int(keep_seconds * 1000)

    async def read(self, thread: ThreadKey) -> list[Exchange]:
        """Return the thread's exchanges, oldest first; reading keeps them for another while.

        Raises StoreUnavailable.
        """
        name = self._store.key("history", str(thread))
        lines: list[str] = await self._store.command("LRANGE", name, 0, -1)
        await self._store.command("PEXPIRE", name, self._keep_ms)
        exchanges = [exchange for line in lines if (exchange := _readable(line))]
        if len(exchanges) < len(lines):
            unreadable = len(lines) - len(exchanges)
            log.warning(
                "Thread %s: %d exchanges cannot be read and are left out", thread, unreadable
            )
        return await self._called(thread, exchanges)

    async def call(self, thread: ThreadKey, person: Person) -> None:
        """Let what a person without a name said in the thread stand under this one.

        Who has no name is called by the id. Raises StoreUnavailable.
        """
        names = self._store.key("names", str(thread))
        await self._store.command("HSET", names, person.id, person.name)
        await self._store.command("PEXPIRE", names, self._keep_ms)

    async def forget(self, thread: ThreadKey) -> None:
        """Drop all that the thread remembers. Raises StoreUnavailable."""
        keys = [self._store.key(kind, str(thread)) for kind in ("history", "names")]
        await self._store.command("DEL", *keys)

    async def _called(self, thread: ThreadKey, exchanges: Sequence[Exchange]) -> list[Exchange]:
        nameless = [one.person.id for one in exchanges if one.person.name == one.person.id]
        if not nameless:
            return list(exchanges)
        names = self._store.key("names", str(thread))
        answer: list[str | None] = await self._store.command("HMGET", names, *nameless)
        await self._store.command("PEXPIRE", names, self._keep_ms)
        called = {
            Person(who, who): name for who, name in zip(nameless, answer, strict=True) if name
        }
        return [
            replace(one, person=Person(one.person.id, called.get(one.person, one.person.name)))
            for one in exchanges
        ]


def encode(exchange: Exchange) -> str:
    """Write an exchange as the JSON object that stands in the store."""
    return json.dumps(
        {
            "turn_id": exchange.turn_id,
            "person": {"id": exchange.person.id, "name": exchange.person.name},
            "asked_at": exchange.asked_at,
            "question": exchange.question,
            "answer": exchange.answer,
        },
        ensure_ascii=False,
    )


def decode(line: str) -> Exchange:
    """Read back what `encode` wrote, or what another version did; Unreadable."""
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
