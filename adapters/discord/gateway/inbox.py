"""Events that wait for the store, or for Discord, in the order in which they came."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from bot.concurrency import cancelled
from bot.errors import StoreUnavailable, SurfaceError, WriteDelayed, WriteFailed

Job = Callable[[], Awaitable[None]]
Done = Callable[[], None]

_log = logging.getLogger(__name__)

# How many wait while the store or Discord is away. A purge deletes up to a hundred messages in one
# event, but people and other bots delete theirs one by one.
_QUESTIONS, _DELETIONS = 100, 1000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 2.0  # seconds
# Between two looks at one place: a hundred places that Discord fails cost seven requests a second.
_LONGEST_LOOK_PAUSE = 15.0  # seconds


def _nothing() -> None:
    """Tell nobody."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An errand; `question` is the id of the turn that it admits, None for anything else.

    `place` is where the question stands, `asker` the person who asks it, `look` what Discord has to
    tell before it is admitted, and `behind` the deletions in its place that came before it.
    `places` are those of a deletion. `done` is called when it has been run, or is never to be.
    """

    run: Job
    question: str | None
    done: Done
    place: int | None = None
    look: Job | None = None
    behind: Sequence[_Waiting] = ()
    places: Collection[int] = ()
    asker: int = 0


class Backlog:
    """Runs errands one after the other, so that a thread's turns are admitted in their order.

    An errand that finds the store away is tried until it is back, and those behind it wait. A
    question of which Discord has to tell something waits until it does, with those behind it in its
    place; the others go on. Deletions wait until no other errand can run, for a moderator's ban may
    bring thousands; only questions in their own places wait for them. So a deletion always comes
    after the admission of its question.
    One that can never succeed is dropped. Of more than a hundred questions that wait for what is
    away the oldest of whoever asks most are dropped, of deletions the oldest at a thousand, of
    anything else none. Each drop is a line in the log.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()  # without the deletions
        self._deletions: OrderedDict[_Waiting, None] = OrderedDict()
        self._arrived = asyncio.Event()
        self._looks: dict[int | None, asyncio.Task[None]] = {}  # by place

    def add_question(
        self,
        turn_id: str,
        errand: Job,
        *,
        place: int,
        asker: int = 0,
        look: Job | None = None,
        done: Done = _nothing,
    ) -> None:
        """Put the admission of a turn behind the others; `done` is called when it needs no more.

        A `look` is taken beforehand, beside what is done for other places.
        """
        behind = [one for one in self._deletions if place in one.places]
        self._add(_Waiting(errand, turn_id, done, place, look, behind, asker=asker))

    def put_first(self, questions: Iterable[tuple[str, Job, int, int, Done]]) -> None:
        """Put admissions, each with its place and asker, before all that wait: they are older."""
        found = [
            _Waiting(errand, turn, done, place, asker=asker)
            for turn, errand, place, asker, done in questions
        ]
        self._waiting.extendleft(reversed(found))
        self._arrived.set()

    def add_deletion(
        self,
        turn_ids: Collection[str],
        errand: Job,
        *,
        places: Collection[int],
        done: Done = _nothing,
    ) -> None:
        """Put the end of these turns behind the others; those that still wait are not admitted.

        What is asked later in `places` is admitted after it.
        """
        self._drop({one for one in self._waiting if one.question in turn_ids})
        # An admission whose answer was lost may have been stored, and an event may come twice.
        self._deletions[_Waiting(errand, None, done, places=places)] = None
        self._arrived.set()

    def add(self, errand: Job, *, done: Done = _nothing) -> None:
        """Put anything else behind the others."""
        self._add(_Waiting(errand, None, done))

    async def work(self) -> None:
        """Run errands until cancelled; called again, it goes on where it stopped."""
        pause = _FIRST_PAUSE
        try:
            while True:
                waiting = await self._next()
                over = False
                try:
                    over = await self._is_over(waiting)
                finally:
                    if not over:
                        self._put_back(waiting)
                if over:
                    waiting.done()
                    pause = _FIRST_PAUSE
                    continue
                self._drop_oldest(self._waiting, self._deletions)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            await cancelled(*self._looks.values())
            self._looks.clear()

    def _add(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._arrived.set()

    async def _next(self) -> _Waiting:
        while (waiting := self._first()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        if waiting in self._deletions:
            del self._deletions[waiting]
        else:
            self._waiting.remove(waiting)
        return waiting

    def _first(self) -> _Waiting | None:
        """Return the first errand whose place waits for no look; begin those that come before."""
        for one in self._waiting:
            if one.place in self._looks:
                continue
            if one.look is None:
                return next((each for each in one.behind if each in self._deletions), one)
            self._looks[one.place] = asyncio.create_task(self._look(one))
        return next(iter(self._deletions), None)

    def _put_back(self, waiting: _Waiting) -> None:
        if waiting.places:
            self._deletions[waiting] = None
            self._deletions.move_to_end(waiting, last=False)
        else:
            self._waiting.appendleft(waiting)

    async def _look(self, waiting: _Waiting) -> None:
        pause = _FIRST_PAUSE
        while waiting in self._waiting and (error := await self._trouble_of(waiting)):
            if pause == _FIRST_PAUSE:
                place = waiting.place
                _log.warning("questions in channel %s wait for Discord: %s", place, error)
            # What is asked elsewhere does not wait, however much it is.
            self._drop_oldest(one for one in self._waiting if one.place in self._looks)
            asked = error.retry_after if isinstance(error, WriteDelayed) else 0.0
            await asyncio.sleep(max(pause, asked))
            pause = min(pause * 2, _LONGEST_LOOK_PAUSE)
        waiting.look = None
        del self._looks[waiting.place]
        self._arrived.set()

    async def _trouble_of(self, waiting: _Waiting) -> SurfaceError | None:
        """Take a look, and return why it has to be taken again, if it has."""
        try:
            if waiting.look:
                await waiting.look()
        except (WriteDelayed, WriteFailed) as error:
            return error
        except SurfaceError as error:
            _log.warning("an event from Discord was dropped: %s", error)
            self._drop({waiting})
        except Exception:
            _log.exception("an event from Discord was not handled")
            self._drop({waiting})
        return None

    async def _is_over(self, waiting: _Waiting) -> bool:
        try:
            await waiting.run()
        except (StoreUnavailable, WriteDelayed, WriteFailed) as error:
            _log.warning("events from Discord wait, %d more so far: %s", len(self._waiting), error)
            return False
        except SurfaceError as error:
            _log.warning("an event from Discord was dropped: %s", error)
        except Exception:
            _log.exception("an event from Discord was not handled")
        return True

    def _drop_oldest(
        self, waiting: Iterable[_Waiting], deletions: Collection[_Waiting] = ()
    ) -> None:
        questions = [one for one in waiting if one.question is not None]
        dropped = {*_surplus(questions), *[*deletions][:-_DELETIONS]}
        if not dropped:
            return
        self._drop(dropped)
        _log.error("%d events from Discord were dropped: too many wait", len(dropped))

    def _drop(self, dropped: set[_Waiting]) -> None:
        if not dropped:
            return
        gone = [one for one in (*self._waiting, *self._deletions) if one in dropped]
        self._waiting = deque(one for one in self._waiting if one not in dropped)
        for one in gone:
            self._deletions.pop(one, None)
            one.done()


def _surplus(questions: Sequence[_Waiting]) -> list[_Waiting]:
    """Return the oldest questions of whoever asks most, so many that a hundred are left."""
    askers: defaultdict[int, deque[_Waiting]] = defaultdict(deque)
    for one in questions:
        askers[one.asker].append(one)
    excess = max(0, len(questions) - _QUESTIONS)
    return [max(askers.values(), key=len).popleft() for _ in range(excess)]
