"""The edit budget that all replies of all processes share."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace

from bot.domain import EditBudget
from bot.errors import StoreUnavailable, WriteDelayed
from bot.store import Store, store_errors

# KEYS: the bucket. ARGV: writes, window in ms, 1 where it refills, 1 for a write that is spaced,
# the milliseconds since the reply's last write.
# Answers the milliseconds to wait before asking again, 0 when the write may go out.
#
# A fixed window opens with its first write. Spaced writes come evenly in it, and the last write of
# a window may be one of them only when the window is about to end: no other waits for longer than
# that. A bucket that refills begins dense, for what is left in it is spread over SPREAD, and widens
# to the pace at which it refills; its last token is kept for what is not spaced. A reply that has
# just been written waits for half of an interval at least, so that no two of its writes show
# almost the same text.
_TAKE = """
local LAST, SPREAD = 0.05, 10000
local writes, window, spaced = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4] == '1'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'paused', 'next', 'used', 'ends', 'level', 'at')
local paused, after = tonumber(held[1] or 0), tonumber(held[2] or 0)
local spare = (spaced and writes > 1) and 1 or 0
local wait, interval, ending = 0, 0, false

if ARGV[3] == '1' then
  local level = tonumber(held[5] or writes) + (now - tonumber(held[6] or now)) * writes / window
  level = math.min(level, writes) - 1
  wait = (spare - level) * window / writes
  interval = 1 / (writes / window + math.max(level, 0) / SPREAD)
  held = {'level', level, 'at', now}
else
  local used, ends = tonumber(held[3] or 0), tonumber(held[4] or 0)
  if now >= ends then used, ends = 0, now + window end
  if used >= writes then
    wait = ends - now
  elseif used >= writes - spare then
    wait = ends - now - LAST * window
  end
  interval = (1 - LAST) * window / math.max(writes - 1, 1)
  ending = used + 1 >= writes
  held = {'used', used + 1, 'ends', ends}
end
if spaced then wait = math.max(wait, after - now, interval / 2 - tonumber(ARGV[5])) end
wait = math.ceil(math.max(wait, paused - now))
if wait > 0 then return wait end
if spaced and not ending then after = now + interval end
redis.call('HSET', KEYS[1], 'next', after, unpack(held))
redis.call('PEXPIRE', KEYS[1], math.ceil(2 * window + math.max(after - now, 0)))
return 0
"""
# KEYS: the bucket. ARGV: the milliseconds for which the platform wants no write.
_PAUSE = """
local clock = redis.call('TIME')
local ends = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])
if ends > tonumber(redis.call('HGET', KEYS[1], 'paused') or 0) then
  redis.call('HSET', KEYS[1], 'paused', ends)
  local left = math.max(redis.call('PTTL', KEYS[1]), 0)
  redis.call('PEXPIRE', KEYS[1], math.max(left, tonumber(ARGV[1])))
end
"""
# A process alone lets windows last a little longer: writes do not arrive as evenly as they leave.
_ALONE_WINDOW = 1.05
_MANY = 1000  # buckets to remember before idle ones are dropped


@dataclass(slots=True, eq=False)
class _Waiter:
    """A write that waits for its slot.

    `since` is when its text became stale, and `wrote` when its reply was last written, in loop
    time.
    """

    final: bool
    spaced: bool
    since: float
    wrote: float = -math.inf
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def rank(self) -> tuple[bool, float]:
        """Finals first, then the stalest."""
        return not self.final, self.since


@dataclass(slots=True)
class _Queue:
    """Those who wait in this process for one bucket; the first of them asks for its slot.

    The rest, in loop time, counts while the store is away: the last writes that this process was
    granted, when the next spaced one is due, and until when the platform wants none. It counts
    until `uncounted_until` too, for of some of the last writes the store does not know.
    """

    waiting: list[_Waiter] = field(default_factory=list)
    granted: list[float] = field(default_factory=list)
    next_spaced: float = 0.0
    paused_until: float = 0.0
    uncounted_until: float = 0.0

    def first(self) -> _Waiter | None:
        return min(self.waiting, key=lambda waiter: waiter.rank, default=None)

    def leave(self, waiter: _Waiter) -> None:
        self.waiting.remove(waiter)
        if following := self.first():
            following.woken.set()

    def alone(self, budget: EditBudget, *, spaced: bool, now: float) -> float:
        """Return the seconds to wait so that no time of a window's length sees too many writes."""
        spare = int(spaced and budget.writes > 1)
        free_at = self.next_spaced if spaced else 0.0
        if len(self.granted) >= (most := budget.writes - spare):
            free_at = max(free_at, self.granted[-most] + _ALONE_WINDOW * budget.seconds)
        return max(free_at - now, 0.0)

    def grant(self, budget: EditBudget, *, spaced: bool, now: float) -> None:
        """Remember a write."""
        self.granted = [*self.granted, now][-budget.writes :]
        if spaced:
            self.next_spaced = now + _ALONE_WINDOW * budget.seconds / budget.writes

    def is_idle(self, now: float) -> bool:
        ends = max(self.next_spaced, self.paused_until, self.uncounted_until)
        return not self.waiting and ends <= now


class EditBudgets:
    """Says when a write may go out.

    All processes together count and space their writes in the store; whose write is the next is
    decided in each process: finals first, then the stalest, and nobody has a slot before the moment
    of writing. While the store is away each process counts and spaces its own writes.
    """

    def __init__(self, *, store: Store) -> None:
        self._store = store
        self._take = store.redis.register_script(_TAKE)
        self._pause = store.redis.register_script(_PAUSE)
        self._queues: dict[str, _Queue] = {}
        self._learned: dict[str, tuple[int, float]] = {}

    async def interim(
        self,
        budget: EditBudget,
        *,
        new: bool,
        since: float,
        wrote: float,
        unless: asyncio.Event,
    ) -> bool:
        """Wait for a slot; False as soon as `unless` is set.

        `since` is the loop time since when the screen has not shown the newest text, and `wrote`
        that of the reply's last write. What is `new` on the screen goes without regard for spacing:
        people wait for it.
        """
        waiter = _Waiter(final=False, spaced=not new, since=since, wrote=wrote)
        queue = self._enter(budget, waiter)
        ended = asyncio.create_task(unless.wait())
        try:
            while not unless.is_set():
                pause = await self._wait(budget, queue, waiter)
                if not pause:
                    return True
                await _any_of(ended, waiter.woken, within=pause)
            return False
        finally:
            ended.cancel()
            queue.leave(waiter)

    async def final(self, budget: EditBudget, *, deadline: float) -> None:
        """Wait for a slot without regard for spacing: the whole budget may be used.

        Raises WriteDelayed when there will be none before `deadline` (loop time).
        """
        now = asyncio.get_running_loop().time
        waiter = _Waiter(final=True, spaced=False, since=now())
        queue = self._enter(budget, waiter)
        try:
            while pause := await self._wait(budget, queue, waiter):
                left = deadline - now()
                if left <= 0 or left < pause < math.inf:
                    wait = pause if pause < math.inf else budget.seconds
                    raise WriteDelayed("the platform wants no write for long", retry_after=wait)
                await _any_of(None, waiter.woken, within=min(pause, left))
        finally:
            queue.leave(waiter)

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        """Let no process write into this bucket for so long, because the platform said so."""
        queue = self._queue(budget)
        until = asyncio.get_running_loop().time() + seconds
        queue.paused_until = max(queue.paused_until, until)
        if self._store.is_away:
            return
        try:
            with store_errors():
                await self._pause(keys=[self._key(budget)], args=[int(seconds * 1000)])
        except StoreUnavailable:
            self._store.note_away()

    def learn(self, bucket: str, *, writes: int, seconds: float) -> None:
        """Take what the platform says of a bucket for truer than what the surface knows."""
        if len(self._learned) >= _MANY:
            self._learned.pop(next(iter(self._learned)))
        self._learned[bucket] = (max(writes, 1), seconds)

    def _enter(self, budget: EditBudget, waiter: _Waiter) -> _Queue:
        queue = self._queue(budget)
        queue.waiting.append(waiter)
        return queue

    def _queue(self, budget: EditBudget) -> _Queue:
        if len(self._queues) > _MANY:
            now = asyncio.get_running_loop().time()
            idle = [name for name, queue in self._queues.items() if queue.is_idle(now)]
            for name in idle:
                del self._queues[name]
        return self._queues.setdefault(budget.bucket, _Queue())

    async def _wait(self, budget: EditBudget, queue: _Queue, waiter: _Waiter) -> float:
        """Return the seconds to wait before asking again; 0 grants the write.

        Infinity: it is another's turn, and whoever leaves the queue wakes the next.
        """
        waiter.woken.clear()
        if queue.first() is not waiter:
            return math.inf
        left = queue.paused_until - asyncio.get_running_loop().time()
        return left if left > 0 else await self._slot(self._as_learned(budget), queue, waiter)

    async def _slot(self, budget: EditBudget, queue: _Queue, waiter: _Waiter) -> float:
        """As `_wait`, once nothing but the budget holds the write up."""
        now, spaced = asyncio.get_running_loop().time, waiter.spaced
        pause = queue.alone(budget, spaced=spaced, now=now())
        if pause and now() < queue.uncounted_until:
            return pause
        answer = await self._ask(budget, spaced=spaced, age=now() - waiter.wrote)
        pause = queue.alone(budget, spaced=spaced, now=now()) if answer is None else answer
        if not pause:
            queue.grant(budget, spaced=spaced, now=now())
            if answer is None:
                queue.uncounted_until = now() + _ALONE_WINDOW * budget.seconds
        return pause

    async def _ask(self, budget: EditBudget, *, spaced: bool, age: float) -> float | None:
        """Return the seconds that the store has us wait; None while it is away.

        `age` is in seconds, since the reply's last write.
        """
        if self._store.is_away:
            return None
        age = int(min(age, budget.seconds) * 1000)
        window = int(budget.seconds * 1000)
        words = [budget.writes, window, int(budget.refills), int(spaced), age]
        try:
            with store_errors():
                milliseconds: int = await self._take(keys=[self._key(budget)], args=words)
        except StoreUnavailable:
            self._store.note_away()
            return None
        return milliseconds / 1000

    def _as_learned(self, budget: EditBudget) -> EditBudget:
        writes, seconds = self._learned.get(budget.bucket, (budget.writes, budget.seconds))
        return replace(budget, writes=writes, seconds=seconds)

    def _key(self, budget: EditBudget) -> str:
        return self._store.key("budget", budget.bucket)


async def _any_of(task: asyncio.Task[bool] | None, event: asyncio.Event, *, within: float) -> None:
    """Wait until the task is done or the event is set, but no longer than so many seconds."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait(
            {waiting, task} if task else {waiting},
            timeout=None if within == math.inf else within,
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        waiting.cancel()
