"""How far the events of the gateway are handled, so that a new process knows where to go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

Release = Callable[[], None]


@dataclass(slots=True, eq=False)
class Event:
    """An event, handled once it has no `holds`; `message_id` is 0 if it is not a message."""

    seq: int
    message_id: int
    on_release: Callable[[], None]
    holds: set[object] = field(default_factory=set)

    def hold(self) -> Release:
        """Keep the event from being over until the result is called; again it does nothing.

        If the process ends before, a new process receives the event again.
        """
        token = object()
        self.holds.add(token)
        return partial(self._release, token)

    def _release(self, token: object) -> None:
        self.holds.discard(token)
        self.on_release()


class Progress:
    """The events of a shard that are still handled; it outlives connections and sessions.

    `newest` is the id of the newest message before which all is handled, 0 if there was none.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._events: deque[Event] = deque()

    def new_session(self) -> None:
        """Drop the events of the previous session; the new one counts from the start.

        `newest` stays until the first event of the new session is over. That is held until all is
        found that was missed since `newest`, including what is still handled of the session before.
        """
        self._events.clear()

    @contextmanager
    def handling(self, seq: int, message_id: int = 0) -> Iterator[Event]:
        """Hold an event during the block."""
        event = Event(seq, message_id, self._advance)
        if self._events and not self._events[-1].holds:
            # It is over when this one is; merged, a long row of them takes no room.
            event.message_id = max(message_id, self._events.pop().message_id)
        self._events.append(event)
        release = event.hold()
        try:
            yield event
        finally:
            release()

    def handled(self, received: int) -> int:
        """Return the number up to which all is handled; `received` is the last that came."""
        return next((one.seq - 1 for one in self._events if one.holds), received)

    def _advance(self) -> None:
        while self._events and not self._events[0].holds:
            self.newest = max(self.newest, self._events.popleft().message_id)
