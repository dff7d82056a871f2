"""What is remembered of what people said, and how it is forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from bot.domain import ContextMessage, Exchange, Person, ThreadKey
from bot.turns.forgetting import named
from bot.turns.queue import TurnQueue
from bot.turns.records import History


class Memory:
    """Remembers and forgets. Every method raises StoreUnavailable."""

    def __init__(self, *, queue: TurnQueue, history: History) -> None:
        self._queue = queue
        self._history = history

    async def exchanges(self, thread: ThreadKey) -> list[Exchange]:
        """Return what a thread remembers, oldest first."""
        return await self._history.read(thread)

    async def save_name(self, thread: ThreadKey, person: Person) -> None:
        """Save a person's name that was not known when the turn was admitted."""
        await self._history.save_name(thread, person)

    async def keep_message(self, name: str, message: ContextMessage) -> None:
        """Store a message for an hour, for a person's question about it."""
        await self._history.keep_message(name, message)

    async def kept_message(self, name: str) -> ContextMessage | None:
        """Return the message that is stored under this name; None if it has expired."""
        return await self._history.kept_message(name)

    async def reset(self, thread: ThreadKey, *, event_id: str = "") -> None:
        """Forget all that was said in a thread; see `TurnQueue.reset`."""
        await self._queue.reset(thread, event_id)

    async def forget(
        self,
        *turn_ids: str,
        asked_at: float | None = None,
        platform: str = "",
        messages: Sequence[str] = (),
    ) -> None:
        """Drop turns whose questions, or messages of whose answers, were deleted.

        `asked_at` is when the last of them was asked, in seconds since the epoch; None if that is
        not known. `messages` of the platform may be of answers; messages that a worker has deleted
        are ignored.
        """
        await self._queue.forget(*turn_ids, asked_at=asked_at, platform=platform, messages=messages)

    async def forget_answers(self, *turn_ids: str) -> None:
        """Drop the answers of forgotten turns, too, if late writes need no correction."""
        await self._queue.forget_answers(*turn_ids)

    async def forget_person(self, platform: str, person: Person) -> None:
        """Begin to remove all data of a person on a platform; see `has_forgotten`.

        A worker does it, also after a crash. Until its end the person is refused.
        """
        await self._queue.forgetting.begin(named("person", platform, person.id))

    async def has_forgotten(self, platform: str, person: Person) -> bool:
        """Return whether `forget_person` has removed all data."""
        return await self._queue.forgetting.is_done(named("person", platform, person.id))
