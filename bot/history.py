"""What a thread remembers: its exchanges, oldest first."""

from __future__ import annotations

import json

from bot.domain import Exchange, Person, ThreadKey
from bot.store import Store


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
        return [decode(line) for line in lines]

    async def forget(self, thread: ThreadKey) -> None:
        """Drop all that the thread remembers. Raises StoreUnavailable."""
        await self._store.command("DEL", self._store.key("history", str(thread)))


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
    """Read back what `encode` wrote."""
    value = json.loads(line)
    return Exchange(
        turn_id=value["turn_id"],
        person=Person(**value["person"]),
        asked_at=value["asked_at"],
        question=value["question"],
        answer=value["answer"],
    )
