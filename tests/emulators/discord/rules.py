"""What the gateway asks of a bot, and what it grants."""

from __future__ import annotations

from dataclasses import dataclass

from tests.emulators.clock import Clock
from tests.emulators.discord.objects import Payload

_DAY = 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """The numbers that Discord sets, for a test to choose; the defaults are those of a small bot.

    A session without a connection can be resumed for `resume_seconds` (discord-api-docs, issue
    1619) and is told its last `replayed` events again (issue 24). Docs: "Session Start Limit" for
    `session_starts`, which are for 24 hours, and for `max_concurrency`: sessions of shards that
    are equal modulo that number start `identify_seconds` apart. A bot that `needs_sharding` gets
    no session for everything.
    """

    heartbeat_interval: float = 41.25  # seconds
    resume_seconds: float = 90.0
    replayed: int = 100
    shards: int = 1
    needs_sharding: bool = False
    session_starts: int = 1000
    max_concurrency: int = 1
    identify_seconds: float = 5.0
    shown_after: float = 0.0  # seconds until a new session is told of its guilds


class Starts:
    """Counts the sessions that began; the count begins anew 24 hours after its first."""

    def __init__(self, rules: GatewayRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._used = 0
        self._renewed_at = 0.0
        self._last: dict[int, float] = {}

    def left(self) -> int:
        """Return how many sessions may still begin."""
        if self._clock.now() >= self._renewed_at:
            self._used = 0
        return self._rules.session_starts - self._used

    def take(self, shard_number: int) -> bool:
        """Count a session that begins; return False where another of its key just did."""
        now = self._clock.now()
        key = shard_number % self._rules.max_concurrency
        if now - self._last.get(key, -_DAY) < self._rules.identify_seconds:
            return False
        self._last[key] = now
        if self.left() == self._rules.session_starts:
            self._renewed_at = now + _DAY
        self._used += 1
        return True

    def payload(self) -> Payload:
        """Return docs: "Session Start Limit Object"."""
        left = self.left()
        until = self._renewed_at - self._clock.now()
        return {
            "total": self._rules.session_starts,
            "remaining": left,
            "reset_after": round(max(until, 0.0) * 1000),
            "max_concurrency": self._rules.max_concurrency,
        }
