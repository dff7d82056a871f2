"""The one door for every event."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial

from bot.domain import Json, Person, Place, ThreadKey, Turn
from bot.errors import NothingAsked, Refused, ThreadBusy
from bot.text.sanitize import whole_characters
from bot.text.truncate import CUT, left_out, without_middle
from bot.turns.history import History
from bot.turns.queue import TurnQueue

MAX_QUESTION = 64_000  # characters of a question that are kept; no platform sends as many
TOLD_SECONDS = 10.0  # for which a person who was refused need not be told again
_TOLD = 1000  # refusals that are remembered for that
_ENDING = 0.5  # seconds; people see the end of a reply a little before it is stored


class Intake:
    """Admits turns; adapters acknowledge a platform's event only after `admit` returned."""

    def __init__(self, *, queue: TurnQueue, history: History) -> None:
        self._queue = queue
        self._history = history
        # Who was refused what and in which channel, and when, in monotonic seconds, oldest first.
        self._told: dict[tuple[str, ...], float] = {}

    async def admit(self, turn: Turn) -> bool:
        """Store the turn and return True; False when another with its id is known.

        Raises Refused (its `apology` is for the person) and StoreUnavailable.
        """
        try:
            if not turn.text.strip():
                raise NothingAsked
            return await self._queue.admit(_whole(_bounded(turn)))
        except Refused as refused:
            refused.repeated = self._has_told(turn, refused)
            raise

    async def check_room(self, platform: str, person: Person) -> None:
        """Raise Refused if a turn of this person in a new thread would be refused now.

        For a question that is posted before it is admitted. Raises StoreUnavailable, too.
        """
        await self._queue.check_room(platform, _whole_person(person))

    async def stop(self, turn_id: str) -> bool:
        """Ask for the end of a turn's reply; False when it is not being worked on (any more)."""
        return await self._queue.stop(whole_characters(turn_id))

    async def stop_thread(self, thread: ThreadKey) -> bool:
        """Ask for the end of the reply that a thread's people see grow; False when there is none.

        Turns that wait there keep waiting.
        """
        return await self._queue.stop_thread(_whole_key(thread))

    async def regenerate(
        self, turn_id: str, *, person_id: str, press_id: str, place: Place | None = None
    ) -> None:
        """Have a thread's last answer written anew, in its messages, for the person who asked.

        `press_id` names what the person did: told twice, it is done once. The keys of `place` stand
        in the turn's place from now on. Raises Refused (its `apology` is for the person) and
        StoreUnavailable.
        """
        again = partial(
            self._queue.regenerate,
            whole_characters(turn_id),
            person_id=whole_characters(person_id),
            press_id=whole_characters(press_id),
            place=place and _whole_place(place),
        )
        try:
            await again()
        except ThreadBusy:
            await asyncio.sleep(_ENDING)
            await again()

    async def forget(self, *turn_ids: str, asked_at: float | None = None) -> None:
        """Drop turns whose questions were deleted: waiting, running or remembered.

        `asked_at` is when the last of them was asked, in seconds since the epoch; None if that is
        not known.
        """
        await self._queue.forget(*map(whole_characters, turn_ids), asked_at=asked_at)

    async def call(self, thread: ThreadKey, person: Person) -> None:
        """Tell a person's name that came later than the question; raises StoreUnavailable."""
        await self._history.call(thread, _whole_person(person))

    async def reset(self, thread: ThreadKey) -> None:
        """Drop all that a thread remembers."""
        await self._history.forget(thread)

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        """Return the thread of a turn; None when the turn is not known (any more)."""
        return await self._queue.thread_of_turn(whole_characters(turn_id))

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        """Return the thread in which a surface posted this message; None when it is not ours."""
        return await self._queue.thread_of(platform, message_id)

    def _has_told(self, turn: Turn, refused: Refused) -> bool:
        now, key = time.monotonic(), turn.key
        while self._told and (self._oldest <= now - TOLD_SECONDS or len(self._told) >= _TOLD):
            del self._told[next(iter(self._told))]
        who = (type(refused).__name__, key.platform, key.workspace, key.channel, turn.person.id)
        if who in self._told:
            return True
        self._told[who] = now
        return False

    @property
    def _oldest(self) -> float:
        return next(iter(self._told.values()))


def _bounded(turn: Turn) -> Turn:
    """Return a turn without the middle of a question that is too long to be kept."""
    text = turn.text
    if len(text) > MAX_QUESTION:
        text = without_middle(text, MAX_QUESTION - len(CUT))
    return replace(turn, text=text, left_out=left_out(turn.text, text))


def _whole(turn: Turn) -> Turn:
    """Return a turn that can be written in UTF-8: JSON may bring half a character anywhere."""
    return replace(
        turn,
        id=whole_characters(turn.id),
        key=_whole_key(turn.key),
        person=_whole_person(turn.person),
        text=whole_characters(turn.text),
        place=_whole_place(turn.place),
    )


def _whole_key(key: ThreadKey) -> ThreadKey:
    parts = (key.platform, key.workspace, key.channel, key.thread)
    return ThreadKey(*map(whole_characters, parts))


def _whole_person(person: Person) -> Person:
    return replace(person, id=whole_characters(person.id), name=whole_characters(person.name))


def _whole_place(place: Place) -> Place:
    return {whole_characters(name): _whole_json(value) for name, value in place.items()}


def _whole_json(value: Json) -> Json:
    match value:
        case str():
            return whole_characters(value)
        case list():
            return [_whole_json(each) for each in value]
        case dict():
            return {**_whole_place(value)}
        case _:
            return value
