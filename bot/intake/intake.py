"""The entrance for what people say; adapters acknowledge an event after the call has returned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from prometheus_client import Counter

from bot import audit
from bot.access.preferences import PreferenceStore, resolved
from bot.access.quotas import Prices
from bot.access.rules import AccessRules
from bot.cache import BoundedCache
from bot.domain import Follow, Person, Turn
from bot.errors import NotAllowed, NothingAsked, QuotaUsed, Refused
from bot.intake.access import AccessControl, Chosen, bounded
from bot.intake.addressed import Facts, Speakers, ignore_reason, is_help, is_stop
from bot.intake.answers import Answers
from bot.tools.toolset import Listed
from bot.tracing import span
from bot.turns.allowed import AllowedTools
from bot.turns.forgetting import REMOVED_SECONDS, named
from bot.turns.own import NO_PERSONAS, OwnStore
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.usage import UsageSums

log = logging.getLogger(__name__)

REPEAT_SECONDS = 10.0  # between equal refusals of a person
_REFUSED = Counter(
    "parley_refusals_total", "Questions that were refused, by the reason", ["platform", "kind"]
)
_OPEN = AccessRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What an adapter knows of something that a person said, as the turn that it may become.

    `facts` decide if it is for the bot; without them, the person asked by a command or a form, and
    its text is a question whatever it is. `edited_at` is when the question was edited, in seconds
    since the epoch; 0 for a new one. `command` is the text after the bot's command, if it is one.

    In a thread, `people` are the ids of those who have spoken, the author among them; the thread is
    `ours` if the bot has opened it. A stop ends the person's answers in all threads of `stops_in`,
    or another's if they manage messages.

    `roles` fetches the author's roles, and is called if access depends on them; `complete` adds to
    the turn what has to be fetched, and is called if the message is for the bot.
    """

    turn: Turn
    facts: Facts | None = None
    edited_at: float = 0.0
    command: str | None = None
    people: Collection[str] = ()
    ours: bool = False
    stops_in: str = ""
    manages: Callable[[], Awaitable[bool]] | bool = False
    roles: Callable[[], Awaitable[Sequence[str]]] | None = None
    complete: Callable[[Turn], Awaitable[Turn]] | None = None

    @property
    def calls_bot(self) -> bool:
        """Whether the person expects an answer in any case."""
        return self.facts is None or self.facts.direct or self.facts.calls_bot


@dataclass(frozen=True, slots=True)
class Admitted:
    """The turn waits for its answer, or an edit of it changes nothing."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Stopped:
    """It was the word "stop", and ended an answer."""


@dataclass(frozen=True, slots=True)
class Commanded:
    """It is a command to the bot, which the adapter carries out: `words`, such as "help"."""

    words: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """It is not for the bot, or was handled before; `reason` is for the log."""

    reason: str


# A `Refused` has the sentence for the person, who may have just read it (`repeated`).
Decision = Admitted | Stopped | Commanded | Ignored | Refused


class Intake:
    """The one door for what people say. Every method raises StoreUnavailable.

    `preferences` are those of threads, channels and servers; `follow` applies if nothing is chosen.
    An answer has at most `longest` tokens, which are reserved together with the estimated length of
    its question. Beside it stand `answers`, for presses; `changes`, for what is deleted; `lookup`
    and `history`, for what is known and remembered; `access`, for who may use the bot; `tools`,
    those that are set up; `allowed`, what people have allowed for always; and `own`, what they have
    saved for themselves, beside the operator's `personas`.
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
        tools: Sequence[Listed] = (),
        prices: Prices | None = None,
        personas: Mapping[str, str] = NO_PERSONAS,
    ) -> None:
        self.preferences = preferences or PreferenceStore(store=queue.leases.store)
        self.tools = tools
        self.allowed = AllowedTools(queue.leases.store)
        self.own = OwnStore(self.preferences.store, personas)
        self.follow: Follow = follow
        self.access = AccessControl(
            rules=access,
            preferences=self.preferences,
            queue=queue,
            longest=longest,
            prices=prices or Prices(),
        )
        self.answers = Answers(queue=queue, access=self.access)
        self.changes = queue.changes
        self.lookup = queue.lookup
        self.history = history
        self.sums = UsageSums(queue.leases.store)
        self._queue = queue
        self._speakers = Speakers(queue)
        self._restored_at: float | None = None  # a store is restored while no process runs
        # The refusals that a person has just read in a channel.
        self._refusals: BoundedCache[tuple[str, ...], bool] = BoundedCache()

    async def receive(self, received: Received) -> Decision:
        """Decide what becomes of something that a person said, and do it."""
        facts = received.facts
        if await self._is_from_lost_store(received):
            return Ignored("it was said before the store was restored")
        try:
            if facts is None or received.calls_bot:
                return await self._called(received)
            return await self._overheard(received, facts)
        except Refused as refused:
            # People who may not use the bot can talk beside it.
            if received.calls_bot or not isinstance(refused, NotAllowed):
                turn = received.turn
                _REFUSED.labels(turn.key.platform, type(refused).__name__).inc()
                if isinstance(refused, QuotaUsed):
                    audit.note_refusal(f"quota:{refused.kind}", turn.key, turn.person)
                refused.repeated = refused.repeated or self._note_refusal(turn, refused)
            return refused

    async def ask(self, turn: Turn, *, edited_at: float = 0.0) -> bool:
        """Receive a question, or its edit, of a person who waits for the outcome.

        False if another turn has its id. Raises Refused, whose `apology` is for the person.
        """
        outcome = await self.receive(Received(turn=turn, edited_at=edited_at))
        if isinstance(outcome, Refused):
            raise outcome
        return not isinstance(outcome, Ignored)

    async def check_room(self, turn: Turn) -> None:
        """Raise Refused if a turn like this one in a new thread would be refused now.

        For a question that is posted before it is admitted.
        """
        quota = await self.access.quota(turn.key, turn.person, turn.asker)
        await self._queue.check_room(turn, quota=quota, estimate=self.access.estimate(turn))

    async def still_waits(self, turn: Turn, *, after: float, first: bool = False) -> bool:
        """Return whether a turn waits for a worker after so many seconds.

        With `first`, only if it is the first turn of its thread.
        """
        await asyncio.sleep(after)
        return await self.lookup.waits(turn.id, first_in=turn.key if first else None)

    async def forget_person(self, platform: str, person: Person) -> None:
        """Begin to remove all data of a person on a platform; see `has_forgotten`.

        A worker does it, also after a crash. Until its end the person is refused.
        """
        await self._queue.forgetting.begin(named("person", platform, person.id), by=person.id)

    async def forget_server(self, platform: str, server: str) -> None:
        """Have a server that has removed the bot forgotten within a day; see `keep_servers`."""
        await self._queue.forgetting.begin(
            named("server", platform, server), by="removal", after=REMOVED_SECONDS
        )

    async def keep_servers(self, platform: str, servers: Collection[str]) -> None:
        """Keep what is known of servers that the bot is in (again), unless it is going already."""
        await self._queue.forgetting.cancel(*(named("server", platform, it) for it in servers))

    async def has_forgotten(self, platform: str, person: Person) -> bool:
        """Return whether `forget_person` has removed all data."""
        return await self._queue.forgetting.is_done(named("person", platform, person.id))

    async def _called(self, received: Received) -> Decision:
        """Decide about the words of a person who expects an answer."""
        chosen = await self._check(received)
        if received.facts and not await self._edits_known_turn(received):
            if await self._stops(received, received.facts):
                return Stopped()
            if received.people:
                await self._count(received, *received.people)
            if command := _command(received):
                return command
        return await self._admit(received, chosen)

    async def _overheard(self, received: Received, facts: Facts) -> Decision:
        """Decide about words that may be for others."""
        if await self._edits_known_turn(received):
            chosen = await self._check(received)
        else:
            if await self._stops(received, facts):
                return Stopped()
            chosen, speakers = {}, 0
            is_ours = received.people and (received.ours or await self._count(received))
            if is_ours:
                # A person without access does not count as a speaker.
                chosen = await self._check(received)
                speakers = await self._count(received, *received.people)
            if reason := ignore_reason(facts, speakers, resolved(chosen).follow or self.follow):
                turn = received.turn
                log.debug("Turn %s in %s is ignored: %s", turn.id, turn.key, reason)
                return Ignored(reason)
            if command := _command(received):
                return command
        if not received.turn.text.strip():
            return Ignored("it says nothing")
        return await self._admit(received, chosen)

    async def _check(self, received: Received) -> Chosen:
        turn, called = received.turn, received.calls_bot
        check = self.access.check
        return await check(turn.key, turn.person, turn.asker, called=called, roles=received.roles)

    async def _is_from_lost_store(self, received: Received) -> bool:
        """Whether a store that was lost may have had this, so that it may have been answered."""
        if self._restored_at is None:
            self._restored_at = await self._queue.restored_at()
        if not self._restored_at or received.turn.asked_at > self._restored_at:
            return False
        is_newer = received.edited_at > self._restored_at
        return not (is_newer and await self._edits_known_turn(received))

    async def _edits_known_turn(self, received: Received) -> bool:
        """Whether this is the edit of a question, which stays one whatever it says now."""
        return bool(received.edited_at and await self.lookup.thread_of_turn(received.turn.id))

    async def _stops(self, received: Received, facts: Facts) -> bool:
        turn = received.turn
        return is_stop(facts, turn.text) and await self.answers.stop_own(
            *(turn.id, turn.key, turn.person), channel=received.stops_in, manages=received.manages
        )

    async def _count(self, received: Received, *people: str) -> int:
        ours, called = received.ours, received.calls_bot
        return await self._speakers.count(received.turn.key, *people, ours=ours, called=called)

    async def _admit(self, received: Received, chosen: Chosen) -> Admitted | Ignored:
        turn, edited_at = received.turn, received.edited_at
        with span("admit", turn=turn.id) as admission:
            if received.complete:
                turn = await received.complete(turn)
            if not turn.text.strip():
                if edited_at:
                    return Admitted(turn)  # an emptied question keeps its answer
                raise NothingAsked
            quota = self.access.rules.quota_of(turn.person, turn.asker, chosen)
            stored = replace(bounded(turn), traceparent=admission.traceparent)
            estimate = self.access.estimate(stored)
            if edited_at:
                await self._queue.edit(stored, edited_at=edited_at, quota=quota, estimate=estimate)
            elif await self._queue.admit(stored, quota=quota, estimate=estimate):
                self._speakers.note_ours(turn.key)
            else:
                return Ignored("its id is known")
            return Admitted(turn)

    def _note_refusal(self, turn: Turn, refused: Refused) -> bool:
        key = turn.key
        refusal = type(refused).__name__, key.platform, key.workspace, key.channel, turn.person.id
        if self._refusals.get(refusal):
            return True
        self._refusals.put(refusal, True, seconds=REPEAT_SECONDS)
        return False


def _command(received: Received) -> Commanded | None:
    if received.command is None and not is_help(received.turn.text):
        return None
    return Commanded("help" if received.command is None else received.command)
