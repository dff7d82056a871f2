"""Whether a platform can reach us: the time since it last could."""

from __future__ import annotations

import math
import time


class Hearing:
    """Counts the seconds of a platform's silence; it begins as one that was never heard."""

    def __init__(self) -> None:
        self._is_open = False
        self._heard_at = -math.inf  # by the monotonic clock

    def note(self, *, is_open: bool) -> None:
        """Note that a connection has begun, or that none is left."""
        if self._is_open:
            self._heard_at = time.monotonic()
        self._is_open = is_open

    def silence(self) -> float:
        """Return for how many seconds nothing could be heard: 0 while a connection is open."""
        return 0.0 if self._is_open else time.monotonic() - self._heard_at
