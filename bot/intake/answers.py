"""What people do with answers: stop, regenerate, continue and rate them, and allow calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

from prometheus_client import Counter

from bot import audit
from bot.domain import ANYBODY, Asker, Consent, Person, Place, Rating, Standing, ThreadKey, Turn
from bot.errors import HasEnded, NotRemembered, NotTheAsker, SurfaceError, ThreadBusy
from bot.intake.access import AccessControl, bounded
from bot.tools.questions import Filled, Question, read_question
from bot.turns.queue import TurnQueue

_T = TypeVar("_T")

# The question of a turn that continues another one's answer. The history shows it to later prompts.
GO_ON = (
    "Your last answer was cut off. Go on exactly where it stopped, in its language: do not repeat"
    " any of it, and do not begin with an introduction."
)
THANKS = "Thank you, I have noted that."  # to a person who rates an answer
# To an admin who allows another person's call for always, to others who answer, and after the end.
ALLOWED_ONCE = "I take this as allowed once: only the person who asked can allow it for always."
NOT_YOURS = "Only the person who asked can allow or deny this."
NOT_YOURS_TO_ANSWER = "Only the person who asked can answer this."
NOT_WAITING = "This no longer waits for an answer."
_FEEDBACK = Counter(
    "parley_feedback_total", "First ratings of an answer by a person", ["model", "kind"]
)
_READING_SECONDS = 1.0  # of the time that a platform waits for an answer to a press
_ENDING_SECONDS = 0.5  # time between the last write of a reply and the storing of its end


class Answers:
    """Changes answers; every method raises StoreUnavailable, and Refused where it says so.

    A `press_id` names an event, which counts once if it is delivered twice. `at` is a thread of the
    channel in which a button was pressed: its answer must be there, because the id of the turn
    comes from the person's client.
    """

    def __init__(self, *, queue: TurnQueue, access: AccessControl) -> None:
        self._queue = queue
        self._access = access

    async def stop(self, turn_id: str, *, person_id: str = "", at: ThreadKey | None = None) -> None:
        """Ask for the end of a turn's reply. Raises HasEnded, also if the turn is not known.

        Raises NotTheAsker if another person has asked. An empty `person_id` may stop any reply.
        """
        is_there = not at or _is_in_channel(at, await self._queue.lookup.thread_of_turn(turn_id))
        if not is_there or not await self._queue.changes.stop(turn_id, person_id=person_id):
            raise HasEnded

    async def stop_own(
        self,
        turn_id: str,
        thread: ThreadKey,
        person: Person,
        *,
        channel: str = "",
        manages: Callable[[], Awaitable[bool]] | bool = False,
    ) -> bool:
        """Ask for the end of a person's answers in a thread; False if none runs there.

        With a `channel`, those in all its threads end, too. If the person `manages` messages and
        has no answer there, another's in the thread ends; a function is called only if one is open.
        `turn_id` is that of the message with the request: a redelivery returns the same, and it is
        not admitted.
        """
        if await self._queue.changes.stop_own(turn_id, thread, person, channel=channel):
            return True
        if not await self._queue.lookup.first_open(thread):
            return False
        may_stop = manages if isinstance(manages, bool) else await manages()
        may_stop = may_stop or self._access.rules.is_admin(person)
        if not may_stop or not await self._queue.changes.stop_thread(thread):
            return False
        # A redelivery is not a question either.
        await self._queue.changes.forget(turn_id)
        return True

    async def regenerate(
        self,
        turn_id: str,
        *,
        person_id: str,
        press_id: str,
        at: ThreadKey | None = None,
        place: Place | None = None,
        asker: Asker = ANYBODY,
        reread: Callable[[Turn], Awaitable[str]] | None = None,
    ) -> Turn:
        """Queue a thread's last turn again, to replace its answer in its messages.

        Return it, perhaps without its question. The keys of `place` update the turn's place.
        `reread` returns the question as it stands now; if that is empty or takes too long, the
        stored one is asked. Raises Refused.
        """
        turn = await self._asked_by(person_id, turn_id, at)
        if text := await _soon(reread(turn)) if reread else "":
            turn = bounded(replace(turn, text=text))
        quota = await self._access.quota(turn.key, turn.person, asker)
        await _after_the_end(
            lambda: self._queue.changes.regenerate(
                turn_id,
                person_id=person_id,
                press_id=press_id,
                place=place,
                text=turn.text if text else "",
                left_out=turn.left_out,
                quota=quota,
                estimate=self._access.estimate(turn),
            )
        )
        return turn

    async def branch(
        self,
        turn_id: str,
        *,
        person_id: str,
        press_id: str,
        text: str = "",
        asker: Asker = ANYBODY,
    ) -> bool:
        """Answer a question again, or another `text` in its place, and keep what was there.

        Return whether that is a new turn, whose id is `press_id`. If there was no answer to keep,
        the turn is queued again. For platforms on which versions can be opened. Raises Refused.
        """
        turn = await self._asked_by(person_id, turn_id, None)
        files = tuple(replace(one, message=press_id) for one in turn.files)
        following = replace(turn, id=press_id, asked_at=time.time(), files=files, joins=False)
        if text:
            following = bounded(replace(following, text=text, left_out=0))
        quota = await self._access.quota(turn.key, turn.person, asker)
        estimate, changes = self._access.estimate(following), self._queue.changes
        how: Any = {"person_id": person_id, "quota": quota, "estimate": estimate}
        return await _after_the_end(lambda: changes.branch(turn_id, following, **how))

    async def open(self, turn_id: str, *, person_id: str) -> None:
        """Open a version that `branch` kept, with what followed it. Raises Refused."""
        await self._queue.changes.open(turn_id, person_id=person_id)

    async def continue_answer(
        self,
        turn_id: str,
        *,
        person_id: str,
        press_id: str,
        at: ThreadKey | None = None,
        place: Place | None = None,
        asker: Asker = ANYBODY,
    ) -> Turn:
        """Queue a turn that continues the cut answer of a thread's last turn.

        Return the new turn, whose id is `press_id`. It is answered at `place`, or where the first
        one was. Raises Refused.
        """
        turn = await self._asked_by(person_id, turn_id, at)
        quota = await self._access.quota(turn.key, turn.person, asker)
        following = replace(
            turn,
            id=press_id,
            text=GO_ON,
            place=turn.place if place is None else place,
            asked_at=time.time(),
            left_out=0,
            joins=False,
        )
        await _after_the_end(
            lambda: self._queue.changes.continue_answer(
                turn_id,
                following,
                person_id=person_id,
                quota=quota,
                estimate=self._access.estimate(following),
            )
        )
        return following

    async def rate(
        self,
        turn_id: str,
        *,
        person_id: str,
        rating: Rating | Literal[""],
        at: ThreadKey | None = None,
        asker: Asker = ANYBODY,
    ) -> None:
        """Store a person's rating of an answer, which replaces an earlier one; "" removes it.

        Raises Refused, also if the person may not use the bot in the place of the answer.
        """
        thread = await self._queue.lookup.thread_of_turn(turn_id) if rating else None
        if at and not _is_in_channel(at, thread):
            raise NotRemembered
        if thread:
            await self._access.check(thread, Person(person_id, person_id), asker)
        model, is_first = await _after_the_end(
            lambda: self._queue.changes.rate(turn_id, person_id=person_id, rating=rating)
        )
        if is_first and rating:
            _FEEDBACK.labels(model or "unknown", rating).inc()
        if rating == "bad":
            which = turn_id, person_id
            audit.note_hourly("rated", *which, rating="no", turn=turn_id, person=person_id)

    async def decide(
        self,
        turn_id: str,
        call_id: str,
        consent: Consent,
        *,
        person_id: str,
        at: ThreadKey | None = None,
        is_admin: Callable[[], Awaitable[bool]] | bool = False,
    ) -> Consent:
        """Answer whether a call may be made; return the answer that counts.

        The asker may do so, and admins; a function is called only for other people than the asker.
        An admin's "always" counts as "allow", because the list is the asker's own. A question of
        the call's server is answered by the asker alone; an admin may only deny it. Raises
        NotTheAsker, and HasEnded if the call does not wait for an answer, or not any more.
        """
        if at and not _is_in_channel(at, await self._queue.lookup.thread_of_turn(turn_id)):
            raise HasEnded(NOT_WAITING)
        decide = partial(self._queue.changes.decide, turn_id, call_id, person_id=person_id)
        try:
            waited = await decide(consent, is_admin=False)
        except NotTheAsker:
            may_answer = self._access.rules.is_admin(Person(person_id, person_id))
            if not may_answer:
                may_answer = is_admin if isinstance(is_admin, bool) else await is_admin()
            if not may_answer:
                raise NotTheAsker(NOT_YOURS) from None
            consent = "allow" if consent == "always" else consent
            waited = await decide(consent, is_admin=True)
        if not waited:
            raise HasEnded(NOT_WAITING)
        if consent == "always":
            audit.note("allowed", call=call_id, turn=turn_id, person=person_id)
        return consent

    async def question(
        self, turn_id: str, call_id: str, *, person_id: str, at: ThreadKey
    ) -> Question:
        """Return what a tool's server asks, for a form. Raises NotTheAsker and HasEnded."""
        turn = await self._queue.lookup.turn(turn_id)
        asked = await self._queue.lookup.question(turn_id, call_id)
        if turn is None or not _is_in_channel(at, turn.key) or not asked:
            raise HasEnded(NOT_WAITING)
        if turn.person.id != person_id:
            raise NotTheAsker(NOT_YOURS_TO_ANSWER)
        return read_question(asked)

    async def fill_in(
        self, turn_id: str, call_id: str, filled: Filled, *, person_id: str, at: ThreadKey
    ) -> None:
        """Store what the asker has written into the form of a server's question; the turn goes on.

        Raises AnswerRefused if a value does not fit its field, NotTheAsker, and HasEnded.
        """
        asked = await self.question(turn_id, call_id, person_id=person_id, at=at)
        decide, words = self._queue.changes.decide, asked.answers(filled)
        if not await decide(
            turn_id, call_id, "answer", person_id=person_id, is_admin=False, words=words
        ):
            raise HasEnded(NOT_WAITING)

    async def _asked_by(self, person_id: str, turn_id: str, at: ThreadKey | None) -> Turn:
        turn = await self._queue.lookup.turn(turn_id)
        if turn is None or (at and not _is_in_channel(at, turn.key)):
            raise NotRemembered
        if turn.person.id != person_id:
            raise NotTheAsker
        return turn


def question_of(standing: Standing) -> str:
    """Return what a person has asked; "" if the turn only goes on the answer before it."""
    return "" if standing.question == GO_ON else standing.question


def _is_in_channel(at: ThreadKey, thread: ThreadKey | None) -> bool:
    return thread is not None and replace(at, thread="") == replace(thread, thread="")


async def _soon(reading: Awaitable[str]) -> str:
    """Return a text; empty if the platform does not give it in time."""
    with suppress(SurfaceError, TimeoutError):
        async with asyncio.timeout(_READING_SECONDS):
            return (await reading).strip()
    return ""


async def _after_the_end(press: Callable[[], Awaitable[_T]]) -> _T:
    """Act on a press of a button, which may be visible a little before its reply has ended."""
    try:
        return await press()
    except ThreadBusy:
        await asyncio.sleep(_ENDING_SECONDS)
        return await press()
