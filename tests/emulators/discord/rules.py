"""What the gateway asks of a bot, and what it grants."""

from __future__ import annotations

from dataclasses import dataclass


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
