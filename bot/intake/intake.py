"""The entry point for events; adapters acknowledge an event after the call has returned."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Literal, TypeVar

from prometheus_client import Counter

from bot.access.preferences import PreferenceStore, Scope, resolved
from bot.access.quotas import Quota, Usage
from bot.access.rules import AccessRules
from bot.cache import BoundedCache
from bot.domain import (
    ANYBODY,
    Asker,
    ContextMessage,
    End,
    Exchange,
    Follow,
    Person,
    Place,
    Preferences,
    Rating,
    Standing,
    ThreadKey,
    Turn,
)
from bot.errors import (
    NotAllowed,
    NothingAsked,
    NotRemembered,
    NotTheAsker,
    Refused,
    StoreUnavailable,
    SurfaceError,
    ThreadBusy,
)
from bot.intake.addressed import Facts, Speakers, depends_on_follow, ignore_reason
from bot.text.graphemes import CUT, left_out, without_middle
from bot.tokens.counters import estimate
from bot.turns.context import newest, shortened
from bot.turns.forgetting import named
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.standings import standing

log = logging.getLogger(__name__)

_T = TypeVar("_T")

MAX_QUESTION = 64_000  # characters of a question that are kept; no platform sends as many
# The question of a turn that continues another one's answer. The history shows it to later prompts.
GO_ON = (
    "Your last answer was cut off. Go on exactly where it stopped, in its language: do not repeat"
    " any of it, and do not begin with an introduction."
)
# Messages that do not call the bot may see a change of access this many seconds late.
_CHOSEN_CACHE_SECONDS = 1.0
REPEAT_SECONDS = 10.0  # between equal refusals of a person
THANKS = "Thank you, I have noted that."  # to a person who rates an answer
_FEEDBACK = Counter(
    "parley_feedback_total", "First ratings of an answer by a person", ["model", "kind"]
)
_REFUSED = Counter(
    "parley_refusals_total", "Questions that were refused, by the reason", ["platform", "kind"]
)
_READING_SECONDS = 1.0  # of the time that a platform waits for an answer to a press
_ENDING_SECONDS = 0.5  # time between the last write of a reply and the storing of its end


_OPEN = AccessRules()
_Preferences = Mapping[Scope, Preferences]


class Intake:
    """Admits turns and changes them later. Every method raises StoreUnavailable.

    `preferences` are those of threads, channels and servers; `follow` applies if nothing is chosen.
    Requests to the model are refused with NotAllowed or QuotaUsed according to `access` and the
    choices of admins. An answer has at most `longest` tokens, which are reserved together with the
    estimated length of its question.
    """

    def __init__(
        self,
        *,
        queue: TurnQueue,
        history: History,
        follow: Follow = "auto",
        access: AccessRules = _OPEN,
        longest: int = 0,
        preferences: PreferenceStore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.preferences = preferences or PreferenceStore(store=queue.leases.store)
        self._queue = queue
        self._history = history
        self.follow: Follow = follow
        self.access = access
        self._longest = longest
        self._speakers = Speakers(queue, clock=clock)
        # For messages that may not be for the bot; an admission reads the preferences again.
        self._preferences_cache: BoundedCache[ThreadKey, _Preferences] = BoundedCache(clock=clock)
        # The refusals that a person has just read in a channel.
        self._refusals: BoundedCache[tuple[str, ...], bool] = BoundedCache(clock=clock)

    async def check_access(
        self, thread: ThreadKey, person: Person, asker: Asker, *, called: bool = True
    ) -> None:
        """Raise NotAllowed if a person may not use the bot in a thread.

        It is `repeated` if the person has not `called` the bot, or has read it in the last day.
        Adapters call this before they handle a message or a command.
        """
        chosen = (
            await self._preferences_of(thread) if called else await self._cached_preferences(thread)
        )
        await self._check(thread, person, asker, chosen, called=called)

    async def _check(
        self, thread: ThreadKey, person: Person, asker: Asker, chosen: _Preferences, *, called: bool
    ) -> None:
        try:
            self.access.check(thread, person, asker, chosen)
        except NotAllowed as refused:
            log.info("Person %s: no access in %s: %s", person.id, thread, refused)
            refused.repeated = not called or not await self._claim_refusal_notice(thread, person)
            raise

    async def depends_on_roles(self, thread: ThreadKey) -> bool:
        """Return whether access in a thread depends on roles."""
        chosen = await self._cached_preferences(thread)
        return bool(self.access.roles) or any(one.roles for one in chosen.values())

    async def usage(self, thread: ThreadKey, person: Person, asker: Asker) -> Usage:
        """Return what a person, and the server of a thread, have used today, and their quota."""
        quota = self.access.quota_of(person, asker, await self._preferences_of(thread))
        return await self._queue.usage(thread, person, quota)

    async def note_message(
        self, facts: Facts, thread: ThreadKey | None, *people: str, ours: bool = False
    ) -> bool:
        """Note the speakers of a message's thread; return whether it is for the bot.

        Adapters call this for each message in a thread: its people count as speakers even if it is
        not for the bot. `people` are the ids of the author and perhaps others. The `thread` is None
        outside of threads. `ours`: the bot has opened it.
        """
        if thread is not None:
            speakers = await self._speakers.count(
                thread, *people, ours=ours, called=facts.calls_bot
            )
            facts = replace(facts, speakers=speakers)
        follow = self.follow
        if thread and depends_on_follow(facts):
            follow = resolved(await self.preferences.read(thread)).follow or follow
        if why := ignore_reason(facts, follow):
            place = f"in {thread}" if thread else "outside of threads"
            log.debug("A message of %s %s is ignored: %s", ", ".join(people), place, why)
        return not why

    async def admit(self, turn: Turn) -> bool:
        """Store the turn and return True; False if another turn has its id.

        Raises Refused, whose `apology` is for the person.
        """
        try:
            quota = await self._quota(turn.key, turn.person, turn.asker)
            if not turn.text.strip():
                raise NothingAsked
            bounded = _bounded(turn)
            is_admitted = await self._queue.admit(
                bounded, quota=quota, estimate=self._estimate(bounded)
            )
        except Refused as refused:
            _REFUSED.labels(turn.key.platform, type(refused).__name__).inc()
            refused.repeated = refused.repeated or self._note_refusal(turn, refused)
            raise
        if is_admitted:
            self._speakers.note_ours(turn.key)
        return is_admitted

    async def still_waits(self, turn: Turn, *, after: float, first: bool = False) -> bool:
        """Return whether a turn waits for a worker after so many seconds.

        With `first`, only if it is the first turn of its thread.
        """
        await asyncio.sleep(after)
        return await self._queue.waits(turn.id, first_in=turn.key if first else None)

    async def edit(self, turn: Turn, *, edited_at: float) -> None:
        """Answer a turn again whose author has edited its question; see `TurnQueue.edit`.

        `turn` has the current text, and `edited_at` is when that was written, in seconds since the
        epoch. An emptied question keeps its answer. Raises Refused, whose `apology` is
        for the person.
        """
        quota = await self._quota(turn.key, turn.person, turn.asker)
        if turn.text.strip():
            turn = _bounded(turn)
            tokens = self._estimate(turn)
            await self._queue.edit(turn, edited_at=edited_at, quota=quota, estimate=tokens)

    async def check_room(self, turn: Turn) -> None:
        """Raise Refused if a turn like this one in a new thread would be refused now.

        For a question that is posted before it is admitted.
        """
        quota = await self._quota(turn.key, turn.person, turn.asker)
        await self._queue.check_room(turn, quota=quota, estimate=self._estimate(turn))

    async def stop(self, turn_id: str, *, person_id: str = "") -> bool:
        """Ask for the end of a turn's reply; False if the turn has ended or is not known.

        Raises NotTheAsker if another person has asked. An empty `person_id` may stop any reply.
        """
        return await self._queue.stop(turn_id, person_id=person_id)

    async def rate(
        self,
        turn_id: str,
        *,
        person_id: str,
        rating: Rating | Literal[""],
        asker: Asker = ANYBODY,
    ) -> None:
        """Store a person's rating of an answer, which replaces an earlier one; "" removes it.

        Raises Refused, also if the person may not use the bot in the place of the answer.
        """
        if rating and (thread := await self._queue.thread_of_turn(turn_id)):
            await self.check_access(thread, Person(person_id, person_id), asker)
        model, is_first = await _after_the_end(
            partial(self._queue.rate, turn_id, person_id=person_id, rating=rating)
        )
        if is_first and rating:
            _FEEDBACK.labels(model or "unknown", rating).inc()

    async def how_ended(self, turn_id: str) -> End | None:
        """Return how a turn's answer ended; None if it has not ended or is not known."""
        shown = await self._queue.result(turn_id)
        return shown.end if shown else None

    async def standings(
        self, thread: ThreadKey, turn_ids: Sequence[str], *, person_id: str
    ) -> list[Standing]:
        """Return the states of turns of a thread, without unknown and forgotten ones.

        The ratings are those of this person.
        """
        known = await self._queue.standings(*turn_ids) if turn_ids else []
        remembered = {one.turn_id: one for one in await self._history.read(thread)}
        ratings = await self._history.ratings(thread, person_id)
        return [
            standing(one, remembered.get(one.turn.id), ratings.get(one.turn.id, ""))
            for one in known
        ]

    async def stop_thread(self, thread: ThreadKey) -> bool:
        """Ask for the end of the reply that is running in a thread; False if there is none.

        Turns that wait in the thread keep waiting.
        """
        return await self._queue.stop_thread(thread)

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
        if await self._queue.stop_own(turn_id, thread, person, channel=channel):
            return True
        if await self._queue.is_idle(thread):
            return False
        may_stop = manages if isinstance(manages, bool) else await manages()
        if not (may_stop or self.access.is_admin(person)) or not await self.stop_thread(thread):
            return False
        # A redelivery is not a question either.
        await self._queue.forget(turn_id)
        return True

    async def regenerate(
        self,
        turn_id: str,
        *,
        person_id: str,
        press_id: str,
        place: Place | None = None,
        asker: Asker = ANYBODY,
        reread: Callable[[Turn], Awaitable[str]] | None = None,
    ) -> Turn:
        """Queue a thread's last turn again, to replace its answer in its messages.

        Return it, perhaps without its question. `press_id` names the event: if it is delivered
        twice, it counts once. The keys of `place` update the turn's place. `reread` returns the
        question as it stands now; if that is empty or takes too long, the stored one is asked.
        Raises Refused, whose `apology` is for the person.
        """
        turn = await self._pressed(turn_id, person_id)
        text = await _soon(reread(turn)) if reread else ""
        turn = _bounded(replace(turn, text=text)) if text else turn
        press = partial(
            self._queue.regenerate,
            turn_id,
            person_id=person_id,
            press_id=press_id,
            place=place,
            text=turn.text if text else "",
            left_out=turn.left_out,
            quota=await self._quota(turn.key, turn.person, asker),
            estimate=self._estimate(turn),
        )
        await _after_the_end(press)
        return turn

    async def continue_answer(
        self,
        turn_id: str,
        *,
        person_id: str,
        press_id: str,
        place: Place | None = None,
        asker: Asker = ANYBODY,
    ) -> Turn:
        """Queue a turn that continues the cut answer of a thread's last turn.

        Return the new turn. `press_id` names the event, and that turn: if it is delivered twice, it
        counts once. The turn is answered at `place`, or where the first one was. Raises Refused,
        whose `apology` is for the person.
        """
        turn = await self._pressed(turn_id, person_id)
        quota = await self._quota(turn.key, turn.person, asker)
        following = replace(
            turn,
            id=press_id,
            text=GO_ON,
            place=turn.place if place is None else place,
            asked_at=time.time(),
            left_out=0,
            joins=False,
        )
        press = partial(self._queue.continue_answer, turn_id, following, person_id=person_id)
        await _after_the_end(partial(press, quota=quota, estimate=self._estimate(following)))
        return following

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

    async def save_name(self, thread: ThreadKey, person: Person) -> None:
        """Save a person's name that was not known when the turn was admitted."""
        await self._history.save_name(thread, person)

    async def remembered(self, thread: ThreadKey) -> list[Exchange]:
        """Return what a thread remembers, oldest first."""
        return await self._history.read(thread)

    async def reset(self, thread: ThreadKey, *, event_id: str = "") -> None:
        """Forget all that was said in a thread; see `TurnQueue.reset`."""
        await self._queue.reset(thread, event_id)

    async def asker(self, turn_id: str) -> str:
        """Return the id of the person who asked for a turn; empty if the turn is not known."""
        turn = await self._queue.turn(turn_id)
        return turn.person.id if turn else ""

    async def note_handled(self, event_id: str) -> None:
        """Note for an hour that a command, press or form is handled; it may be delivered again."""
        await self._queue.note_handled(event_id)

    async def is_handled(self, event_id: str) -> bool:
        """Return whether a command, press or form was noted as handled."""
        return await self._queue.is_handled(event_id)

    async def keep_message(self, name: str, message: ContextMessage) -> None:
        """Store a message for an hour, for a person's question about it."""
        await self._history.keep_message(name, message)

    async def kept_message(self, name: str) -> ContextMessage | None:
        """Return the message that is stored under this name; None if it has expired."""
        return await self._history.kept_message(name)

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        """Return the thread of a turn; None if the turn is not known."""
        return await self._queue.thread_of_turn(turn_id)

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        """Return the thread in which a surface posted this message; None if none did."""
        return await self._queue.thread_of(platform, message_id)

    async def _quota(self, thread: ThreadKey, person: Person, asker: Asker) -> Quota:
        """Return what a person may use in a day. Raises NotAllowed if they may use nothing."""
        chosen = await self._preferences_of(thread)
        await self._check(thread, person, asker, chosen, called=True)
        return self.access.quota_of(person, asker, chosen)

    async def _preferences_of(self, thread: ThreadKey) -> _Preferences:
        chosen = await self.preferences.read(thread)
        self._preferences_cache.put(
            replace(thread, thread=""), chosen, seconds=_CHOSEN_CACHE_SECONDS
        )
        return chosen

    async def _cached_preferences(self, thread: ThreadKey) -> _Preferences:
        known = self._preferences_cache.get(replace(thread, thread=""))
        # During an outage of the store, messages that are not for the bot must not wait.
        with suppress(StoreUnavailable):
            return await self._preferences_of(thread) if known is None else known
        return {}

    async def _claim_refusal_notice(self, thread: ThreadKey, person: Person) -> bool:
        # A person without access, and the events behind, must not wait for the store.
        with suppress(StoreUnavailable):
            return await self._queue.claim_refusal_notice(thread.platform, person)
        return False

    async def _pressed(self, turn_id: str, person_id: str) -> Turn:
        """Return the turn of a pressed button. Raises Refused."""
        turn = await self._queue.turn(turn_id)
        if turn is None:
            raise NotRemembered
        if turn.person.id != person_id:
            raise NotTheAsker
        return turn

    def _estimate(self, turn: Turn) -> int:
        quoted = estimate(turn.quote.text) if turn.quote else 0
        return self._longest + quoted + estimate(turn.text)

    def _note_refusal(self, turn: Turn, refused: Refused) -> bool:
        key = turn.key
        refusal = type(refused).__name__, key.platform, key.workspace, key.channel, turn.person.id
        if self._refusals.get(refusal):
            return True
        self._refusals.put(refusal, True, seconds=REPEAT_SECONDS)
        return False


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


def _bounded(turn: Turn) -> Turn:
    """Return a turn without the middle of a question, or a quote, that is too long to store."""
    if turn.quote:
        turn = replace(turn, quote=shortened(turn.quote))
    if turn.context:
        turn = replace(turn, context=tuple(newest(turn.context)))
    if len(turn.text) <= MAX_QUESTION:
        return turn
    text = without_middle(turn.text, MAX_QUESTION - len(CUT))
    return replace(turn, text=text, left_out=left_out(turn.text, text))
