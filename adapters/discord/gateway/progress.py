"""What was heard of the gateway, and up to where all of it has been dealt with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_current: ContextVar[Progress | None] = ContextVar("journal", default=None)
_event: ContextVar[_Event | None] = ContextVar("event", default=None)


@dataclass(slots=True, eq=False)
class _Event:
    """`message_id` is 0 for what is no message."""

    seq: int
    message_id: int
    holds: int = 0


class Progress:
    """The events of a shard that somebody still deals with; it outlives connections and sessions.

    `newest` is the id of the newest message before which nothing waits any more, 0 when none was
    heard.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._events: deque[_Event] = deque()

    def new_session(self) -> None:
        """Let the numbers begin anew, and `newest` stay where it is until its first event is over.

        That is held until what was missed since `newest` is found, whatever of the session before
        still waits.
        """
        self._events.clear()

    @contextmanager
    def heard(self, seq: int, message_id: int = 0) -> Iterator[Callable[[], None]]:
        """Take note of an event; in the block, and in tasks begun there, `held` means this one.

        Yields what to call once everybody who deals with it has asked for a hold.
        """
        event = _Event(seq, message_id)
        if self._events and not self._events[-1].holds:
            # Nobody waits for it: it is over when this one is, and takes no room until then.
            event.message_id = max(message_id, self._events.pop().message_id)
        self._events.append(event)
        tokens = _current.set(self), _event.set(event)
        try:
            yield self.hold(event)
        finally:
            _current.reset(tokens[0])
            _event.reset(tokens[1])

    @property
    def waits(self) -> bool:
        """Whether somebody still deals with an event of the session."""
        return any(one.holds for one in self._events)

    def dealt_with(self, received: int) -> int:
        """Return the number up to which no event waits, with `received` the last one that came."""
        return next((one.seq - 1 for one in self._events if one.holds), received)

    def hold(self, event: _Event) -> Callable[[], None]:
        """Let an event wait; calling the result ends this, once."""
        event.holds += 1
        waits = True

        def release() -> None:
            nonlocal waits
            if waits:
                waits = False
                event.holds -= 1
                self._advance()

        return release

    def _advance(self) -> None:
        while self._events and not self._events[0].holds:
            self.newest = max(self.newest, self._events.popleft().message_id)


def held() -> Callable[[], None]:
    """Let the event that is being handled wait until the result is called.

    Where that never happens, because the process ends before, a new process hears it again.
    """
    journal, event = _current.get(), _event.get()
    return journal.hold(event) if journal and event else _nothing


def _nothing() -> None:
    """Release what nobody held."""
