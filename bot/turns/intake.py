"""The entrance for what people do; adapters acknowledge an event after the call has returned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from prometheus_client import Counter

from bot.domain import End, Person, Place, Rating, ThreadKey, Turn
from bot.errors import NothingAsked, NotRemembered, Refused, ThreadBusy
from bot.text.graphemes import CUT, left_out, without_middle
from bot.turns.history import History
from bot.turns.queue import TurnQueue

MAX_QUESTION = 64_000  # characters of a question that are kept; no platform sends as many
# The question of a turn that continues another one's answer. The history shows it to later prompts.
GO_ON = (
    "Your last answer was cut off. Go on exactly where it stopped, in its language: do not repeat"
    " any of it, and do not begin with an introduction."
)
REPEAT_SECONDS = 10.0  # in which a person is not refused twice with the same words
_MOST_REFUSALS = 1000  # remembered for that
THANKS = "Thank you, I have noted that."  # to a person who rates an answer
_FEEDBACK = Counter(
    "parley_feedback_total", "First ratings of an answer by a person", ["model", "kind"]
)
_ENDING_SECONDS = 0.5  # a reply's last write is seen a little before its end is stored


class Intake:
    """Admits turns and changes them later. Every method raises StoreUnavailable."""

    def __init__(
        self, *, queue: TurnQueue, history: History, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._history = history
        self._clock = clock
        # When a person was refused in a channel, by the clock, oldest first.
        self._refused_at: dict[tuple[str, ...], float] = {}

    async def admit(self, turn: Turn) -> bool:
        """Store the turn and return True; False if another turn has its id.

        Raises Refused, whose `apology` is for the person.
        """
        try:
            if not turn.text.strip():
                raise NothingAsked
            return await self._queue.admit(_bounded(turn))
        except Refused as refused:
            refused.repeated = self._is_repeated(turn, refused)
            raise

    async def check_room(self, platform: str, person: Person) -> None:
        """Raise Refused if a turn of this person in a new thread would be refused now.

        For a question that is posted before it is admitted.
        """
        await self._queue.check_room(platform, person)

    async def stop(self, turn_id: str, *, person_id: str = "") -> bool:
        """Ask for the end of a turn's reply; False if the turn has ended or is not known.

        Raises NotTheAsker if another person has asked. An empty `person_id` stands for somebody who
        may stop any reply there.
        """
        return await self._queue.stop(turn_id, person_id=person_id)

    async def rate(self, turn_id: str, *, person_id: str, rating: Rating) -> None:
        """Keep what a person thinks of an answer; another rating replaces it. Raises Refused."""
        model, is_first = await self._queue.rate(turn_id, person_id=person_id, rating=rating)
        if is_first:
            _FEEDBACK.labels(model or "unknown", rating).inc()

    async def how_ended(self, turn_id: str) -> End | None:
        """Return how the answer of a turn stands; None if it has not ended or is not known."""
        shown = await self._queue.result(turn_id)
        return shown.end if shown else None

    async def stop_thread(self, thread: ThreadKey) -> bool:
        """Ask for the end of the reply that grows in a thread; False if there is none.

        Turns that wait in the thread keep waiting.
        """
        return await self._queue.stop_thread(thread)

    async def regenerate(
        self, turn_id: str, *, person_id: str, press_id: str, place: Place | None = None
    ) -> None:
        """Queue a thread's last turn again, to replace its answer in its messages.

        `press_id` names the event: if it is delivered twice, it counts once. The keys of `place`
        update the turn's place. Raises Refused, whose `apology` is for the person.
        """
        await _after_the_end(
            partial(
                self._queue.regenerate, turn_id, person_id=person_id, press_id=press_id, place=place
            )
        )

    async def go_on(
        self, turn_id: str, *, person_id: str, press_id: str, place: Place | None = None
    ) -> None:
        """Queue a turn that goes on where the answer of a thread's last turn was cut.

        `press_id` names the event, and the new turn: if it is delivered twice, it counts once. The
        turn is answered at `place`, or where the first one was. Raises Refused, whose `apology` is
        for the person.
        """
        turn = await self._queue.turn(turn_id)
        if turn is None:
            raise NotRemembered
        place, now = turn.place if place is None else place, time.time()
        following = Turn(press_id, turn.key, turn.person, GO_ON, place, now)
        await _after_the_end(partial(self._queue.go_on, turn_id, following, person_id=person_id))

    async def forget(self, *turn_ids: str, asked_at: float | None = None) -> None:
        """Drop turns whose questions were deleted: waiting, running or remembered.

        `asked_at` is when the last of them was asked, in seconds since the epoch; None if that is
        not known.
        """
        await self._queue.forget(*turn_ids, asked_at=asked_at)

    async def call(self, thread: ThreadKey, person: Person) -> None:
        """Save a person's name that was not known when the turn was admitted."""
        await self._history.call(thread, person)

    async def reset(self, thread: ThreadKey) -> None:
        """Drop the history of a thread."""
        await self._history.forget(thread)

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        """Return the thread of a turn; None if the turn is not known."""
        return await self._queue.thread_of_turn(turn_id)

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        """Return the thread in which a surface posted this message; None if none did."""
        return await self._queue.thread_of(platform, message_id)

    def _is_repeated(self, turn: Turn, refused: Refused) -> bool:
        now, key, known = self._clock(), turn.key, self._refused_at
        while known:
            oldest, at = next(iter(known.items()))
            if at > now - REPEAT_SECONDS and len(known) < _MOST_REFUSALS:
                break
            del known[oldest]
        refusal = type(refused).__name__, key.platform, key.workspace, key.channel, turn.person.id
        is_repeated = refusal in known
        known.setdefault(refusal, now)
        return is_repeated


async def _after_the_end(press: Callable[[], Awaitable[None]]) -> None:
    """Act on a press of a button that may have been shown a little before its reply has ended."""
    try:
        await press()
    except ThreadBusy:
        await asyncio.sleep(_ENDING_SECONDS)
        await press()


def _bounded(turn: Turn) -> Turn:
    """Return a turn without the middle of a question that is too long to be kept."""
    if len(turn.text) <= MAX_QUESTION:
        return turn
    text = without_middle(turn.text, MAX_QUESTION - len(CUT))
    return replace(turn, text=text, left_out=left_out(turn.text, text))
