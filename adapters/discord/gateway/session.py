"""A shard's gateway sessions as values: current, earlier, and whether it may be saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Session:
    """The state that a RESUME needs. `id` is a secret: with the token it receives the bot's events.

    `seq` is the last event that need not be sent again. An empty `url` is the first address.
    `servers` is None once all messages missed before the session are admitted. Until then it is the
    number of the session's servers, and `seq` is that of its first event, so that a RESUME repeats
    the events that list the servers.
    """

    id: str = field(repr=False)
    seq: int
    url: str
    servers: int | None = None


class Lookup(Enum):
    """State of the search for an earlier process's session in the store."""

    NEEDED = auto()  # no session yet: the store is read before each start
    FAILED = auto()  # the store is read until it answers
    DONE = auto()


@dataclass(frozen=True, slots=True)
class SessionState:
    """A shard's sessions; each method returns the next state.

    `session` is resumed next; None starts a new one. `earlier` is an earlier process's session,
    preferred because only it receives new DMs; it replaces `session` once found.
    """

    lookup: Lookup = Lookup.NEEDED
    session: Session | None = None
    earlier: Session | None = None

    @property
    def is_first(self) -> bool:
        """Whether neither this process nor, as far as known, the store has a session."""
        return self.lookup is not Lookup.DONE and self.session is None

    @property
    def may_be_saved(self) -> bool:
        """Whether `session` may replace the one in the store."""
        return self.earlier is None and self.lookup is not Lookup.FAILED

    def found(self, earlier: Session | None) -> SessionState:
        """Apply the store's answer."""
        needed = earlier is None and self.session is None
        return replace(self, lookup=Lookup.NEEDED if needed else Lookup.DONE, earlier=earlier)

    def begun(self, session: Session | None) -> SessionState:
        """Record that a session has begun."""
        needed = self.lookup is Lookup.NEEDED
        return replace(self, lookup=Lookup.DONE if needed else self.lookup, session=session)

    def switched(self) -> SessionState:
        """Switch to the earlier session."""
        return SessionState(Lookup.DONE, session=self.earlier)

    def disconnected(self, session: Session | None) -> SessionState:
        """Record the progress of a closed connection; None if it had no session."""
        return replace(self, session=session or self.session)

    def ended(self) -> SessionState:
        """Record that the session cannot be resumed."""
        return replace(self, session=None)

    def at_first_address(self) -> SessionState:
        """Resume at the first address: the session's own may be unreachable."""
        return replace(self, session=self.session and replace(self.session, url=""))
