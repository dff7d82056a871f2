"""Reads the records of turns, for intake and open screens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bot.domain import Shown, ThreadKey, Turn
from bot.text.sanitize import whole_characters
from bot.turns.records import Unreadable, read_end, read_shown, read_turn
from bot.turns.script import QueueScript, known_thread, record_of

_HANDLED_SECONDS = 3600  # longer than a platform delivers an event again


class TurnLookup:
    """Reads turns; every method raises StoreUnavailable."""

    def __init__(self, script: QueueScript) -> None:
        self._script = script
        self._store = script.store

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        """Return the thread in which a reply was posted as this message."""
        key = self._store.key("posted", platform, message_id)
        return known_thread(
            f"message {message_id}", await self._store.command("GET", key), platform
        )

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        """Return the thread of a turn; None if the turn is not known."""
        key = self._store.key("turn", whole_characters(turn_id))
        thread = await self._store.command("HGET", key, "thread")
        return known_thread(f"turn {turn_id}", thread, turn_id.partition(":")[0])

    async def result(self, turn_id: str) -> Shown | None:
        """Return what an ended turn shows, all of it as text; None if it has no outcome."""
        state, message_ids, text, end, thread, forgotten = await self._store.command(
            *("HMGET", self._store.key("turn", whole_characters(turn_id))),
            *("state", "message_ids", "shown", "end", "thread", "forget"),
        )
        if state in (None, "queued", "running", "dropped"):
            return None
        newest = await self._store.command("GET", self._store.key("newest", thread or ""))
        shown = read_shown(turn_id, message_ids, text or "", "{}")
        end = "older" if forgotten or (newest and newest != turn_id) else read_end(end)
        return replace(shown, outcome=state, end=end)

    async def waits(self, turn_id: str, *, first_in: ThreadKey | None = None) -> bool:
        """Return whether a turn waits for its first attempt, and is not answered with another.

        With `first_in` no other turn of that thread is before it.
        """
        turn_id = whole_characters(turn_id)
        name = self._store.key("turn", turn_id)
        state, lead, attempts = await self._store.command(
            "HMGET", name, "state", "lead", "attempts"
        )
        if state != "queued" or lead or attempts != "0":
            return False
        if first_in is None:
            return True
        mailbox = self._store.key("mailbox", str(first_in))
        return bool(await self._store.command("LINDEX", mailbox, 0) == turn_id)

    async def records(self, *turn_ids: str) -> dict[str, dict[str, str]]:
        """Return the fields of turns, by their ids; none of an unknown turn."""
        rows = await self._script.run("standings", *turn_ids)
        pairs = zip(turn_ids, rows if isinstance(rows, list) else (), strict=False)
        return {turn_id: record_of(row) for turn_id, row in pairs}

    async def withheld(self, turn_ids: Sequence[str]) -> set[str]:
        """Return the turns that are excluded from the context.

        They wait, run, were forgotten, or were answered together with another turn.
        """
        answer = await self._script.run("withheld", *turn_ids)
        return set(answer) if isinstance(answer, list) else set()

    async def turn(self, turn_id: str) -> Turn | None:
        """Return a turn, without its question if it has ended; None if it is unreadable."""
        key = self._store.key("turn", whole_characters(turn_id))
        record = dict(await self._store.command("HGETALL", key))
        try:
            return read_turn(turn_id, turn_id.partition(":")[0], record)
        except Unreadable:
            return None

    async def note_handled(self, event_id: str) -> None:
        """Note for an hour that a command, press or form is handled; it may be delivered again."""
        key = self._store.key("handled", whole_characters(event_id))
        await self._store.command("SET", key, "1", "EX", _HANDLED_SECONDS)

    async def is_handled(self, event_id: str) -> bool:
        """Return whether a command, press or form was noted as handled."""
        key = self._store.key("handled", whole_characters(event_id))
        return bool(await self._store.command("EXISTS", key))

    async def is_idle(self, thread: ThreadKey) -> bool:
        """Return whether every turn of a thread has its outcome."""
        return not await self._store.command("LLEN", self._store.key("mailbox", str(thread)))
