"""How much Discord takes in how much time, and in which headers it says so."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from tests.emulators.clock import Clock

Bucket = tuple[int, float]  # calls, and the seconds in which they may come


@dataclass(slots=True)
class Limits:
    """Every number at which Discord says "too much"; it can be changed at any time.

    The first nine are buckets of routes, each with one window for every channel (or token, or bot).
    Discord publishes no figures of them ("should not be hard coded", docs: Rate Limits), so they
    are what people have read in headers, or guesses.
    """

    create: Bucket = (5, 5.0)  # headers of POST messages: discord-api-docs, issue 2761
    edit: Bucket = (5, 5.0)  # the same
    delete: Bucket = (5, 1.0)  # a message younger than 10 s: discord-api-docs, issue 8330
    channel: Bucket = (10, 15.0)  # PATCH that changes no name: discord-api-docs, issue 2761
    webhook: Bucket = (5, 5.0)  # five before a reset: discordgo, issue 1384; the window is a guess
    # Waits of more than 200 s are seen (discord-api-docs, issue 7816); the number is a guess.
    thread: Bucket = (50, 300.0)
    typing: Bucket = (5, 5.0)  # guess
    listing: Bucket = (5, 5.0)  # guess
    commands: Bucket = (5, 20.0)  # guess
    # docs: Rate Limits, "Global Rate Limit"; interactions and their webhooks are outside it.
    everything: Bucket = (50, 1.0)
    # Edits of messages older than that many seconds, in a channel: an operator's guess
    # (circuitsacul/starboard-4, issue 118).
    old_edits: Bucket = (3, 20.0)
    old_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a bucket stands after a call; `wait` has seconds where the call came too early."""

    headers: dict[str, str]
    wait: float | None


@dataclass(slots=True)
class _Window:
    used: int = 0
    ends: float = -math.inf


@dataclass(slots=True)
class Meter:
    """Counts calls in fixed windows, as Discord's are; `limits` names the buckets."""

    limits: Limits
    clock: Clock
    _windows: dict[tuple[str, str], _Window] = field(default_factory=dict)

    def take(self, bucket: str, key: str = "") -> Reading:
        """Count a call to a bucket's window for this channel or token."""
        calls, seconds = getattr(self.limits, bucket)
        window = self._windows.setdefault((bucket, key), _Window())
        now = self.clock.now()
        if now >= window.ends:
            window.used, window.ends = 0, now + seconds
        late = window.used >= calls
        window.used += not late
        left = math.ceil((window.ends - now) * 1000) / 1000
        # docs: Rate Limits, "Header Format".
        headers = {
            "X-RateLimit-Bucket": bucket,
            "X-RateLimit-Limit": str(calls),
            "X-RateLimit-Remaining": str(calls - window.used),
            "X-RateLimit-Reset": f"{time.time() + left:.3f}",
            "X-RateLimit-Reset-After": f"{left:.3f}",
        }
        return Reading(headers, left if late else None)
