"""What is known of turns and messages."""

from __future__ import annotations

from collections.abc import Sequence

from bot.domain import End, Standing, ThreadKey
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.standings import standing


class Lookup:
    """Finds what is known of turns, messages and events. Every method raises StoreUnavailable."""

    def __init__(self, *, queue: TurnQueue, history: History) -> None:
        self._queue = queue
        self._history = history

    async def standings(
        self, thread: ThreadKey, turn_ids: Sequence[str], *, person_id: str
    ) -> list[Standing]:
        """Return the states of turns of a thread, without unknown and forgotten ones.

        The ratings are those of this person.
        """
        known = await self._queue.lookup.standings(*turn_ids) if turn_ids else []
        remembered = {one.turn_id: one for one in await self._history.read(thread)}
        ratings = await self._history.ratings(thread, person_id)
        return [
            standing(one, remembered.get(one.turn.id), ratings.get(one.turn.id, ""))
            for one in known
        ]

    async def how_ended(self, turn_id: str) -> End | None:
        """Return how a turn's answer ended; None if it has not ended or is not known."""
        shown = await self._queue.lookup.result(turn_id)
        return shown.end if shown else None

    async def asker(self, turn_id: str) -> str:
        """Return the id of the person who asked for a turn; empty if the turn is not known."""
        turn = await self._queue.lookup.turn(turn_id)
        return turn.person.id if turn else ""

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        """Return the thread of a turn; None if the turn is not known."""
        return await self._queue.lookup.thread_of_turn(turn_id)

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        """Return the thread in which a surface posted this message; None if none did."""
        return await self._queue.lookup.thread_of(platform, message_id)

    async def note_handled(self, event_id: str) -> None:
        """Note for an hour that a command, press or form is handled; it may be delivered again."""
        await self._queue.note_handled(event_id)

    async def is_handled(self, event_id: str) -> bool:
        """Return whether a command, press or form was noted as handled."""
        return await self._queue.is_handled(event_id)
