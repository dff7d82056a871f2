"""Events that wait for the store, in the order in which they came."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass

from bot.errors import StoreUnavailable, SurfaceError, WriteDelayed, WriteFailed

Errand = Callable[[], Awaitable[None]]
Done = Callable[[], None]

_log = logging.getLogger(__name__)

# How many wait while the store is away. A purge deletes up to a hundred messages in one event, but
# people and other bots delete theirs one by one.
_QUESTIONS, _DELETIONS = 100, 1000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 2.0  # seconds
_PATIENCE = 30.0  # seconds for which Discord may fail one errand while the others wait


def _nothing() -> None:
    """Tell nobody."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An errand; `question` is the id of the turn that it admits, None for anything else.

    `done` is called when it has been run, or is never to be.
    """

    run: Errand
    question: str | None
    done: Done
    failing_since: float | None = None  # seconds of the loop's clock


class Backlog:
    """Runs errands one after the other, so that a thread's turns are admitted in their order.

    An errand that finds the store away is tried until it is back, one that finds Discord away for
    half a minute, and those behind it wait; one that can never succeed is dropped. Of more than a
    hundred questions the oldest are dropped, of deletions at a thousand. Each drop is a line in the
    log.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    def add_question(self, turn_id: str, errand: Errand, *, done: Done = _nothing) -> None:
        """Put the admission of a turn behind the others; `done` is called when it needs no more."""
        self._add(_Waiting(errand, turn_id, done))

    def put_first(self, questions: Iterable[tuple[str, Errand, Done]]) -> None:
        """Put admissions before all that wait, in their order: they were asked earlier."""
        found = [_Waiting(errand, turn_id, done) for turn_id, errand, done in questions]
        self._waiting.extendleft(reversed(found))
        self._arrived.set()

    def add_deletion(
        self, turn_ids: Collection[str], errand: Errand, *, done: Done = _nothing
    ) -> None:
        """Put the end of these turns behind the others; those that still wait are not admitted."""
        self._drop({one for one in self._waiting if one.question in turn_ids})
        # An admission whose answer was lost may have been stored, and an event may come twice.
        self.add(errand, done=done)

    def add(self, errand: Errand, *, done: Done = _nothing) -> None:
        """Put anything else behind the others."""
        self._add(_Waiting(errand, None, done))

    async def work(self) -> None:
        """Run errands until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            waiting = await self._next()
            if await self._is_over(waiting):
                waiting.done()
                pause = _FIRST_PAUSE
                continue
            self._waiting.appendleft(waiting)
            self._drop_oldest()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _add(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._arrived.set()

    async def _next(self) -> _Waiting:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    async def _is_over(self, waiting: _Waiting) -> bool:
        try:
            await waiting.run()
        except StoreUnavailable as error:
            waiting.failing_since = None
            _log.warning("events from Discord wait, %d more so far: %s", len(self._waiting), error)
            return False
        except (WriteDelayed, WriteFailed) as error:
            return self._is_given_up(waiting, error)
        except SurfaceError as error:
            _log.warning("an event from Discord was dropped: %s", error)
        except Exception:
            _log.exception("an event from Discord was not handled")
        return True

    def _is_given_up(self, waiting: _Waiting, error: SurfaceError) -> bool:
        now = asyncio.get_running_loop().time()
        if waiting.failing_since is None:
            waiting.failing_since = now
        if now - waiting.failing_since >= _PATIENCE:
            _log.warning("an event from Discord was dropped: %s", error)
            return True
        _log.warning("events from Discord wait, %d more so far: %s", len(self._waiting), error)
        return False

    def _drop_oldest(self) -> None:
        questions = [one for one in self._waiting if one.question is not None]
        deletions = [one for one in self._waiting if one.question is None]
        dropped = {*questions[:-_QUESTIONS], *deletions[:-_DELETIONS]}
        if not dropped:
            return
        self._drop(dropped)
        _log.error("%d events from Discord were dropped: too many wait", len(dropped))

    def _drop(self, dropped: set[_Waiting]) -> None:
        self._waiting = deque(one for one in self._waiting if one not in dropped)
        for one in dropped:
            one.done()
