"""The bounded cache: the oldest go first, and nothing outlives its time."""

from __future__ import annotations

from bot.cache import BoundedCache


def test_the_value_that_was_added_first_is_dropped_first() -> None:
    cache: BoundedCache[str, int] = BoundedCache(capacity=2)
    cache.put("one", 1)
    cache.put("two", 2)
    cache.put("one", 3)

    cache.put("four", 4)

    assert [cache.get(key) for key in ("one", "two", "four")] == [3, None, 4]


def test_a_value_is_gone_once_its_time_is_over() -> None:
    now = 0.0
    cache: BoundedCache[str, int] = BoundedCache(clock=lambda: now)
    cache.put("one", 1, seconds=5)

    now = 4.9
    before = cache.get("one")
    now = 5.0

    assert (before, cache.get("one")) == (1, None)
