"""How often the methods of the Web API may be called: Slack's tiers, as buckets that fill again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.emulators.clock import Clock


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket that holds `burst` calls and gets `calls` back every `seconds`."""

    calls: int
    seconds: float
    burst: int

    def times(self, share: float) -> Rate:
        """Return so many times this rate, with a burst of one call at least if it has one."""
        burst = max(round(self.burst * share), min(self.burst, 1))
        return Rate(calls=self.calls, seconds=self.seconds / share, burst=burst)


def per_minute(calls: int) -> Rate:
    """Return a rate whose burst is a minute's calls; docs: Rate limits, tell of none larger."""
    return Rate(calls=calls, seconds=60.0, burst=calls)


# docs: Rate limits, "Overview": so many calls a minute or more, per method, workspace and app.
TIER_2, TIER_3, TIER_4 = per_minute(20), per_minute(50), per_minute(100)
# docs: chat.postMessage, "Rate limiting": one per second to a channel with bursts, and above that
# "several hundred messages per minute" to the workspace.
CHANNEL, POSTS = Rate(calls=1, seconds=1.0, burst=5), per_minute(300)
# docs: auth.test, "Rate limiting": "hundreds of requests per minute".
HUNDREDS = per_minute(300)
# docs: assistant.threads.setStatus, "Rate limiting".
STATUSES = per_minute(600)


@dataclass(slots=True)
class _Bucket:
    rate: Rate
    level: float
    at: float  # when it was at that level, in the clock's seconds

    def lacks(self, now: float) -> float:
        """Return the seconds until there is a call to take, 0 when there is one."""
        speed = self.rate.calls / self.rate.seconds
        self.level = min(self.rate.burst, self.level + (now - self.at) * speed)
        self.at = now
        return max(0.0, (1 - self.level) / speed)


class Buckets:
    """Counts calls against rates, each count under a name of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, counts: Mapping[str, Rate]) -> float:
        """Take one call from every count and return 0, or the seconds until all have one."""
        now = self._clock.now()
        buckets = [
            self._buckets.setdefault(name, _Bucket(rate, rate.burst, now))
            for name, rate in counts.items()
        ]
        wait = max((bucket.lacks(now) for bucket in buckets), default=0.0)
        if wait == 0:
            for bucket in buckets:
                bucket.level -= 1
        return wait
