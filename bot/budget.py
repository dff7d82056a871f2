"""The edit budget that all replies of all processes share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bot.domain import EditBudget
from bot.errors import StoreUnavailable, WriteDelayed
from bot.store import Store, store_errors

# Fixed window: the first write opens it, and its length and count are all that the store holds.
# Answers the milliseconds to wait before asking again, 0 when the write may go out.
_COUNT = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if used >= tonumber(ARGV[1]) then return math.max(redis.call('PTTL', KEYS[1]), 1) end
if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_ALONE_SECONDS = 10.0  # without asking a store that did not answer
_MANY = 1000  # buckets to remember before idle ones are dropped


@dataclass(slots=True)
class _Bucket:
    next_edit: float = 0.0  # loop time of the next evenly spaced edit
    paused_until: float = 0.0  # loop time until which the platform wants no write at all


class EditBudgets:
    """Says when a write may go out.

    Platforms count new messages and edits apart, each as often as the budget says. Inside a process
    interim edits are spaced evenly; all processes together count their writes in the store, where
    one edit of each window is kept for final texts. While the store is away each process keeps to
    its own spacing.
    """

    def __init__(self, *, store: Store) -> None:
        self._store = store
        self._count = store.redis.register_script(_COUNT)
        self._buckets: dict[str, _Bucket] = {}
        self._alone_until = 0.0  # loop time until which the store is not asked

    async def interim(self, budget: EditBudget, *, new: bool, unless: asyncio.Event) -> bool:
        """Wait for the slot of a new message or of an edit; False as soon as `unless` is set."""
        bucket = self._bucket(budget)
        writes = budget.writes if new else max(budget.writes - 1, 1)
        interval = budget.seconds / max(budget.writes - 1, 1)
        now = asyncio.get_running_loop().time()
        at = max(now, bucket.paused_until, 0.0 if new else bucket.next_edit)
        # The first edit follows the message that it edits by a whole interval, too.
        bucket.next_edit = max(bucket.next_edit, at + interval)
        pause = at - now
        while not await _set_within(unless, pause):
            pause = await self._pause(budget, new=new, writes=writes)
            if not pause:
                return True
        return False

    async def final(self, budget: EditBudget, *, new: bool, deadline: float) -> None:
        """Wait for a slot without regard for spacing: the whole window's budget may be used.

        Raises WriteDelayed when there will be none before `deadline` (loop time).
        """
        now = asyncio.get_running_loop().time
        while pause := await self._pause(budget, new=new, writes=budget.writes):
            if now() + pause > deadline:
                raise WriteDelayed("the platform wants no write for long", retry_after=pause)
            await asyncio.sleep(pause)

    def pause(self, budget: EditBudget, seconds: float) -> None:
        """Let nothing out of this bucket for so long, because the platform said so."""
        bucket = self._bucket(budget)
        until = asyncio.get_running_loop().time() + seconds
        bucket.paused_until = max(bucket.paused_until, until)

    def _bucket(self, budget: EditBudget) -> _Bucket:
        if len(self._buckets) > _MANY:
            now = asyncio.get_running_loop().time()
            self._buckets = {
                name: bucket
                for name, bucket in self._buckets.items()
                if max(bucket.next_edit, bucket.paused_until) > now
            }
        return self._buckets.setdefault(budget.bucket, _Bucket())

    async def _pause(self, budget: EditBudget, *, new: bool, writes: int) -> float:
        """Return the seconds to wait before asking again; 0 grants the write."""
        now = asyncio.get_running_loop().time()
        if (pause := self._bucket(budget).paused_until - now) > 0:
            return pause
        if now < self._alone_until:
            return 0.0
        key = self._store.key("budget", "new" if new else "edit", budget.bucket)
        try:
            with store_errors():
                milliseconds: int = await self._count(
                    keys=[key], args=[writes, int(budget.seconds * 1000)]
                )
        except StoreUnavailable:
            # A store that hangs takes seconds to say so: not for every write again.
            self._alone_until = now + _ALONE_SECONDS
            return 0.0
        return milliseconds / 1000


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    if event.is_set() or seconds <= 0:
        return event.is_set()
    # `wait_for` loses a cancellation on Python 3.11.
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
