"""The freshest that replies can be: what a platform's budget forces on the best of writers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many writes in so many seconds, all of which may come at once."""

    writes: int
    seconds: float

    def fit(self, seconds: float) -> float:
        """Return the writes that fit into a time; a part of one counts as a part."""
        return seconds * self.writes / self.seconds


@dataclass(frozen=True, slots=True)
class Budget:
    """What replies at once share: `posts` at their beginnings, `edits`, and `ends` of their own.

    Where a reply ends by an edit like any other, `ends` is None. What `refills` fills up bit by
    bit, so that all of its writes may be there at the start.
    """

    posts: Rate
    edits: Rate
    ends: Rate | None = None
    refills: bool = False

    def bound(self, seconds: float, replies: int, *, way: float, full: bool = False) -> float:
        """Return D* = δ + T/(2m), in seconds: the least mean delay of a token.

        A write needs δ, the `way`, to the screen, and m writes that are evenly spaced over T, in
        which all replies grow, leave a token half of a gap to wait. `full` counts what a bucket
        that refills has saved up.
        """
        edits = self.edits.fit(seconds) + (self.edits.writes if full and self.refills else 0)
        once = [self.posts, self.ends] if self.ends else [self.posts]
        others = sum(min(replies, max(rate.fit(seconds), rate.writes)) for rate in once)
        return way + seconds / (2 * (others + edits) / replies)

    def forced(self, seconds: float, replies: int, *, way: float) -> float:
        """Return how long after the last token the last of the replies can begin at the earliest.

        Posts come as many at once as the budget has, and again when it has them again.
        """
        rounds = math.ceil(replies / self.posts.writes) - 1
        return max(rounds * self.posts.seconds - seconds, 0.0) + way
