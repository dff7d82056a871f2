"""The sessions of the gateway: what each wants to hear, what it was told, how it goes on."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.emulators.discord.objects import Payload

GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 0, 1 << 9, 1 << 12, 1 << 15
_DISPATCH = 0

Shard = tuple[int, int]  # its number, and how many there are
WHOLE: Shard = (0, 1)


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell; sessions without one of `intents` do not hear it.

    `veiled` is what a session without the Message Content intent gets; 0 intents means all hear.
    """

    name: str
    data: Payload
    veiled: Payload | None = None
    intents: int = 0

    def reaches(self, shard: Shard) -> bool:
        """Return whether this shard is told: the guild's, or the first (docs: Sharding)."""
        key = "id" if self.name in ("GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE") else "guild_id"
        guild_id = self.data.get(key)
        number, count = shard
        return number == (int(str(guild_id)) >> 22) % count if guild_id else number == 0


@dataclass(frozen=True, slots=True)
class Listener:
    """A session of the bot as it stands now.

    `shard` is (0, 1) for a bot that named none. An `ended` session cannot be resumed any more.
    """

    session_id: str
    intents: int
    shard: Shard
    connected: bool
    resumes: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Handshake:
    """How the bot asked for a session, at which monotonic seconds, and what could be told again.

    `seq` is None where a session began. After a RESUME all events behind `forgotten` were told,
    unless `seq` is before it or the session had `ended`.
    """

    at: float
    session_id: str
    seq: int | None = None
    forgotten: int = 0
    last: int = 0
    ended: bool = False


@dataclass(slots=True, eq=False)
class Session:
    """What one IDENTIFY began; it outlives its connection, whose `send` is None in between.

    The last `replayed` events can be told once more. `lost_at` is when the connection was lost.
    """

    intents: int
    shard: Shard
    replayed: int
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    send: Callable[[Payload], None] | None = None
    lost_at: float = 0.0
    resumes: int = 0
    ended: bool = False
    _last: int = 0
    _forgotten: int = 0
    _kept: deque[tuple[int, Payload]] = field(default_factory=deque)

    def hears(self, event: Event) -> bool:
        """Return whether the event is for this session's shard, and asked for."""
        asked = not event.intents or bool(event.intents & self.intents)
        return asked and event.reaches(self.shard)

    def tell(self, event: Event) -> None:
        """Send the event, and keep it for a resume."""
        frame = self._numbered(event)
        self._kept.append((self._last, frame))
        if len(self._kept) > self.replayed:
            self._forgotten, _ = self._kept.popleft()
        if self.send:
            self.send(frame)

    def knows(self, seq: int) -> bool:
        """Return whether everything behind this number can still be told."""
        return self._forgotten <= seq <= self._last

    def asked(self, at: float, seq: int | None) -> Handshake:
        """Return that the bot asked for it, or to resume it at this number."""
        return Handshake(at, self.id, seq, self._forgotten, self._last, self.ended)

    def resume(self, send: Callable[[Payload], None], seq: int) -> None:
        """Go on with another connection: tell what it missed, in order, and that this is all."""
        for number, frame in self._kept:
            if number > seq:
                send(frame)
        self.send = send
        self.resumes += 1
        # Not kept: a later resume tells events only.
        send(self._numbered(Event("RESUMED", {})))

    def seen(self) -> Listener:
        """Return how it stands."""
        return Listener(
            session_id=self.id,
            intents=self.intents,
            shard=self.shard,
            connected=self.send is not None,
            resumes=self.resumes,
            ended=self.ended,
        )

    def _numbered(self, event: Event) -> Payload:
        self._last += 1
        veiled = event.veiled is not None and not self.intents & MESSAGE_CONTENT
        data = event.veiled if veiled else event.data
        return {"op": _DISPATCH, "t": event.name, "s": self._last, "d": data}
