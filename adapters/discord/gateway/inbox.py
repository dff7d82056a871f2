"""Tracks which events are handled, and runs their jobs in order."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from adapters.discord.tuning import Tuning
from bot.concurrency import cancelled, do_nothing
from bot.errors import StoreUnavailable, SurfaceError, WriteDelayed, WriteFailed

Release = Callable[[], None]
Work = Callable[[], Awaitable[object]]
_log = logging.getLogger(__name__)
# Limits of the queue. A purge deletes up to a hundred messages in one event, but people and other
# bots delete messages one by one.
_QUESTIONS, _DELETIONS = 100, 1000


@dataclass(slots=True, eq=False)
class PendingEvent:
    """A gateway event. It counts as handled when its `holds` (one per job or task) are released.

    `message_id` is 0 if it is not a message.
    """

    seq: int
    message_id: int
    on_release: Callable[[], None]
    holds: set[object] = field(default_factory=set)

    def hold(self) -> Release:
        """Keep the event unhandled until the returned function is called (idempotent).

        If the process ends first, Discord sends the event again to the next process.
        """
        token = object()
        self.holds.add(token)
        return partial(self._release, token)

    def _release(self, token: object) -> None:
        self.holds.discard(token)
        self.on_release()


class Progress:
    """Tracks a shard's unhandled events across connections and sessions.

    `newest` is the id of the newest message up to which all are handled; 0 without one.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._events: deque[PendingEvent] = deque()

    def new_session(self) -> None:
        """Drop the events of the previous session; the new one counts from the start.

        `newest` is unchanged until the first event of the new session is handled, which waits for
        the catch-up since `newest`.
        """
        self._events.clear()

    @contextmanager
    def handling(self, seq: int, message_id: int = 0) -> Iterator[PendingEvent]:
        """Hold an event during the block."""
        event = PendingEvent(seq, message_id, self._advance)
        if self._events and not self._events[-1].holds:
            # Of the handled events behind an unhandled one only the last is kept, to bound memory.
            event.message_id = max(message_id, self._events.pop().message_id)
        self._events.append(event)
        release = event.hold()
        try:
            yield event
        finally:
            release()

    def handled(self, received: int) -> int:
        """Return the number up to which all events are handled; `received` is the latest."""
        return next((one.seq - 1 for one in self._events if one.holds), received)

    def _advance(self) -> None:
        while self._events and not self._events[0].holds:
            self.newest = max(self.newest, self._events.popleft().message_id)


@dataclass(slots=True, eq=False)
class InboxItem:
    """A job of an event; `release` is called when it has run or is dropped."""

    run: Work
    release: Release = do_nothing


@dataclass(slots=True, eq=False, kw_only=True)
class Admission(InboxItem):
    """The admission of a turn, after the `lookup` of its channel or server.

    `needs_store_check`: only the store knows if the message is for the bot.
    """

    turn_id: str
    channel: int
    asker: int
    lookup: Work | None = None
    needs_store_check: bool = False
    after: Collection[InboxItem] = ()  # earlier deletions in its channel


@dataclass(slots=True, eq=False, kw_only=True)
class Deletion(InboxItem):
    """A deletion of turns. Later questions in `channels` wait for it."""

    turn_ids: Collection[str]
    channels: Collection[int]


class Inbox:
    """Runs jobs one after the other, so that a thread's turns are admitted in their order.

    If the store is unavailable, the job is retried, and the jobs behind it wait. A question with a
    lookup waits until that succeeds, with the later questions of its channel; other channels do
    not. Deletions run when no other job can, because a moderator's ban may delete thousands of
    messages; only later questions in their own channels wait for them. So a deletion always follows
    the admission of its question.

    A job that can never succeed is dropped. If more than a hundred questions wait, those that need
    a store check are dropped first, then the oldest of the most active people. Of more than a
    thousand deletions the oldest are dropped. Other jobs are never dropped. Each drop is logged.
    """

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._waiting: deque[InboxItem] = deque()  # without the deletions
        self._deletions: dict[Deletion, None] = {}  # a set in the order of arrival
        self._arrived = asyncio.Event()
        self._lookups: dict[int, asyncio.Task[None]] = {}  # by channel

    def add(self, job: InboxItem) -> None:
        """Append a job; a deletion drops its questions that still wait."""
        match job:
            case Deletion():
                # It runs nevertheless: a failed admission may have been stored, and an event may
                # arrive twice.
                self._drop([one for one in self._questions() if one.turn_id in job.turn_ids])
                self._deletions[job] = None
            case Admission():
                job.after = [one for one in self._deletions if job.channel in one.channels]
                self._waiting.append(job)
            case _:
                self._waiting.append(job)
        self._arrived.set()

    def put_first(self, questions: Iterable[Admission]) -> None:
        """Put questions, which are older, before all waiting jobs."""
        self._waiting.extendleft(reversed([*questions]))
        self._arrived.set()

    async def work(self) -> None:
        """Run jobs until cancelled; a second call resumes."""
        failures = 0
        try:
            while True:
                job, over = await self._next(), False
                try:
                    over = await self._run(job)
                finally:
                    if not over:
                        self._put_back(job)
                if over:
                    job.release()
                    failures = 0
                else:
                    self._drop_oldest(self._questions(), self._deletions)
                    failures += 1
                    await asyncio.sleep(self._tuning.store_retry.delay(failures))
        finally:
            await cancelled(*self._lookups.values())
            self._lookups.clear()

    async def _next(self) -> InboxItem:
        while (job := self._choose_job()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        self._remove(job)
        return job

    def _choose_job(self) -> InboxItem | None:
        """Start lookups up to the first job that needs none, and return it, or a deletion."""
        for job in self._waiting:
            if not isinstance(job, Admission):
                return job
            if job.channel in self._lookups:
                continue
            if job.lookup is None:
                earlier = next((one for one in job.after if one in self._deletions), None)
                return earlier or job
            self._lookups[job.channel] = asyncio.create_task(self._look_up(job))
        return next(iter(self._deletions), None)

    def _put_back(self, job: InboxItem) -> None:
        if isinstance(job, Deletion):
            self._deletions = {job: None, **self._deletions}
        else:
            self._waiting.appendleft(job)

    async def _look_up(self, question: Admission) -> None:
        failures, channel = 0, question.channel
        while question.lookup and question in self._waiting:
            try:
                await question.lookup()
                question.lookup = None
            except (WriteDelayed, WriteFailed) as error:
                failures += 1
                if failures == 1:
                    _log.warning(
                        "Channel %d: questions wait because a lookup fails: %s", channel, error
                    )
                # Questions in other channels do not wait, so they are not counted.
                self._drop_oldest(one for one in self._questions() if one.channel in self._lookups)
                asked_for = error.retry_after if isinstance(error, WriteDelayed) else 0.0
                await asyncio.sleep(max(self._tuning.lookup_retry.delay(failures), asked_for))
            except Exception as error:
                _log_dropped(question, error)
                if question in self._waiting:
                    self._drop([question])
        del self._lookups[channel]
        self._arrived.set()

    async def _run(self, job: InboxItem) -> bool:
        """Run a job; return False if it has to be run again."""
        try:
            await job.run()
        except (StoreUnavailable, WriteDelayed, WriteFailed) as error:
            _log.warning("Discord events wait (%d behind this one): %s", len(self._waiting), error)
            return False
        except Exception as error:
            _log_dropped(job, error)
        return True

    def _questions(self) -> list[Admission]:
        return [one for one in self._waiting if isinstance(one, Admission)]

    def _drop_oldest(
        self, questions: Iterable[Admission], deletions: Iterable[Deletion] = ()
    ) -> None:
        dropped = [*_overflow([*questions]), *[*deletions][:-_DELETIONS]]
        if dropped:
            self._drop(dropped)
            _log.error("Dropped %d Discord events: the inbox is full", len(dropped))

    def _drop(self, dropped: Collection[InboxItem]) -> None:
        for job in dropped:
            self._remove(job)
            job.release()

    def _remove(self, job: InboxItem) -> None:
        if isinstance(job, Deletion):
            del self._deletions[job]
        else:
            self._waiting.remove(job)


def _log_dropped(job: InboxItem, error: Exception) -> None:
    name = job.turn_id if isinstance(job, Admission) else type(job).__name__
    unexpected = None if isinstance(error, SurfaceError) else error
    _log.log(
        logging.ERROR if unexpected else logging.WARNING,
        "Dropped a Discord event (%s): %s",
        *(name, error),
        exc_info=unexpected,
    )


def _overflow(questions: Collection[Admission]) -> list[Admission]:
    """Return the questions to drop, so that a hundred are left."""
    by_asker: defaultdict[int, deque[Admission]] = defaultdict(deque)
    for question in questions:
        if not question.needs_store_check:
            by_asker[question.asker].append(question)
    excess = max(0, len(questions) - _QUESTIONS)
    talk = [one for one in questions if one.needs_store_check][:excess]
    return talk + [max(by_asker.values(), key=len).popleft() for _ in range(excess - len(talk))]
