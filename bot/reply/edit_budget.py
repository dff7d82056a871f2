"""The edit budget that all replies of all processes share."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import IntEnum
from importlib.resources import files
from typing import Any, Literal
from uuid import uuid4

from prometheus_client import Histogram

from bot.cache import BoundedCache
from bot.concurrency import running
from bot.domain import EditBudget
from bot.errors import NoSlot, StoreUnavailable, WriteDelayed
from bot.store import Store

# Windows of a single process are a little longer: writes do not arrive as evenly as they leave.
_ALONE = 1.05
_AT_ONCE = 16  # enough for a core, although each waits twice for the store
_MANY = 1000  # buckets to remember before idle ones are dropped
# How long finals precede a new page, which could otherwise wait without end.
_NEW_YIELDS = 1.0  # seconds

_WAIT = Histogram(
    "parley_edit_budget_wait_seconds",
    "For how long a write waited for its slot: final, new (a page) or interim",
    ["platform", "kind"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60),
)


class Clock:
    """The time in which budgets are counted."""

    def now(self) -> float:
        """Return loop time, in seconds."""
        return asyncio.get_running_loop().time()

    def shared_now(self) -> int | str:
        """Return the time that all processes share, in milliseconds; "" is the store's own."""
        return ""

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for an event, but no longer than so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await event.wait()


class _Kind(IntEnum):
    """The kinds of writes, in the order in which they go out."""

    FINAL, NEW, INTERIM, SPARE = range(4)


@dataclass(slots=True, eq=False)
class _Waiter:
    """A write; `since` (loop time) its text is stale, and at `wrote` its reply was last written."""

    kind: _Kind
    since: float
    wrote: float = -math.inf
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def rank(self) -> tuple[_Kind, float]:
        """Finals first, then new pages, then the stalest; new pages yield for a limited time."""
        if self.kind is _Kind.NEW:
            return _Kind.FINAL, self.since + _NEW_YIELDS
        return self.kind, self.since


@dataclass(slots=True)
class _Queue:
    """The writes that wait in this process for one bucket; the first of them asks for its slot.

    Times are in loop time. The store is not asked before the next spaced write is due, or during a
    pause. While the store is away, and if the bucket is local to the process, writes are counted
    here; also until `uncounted_until` afterwards, because the store does not know all of them.
    """

    waiting: list[_Waiter] = field(default_factory=list)
    granted: list[float] = field(default_factory=list)
    next_spaced: float = 0.0
    paused_until: float = 0.0
    uncounted_until: float = 0.0

    def enqueue(self, waiter: _Waiter) -> bool:
        """Enqueue the waiter if needed. True if it is first."""
        if waiter not in self.waiting:
            self.waiting.append(waiter)
        return self._first() is waiter

    def leave(self, waiter: _Waiter) -> None:
        """Remove the waiter, and wake the first of the others."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)
            if following := self._first():
                following.woken.set()

    def local_wait(self, draw: _Draw, now: float) -> float:
        """Return the seconds until a window that only this process counts has room."""
        free_at = self.next_spaced if draw.spaced else 0.0
        if len(self.granted) >= (most := draw.budget.writes - draw.unavailable):
            free_at = max(free_at, self.granted[-most] + _ALONE * draw.budget.seconds)
        return max(free_at - now, 0.0)

    def wait_before_asking(self, draw: _Draw, now: float) -> float:
        """Return the seconds before which the store need not be asked."""
        if now < self.uncounted_until:
            return max(self.local_wait(draw, now), self.paused_until - now)
        return max(self.paused_until, self.next_spaced if draw.spaced else now, now) - now

    def grant(self, draw: _Draw, now: float, *, spacing: float | None) -> None:
        """Record a write. `spacing` is the time until a spaced one; None if the store is away."""
        budget = draw.budget
        self.granted = [*self.granted, now][-budget.writes :]
        if spacing is None:
            self.uncounted_until = now + _ALONE * budget.seconds
            spacing = _ALONE * budget.seconds / budget.writes
        if draw.spaced:
            self.next_spaced = now + spacing

    def is_idle(self, now: float) -> bool:
        """Whether the queue can be dropped without a loss."""
        ends = max(self.next_spaced, self.paused_until, self.uncounted_until)
        return not self.waiting and ends <= now

    def _first(self) -> _Waiter | None:
        return min(self.waiting, key=lambda waiter: waiter.rank, default=None)


@dataclass(frozen=True, slots=True)
class _Draw:
    """A write's claim on a bucket. `unavailable` writes of a window are for more urgent ones.

    It may `yield` to reserves; one that is to `owe` books nothing, but reserves a later write.
    """

    budget: EditBudget
    queue: _Queue
    use: Literal["write", "yield", "owe"]
    spaced: bool = False
    unavailable: int = 0

    @property
    def arguments(self) -> tuple[int | str, ...]:
        """The arguments of the script for this bucket."""
        one, spaced = self.budget, int(self.spaced)
        return one.writes, int(one.seconds * 1000), one.shape, spaced, self.unavailable, self.use


@dataclass(frozen=True, slots=True)
class _Reserves:
    """The writes that a reply owes, by bucket, under a name that no other attempt has."""

    owner: str = field(default_factory=lambda: uuid4().hex)
    owed: dict[str, EditBudget] = field(default_factory=dict)


# Those of the reply that this task writes. Child tasks share them.
_of_reply: ContextVar[_Reserves] = ContextVar("_of_reply")
# The outermost bucket of this task's last slot, until `use_booked_slot` is called. Child tasks
# share the list, so that one slot is for one of all their requests.
_booked: ContextVar[list[str]] = ContextVar("_booked")


class EditBudgets:
    """Decides when a write may go out.

    All processes together count and space their writes in the store. The order is decided in each
    process: finals first, then new pages, then the stalest text, and a slot is granted only at the
    moment of writing. A slot of a budget within another is booked in both or in neither. While
    the store is away, each process counts and spaces its own writes. What a reply owes is reserved
    until it ends, or for `lease_seconds` after its process has died.
    """

    def __init__(
        self, *, store: Store, clock: Clock | None = None, lease_seconds: float = 10.0
    ) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._lease_ms = int(lease_seconds * 1000)
        self._clock = clock or Clock()
        source = files("bot.reply").joinpath("edit_budget.lua").read_text(encoding="utf-8")
        self._script = store.script(source)
        self._queues: dict[str, _Queue] = {}
        self._learned: BoundedCache[str, tuple[int, float]] = BoundedCache(capacity=_MANY)
        self._few = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def reserving(self, owed: Collection[EditBudget] = ()) -> AsyncIterator[None]:
        """Reserve what the block's writes owe until it ends, and what an earlier attempt `owed`."""
        reserves = _Reserves(owed={one.bucket: one for one in owed})
        token = _of_reply.set(reserves)
        try:
            await self._renew(reserves, self._lease_ms)
            async with running(self._renew_often(reserves)):
                yield
        finally:
            _of_reply.reset(token)
            await self._renew(reserves, 0)

    async def _renew_often(self, reserves: _Reserves) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            await self._renew(reserves, self._lease_ms)

    async def _renew(self, reserves: _Reserves, lease_ms: int) -> None:
        await self._run("renew", reserves.owner, lease_ms, keys=reserves.owed.values())

    async def interim(
        self, budget: EditBudget, *, new: bool, since: float, wrote: float, unless: asyncio.Event
    ) -> bool:
        """Wait for a slot; False as soon as `unless` is set.

        `since` is when the screen stopped showing the newest text, and `wrote` when the reply was
        last written, in loop time. A `new` page is not spaced: people wait for it.
        """
        waiter = _Waiter(_Kind.NEW if new else _Kind.INTERIM, since, wrote)
        ended = asyncio.create_task(unless.wait())
        ended.add_done_callback(lambda _: waiter.woken.set())
        try:
            return await self._acquire(budget, waiter, unless=unless)
        finally:
            ended.cancel()

    def few_at_once(self, budget: EditBudget | None) -> AbstractAsyncContextManager[None]:
        """Wait for the others if many replies that no platform limits are written in this moment.

        Each takes its text when its turn has come. All at once would wait for each other between
        the steps of a write: with 200 that grow, words came twice as late (`bench.web`).
        """
        return self._few if budget and budget.own else nullcontext()

    async def final(self, budget: EditBudget | None, *, deadline: float) -> None:
        """Wait for a slot that is not spaced, if one is needed. Raises NoSlot at the `deadline`."""
        if budget:
            await self._acquire(budget, self._waiter(_Kind.FINAL), deadline=deadline)

    async def call(self, budget: EditBudget, *, deadline: float) -> None:
        """Wait as `final` does, but behind the finals, for a request that shows no text."""
        await self._acquire(budget, self._waiter(_Kind.NEW), deadline=deadline)

    async def spare(self, budget: EditBudget) -> bool:
        """Take an optional request's slot; False if a write waits, or half of them are used up."""
        if any(self._queue(each.bucket).waiting for each in _all_of(budget)):
            return False
        waiter = self._waiter(_Kind.SPARE)
        pause, _ = await self._book(self._draws(budget, waiter), waiter)
        return not pause

    def use_booked_slot(self, budget: EditBudget) -> bool:
        """Use up this task's last slot; True if it was one of this budget, too."""
        booked = _booked.get([])
        is_booked = budget.bucket in booked
        booked.clear()
        return is_booked

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        """Pause a bucket for all processes, because the platform asked for it."""
        queue = self._queue(budget.bucket)
        queue.paused_until = max(queue.paused_until, self._clock.now() + seconds)
        known = self._known(budget)
        arguments = int(seconds * 1000), known.shape, known.writes, int(known.seconds * 1000)
        await self._run("pause", *arguments, keys=[known])

    async def pause_after(self, error: WriteDelayed, budget: EditBudget | None) -> None:
        """Pause the bucket that the error names, or else the write's own, if it has a budget."""
        if budget and not isinstance(error, NoSlot):
            paused = replace(budget, bucket=error.bucket or budget.bucket)
            await self.pause(paused, error.retry_after)

    def learn(self, bucket: str, *, writes: int, seconds: float) -> None:
        """Use the limits of a bucket that the platform reports instead of the surface's."""
        self._learned.put(bucket, (max(writes, 1), seconds))

    def _waiter(self, kind: _Kind) -> _Waiter:
        return _Waiter(kind, since=self._clock.now())

    async def _acquire(
        self,
        budget: EditBudget,
        waiter: _Waiter,
        *,
        deadline: float = math.inf,
        unless: asyncio.Event | None = None,
    ) -> bool:
        began = self._clock.now()
        try:
            while not (unless and unless.is_set()):
                pause = await self._try(budget, waiter)
                if not pause:
                    waits = _WAIT.labels(budget.bucket.partition(":")[0], waiter.kind.name.lower())
                    waits.observe(self._clock.now() - began)
                    return True
                left = deadline - self._clock.now()
                if left <= 0 or left < pause < math.inf:
                    wait = pause if pause < math.inf else budget.seconds
                    raise NoSlot("no slot before the deadline", retry_after=wait)
                await self._clock.wait(waiter.woken, min(pause, left))
            return False
        finally:
            for draw in self._draws(budget, waiter):
                draw.queue.leave(waiter)

    def _queue(self, name: str) -> _Queue:
        if len(self._queues) > _MANY:
            now = self._clock.now()
            self._queues = {name: it for name, it in self._queues.items() if not it.is_idle(now)}
        return self._queues.setdefault(name, _Queue())

    async def _try(self, budget: EditBudget, waiter: _Waiter) -> float:
        """Return the seconds to wait before the next try; 0 grants the write.

        Infinite if another write is first; it wakes this one when it leaves the queue. A write
        waits only for the bucket that blocks it, so that it holds up nobody in the others.
        """
        waiter.woken.clear()
        draws, pause = self._draws(budget, waiter), math.inf
        full = next((draw for draw in draws if not draw.queue.enqueue(waiter)), None)
        if not full:
            pause, full = await self._book(draws, waiter)
        for draw in draws:
            if draw is not full:
                draw.queue.leave(waiter)
        return pause

    def _draws(self, budget: EditBudget, waiter: _Waiter) -> list[_Draw]:
        draws, is_interim = [], waiter.kind is _Kind.INTERIM
        for each in _all_of(budget):
            known, spaced = self._known(each), is_interim and each is budget
            unavailable = min(known.for_finals, known.writes - 1) if is_interim else 0
            if waiter.kind is _Kind.SPARE:
                unavailable = known.writes // 2
            use: Literal["write", "yield"] = "yield" if waiter.kind >= _Kind.INTERIM else "write"
            draws.append(_Draw(known, self._queue(each.bucket), use, spaced, unavailable))
        reserves = _of_reply.get(None)
        for owed in budget.owes:
            if reserves and owed.bucket not in reserves.owed:
                queue = self._queue(f"{owed.bucket}:owed")
                draws.append(_Draw(self._known(owed), queue, "owe"))
        return draws

    def _known(self, budget: EditBudget) -> EditBudget:
        learned = self._learned.get(budget.bucket)
        return replace(budget, writes=learned[0], seconds=learned[1]) if learned else budget

    async def _book(self, draws: list[_Draw], waiter: _Waiter) -> tuple[float, _Draw]:
        """Return the seconds to wait, and the bucket that requires it; 0 books the write in all."""
        now = self._clock.now
        for draw in draws:
            if pause := draw.queue.wait_before_asking(draw, now()):
                return pause, draw
        age = min(now() - waiter.wrote, draws[0].budget.seconds)
        arguments = tuple(argument for draw in draws for argument in draw.arguments)
        reserves = _of_reply.get(_Reserves(""))
        arguments = int(age * 1000), reserves.owner, self._lease_ms, *arguments
        answer = await self._run("take", *arguments, keys=[draw.budget for draw in draws])
        if answer is None:
            waits = [(draw.queue.local_wait(draw, now()), draw) for draw in draws]
            pause, draw = max(waits, key=lambda wait: wait[0])
            spacing = None
        elif answer[0]:  # {wait, number of the bucket}, else {0, spacing}
            return answer[0] / 1000, draws[answer[1]]
        else:
            pause, draw, spacing = 0.0, draws[0], answer[1] / 1000
        if not pause:
            reserves.owed.update({it.budget.bucket: it.budget for it in draws if it.use == "owe"})
            granted = [it for it in draws if it.use != "owe"]
            for each in granted:
                each.queue.grant(each, now(), spacing=spacing)
            # The outermost bucket is the last one.
            _booked.set([granted[-1].budget.bucket])
        return pause, draw

    async def _run(self, verb: str, *arguments: int | str, keys: Collection[EditBudget]) -> Any:
        """Run a verb of the script; None if the store is away, or there is no shared bucket."""
        if self._store.is_away or all(budget.own for budget in keys):
            return None
        names = [self._store.key("budget", budget.bucket) for budget in keys]
        try:
            return await self._script(keys=names, args=[verb, self._clock.shared_now(), *arguments])
        except StoreUnavailable as error:
            self._store.note_away(error)
            return None


def _all_of(budget: EditBudget) -> list[EditBudget]:
    return [budget, budget.within] if budget.within else [budget]
