"""Bounded memories whose entries expire."""

from __future__ import annotations

import math
import time
from typing import Generic, TypeVar

_V = TypeVar("_V")


class ExpiringCache(Generic[_V]):
    """Up to `capacity` values by name; the one that was added first is dropped first."""

    def __init__(self, *, capacity: int = 1000) -> None:
        self._capacity = capacity
        self._entries: dict[str, tuple[_V, float]] = {}  # with the monotonic time of the expiry

    def get(self, name: str) -> _V | None:
        """Return the value, or None if it is unknown or has expired."""
        entry = self._entries.get(name)
        return entry[0] if entry and time.monotonic() < entry[1] else None

    def put(self, name: str, value: _V, *, seconds: float = math.inf) -> None:
        """Add or replace a value for so many seconds."""
        self._entries.pop(name, None)
        while len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]
        self._entries[name] = (value, time.monotonic() + seconds)


class Refusals:
    """Remembers for a while that Slack refuses something to the app, or to people of a team."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._refused: ExpiringCache[bool] = ExpiringCache()

    def add(self, team: str = "") -> None:
        """Remember a refusal to the people of this team, or else to the app."""
        self._refused.put(team, True, seconds=self._seconds)

    def cover(self, team: str = "") -> bool:
        """Whether Slack refuses it to the people of this team, or to the app."""
        return any(self._refused.get(one) for one in ("", team))
