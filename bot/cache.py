"""A bounded cache whose entries may expire."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class BoundedCache(Generic[_K, _V]):
    """Up to `capacity` values by key; the one that was added first is dropped first."""

    def __init__(
        self, *, capacity: int = 1000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._entries: dict[_K, tuple[_V, float]] = {}  # with the time of the expiry

    def get(self, key: _K) -> _V | None:
        """Return the value, or None if it is unknown or has expired."""
        entry = self._entries.get(key)
        return entry[0] if entry and self._clock() < entry[1] else None

    def put(self, key: _K, value: _V, *, seconds: float = math.inf) -> None:
        """Add or replace a value for so many seconds."""
        self._entries.pop(key, None)
        while len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (value, self._clock() + seconds)

    def drop(self, key: _K) -> None:
        """Forget a value, if it is known."""
        self._entries.pop(key, None)
