"""Measures for how long events of a platform could not arrive."""

from __future__ import annotations

import math
import time


class Hearing:
    """The silence of one platform; it is infinite until the first connection."""

    def __init__(self) -> None:
        self._is_open = False
        self._last_open = -math.inf  # by the monotonic clock

    def note(self, *, is_open: bool) -> None:
        """Note that a connection has opened, or that none is left."""
        if self._is_open:
            self._last_open = time.monotonic()
        self._is_open = is_open

    def silence(self) -> float:
        """Return the seconds since a connection was open: 0 while one is."""
        return 0.0 if self._is_open else time.monotonic() - self._last_open
