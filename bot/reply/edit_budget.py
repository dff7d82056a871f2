"""The edit budget that all replies of all processes share."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import IntEnum
from importlib.resources import files

from bot.domain import EditBudget
from bot.errors import StoreUnavailable, WriteDelayed
from bot.store import Store

# A process alone lets windows last a little longer: writes do not arrive as evenly as they leave.
_ALONE_WINDOW = 1.05
_MANY = 1000  # buckets to remember before idle ones are dropped
# For which finals go before what is new; behind all of them it would wait for as long as they come.
_YIELDS = 1.0  # seconds


class _Kind(IntEnum):
    """What a write is, in the order in which they go."""

    FINAL, NEW, INTERIM, SPARE = range(4)


@dataclass(slots=True, eq=False)
class _Waiter:
    """A write that waits for its slot.

    `since` is when its text became stale, and `wrote` when its reply was last written, in loop
    time.
    """

    kind: _Kind
    since: float
    wrote: float = -math.inf
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def rank(self) -> tuple[_Kind, float]:
        """Finals first, then what is new, which yields for a while only, then the stalest."""
        if self.kind is _Kind.NEW:
            return _Kind.FINAL, self.since + _YIELDS
        return self.kind, self.since


@dataclass(slots=True)
class _Queue:
    """Those who wait in this process for one bucket; the first of them asks for its slot.

    The rest is in loop time. Before the next spaced write is due, or while the platform wants none,
    nobody needs to ask. The last writes that this process was granted count while the store is
    away, and until `uncounted_until` too, for of some of them the store does not know.
    """

    waiting: list[_Waiter] = field(default_factory=list)
    granted: list[float] = field(default_factory=list)
    next_spaced: float = 0.0
    paused_until: float = 0.0
    uncounted_until: float = 0.0

    def is_turn_of(self, waiter: _Waiter) -> bool:
        """Whether nobody goes before this one; who asks stands in the queue from then on."""
        if waiter not in self.waiting:
            self.waiting.append(waiter)
        return self._first() is waiter

    def leave(self, waiter: _Waiter) -> None:
        if waiter in self.waiting:
            self.waiting.remove(waiter)
            if following := self._first():
                following.woken.set()

    def alone(self, draw: _Draw, now: float) -> float:
        """Return the seconds to wait so that no time of a window's length sees too many writes."""
        free_at = self.next_spaced if draw.spaced else 0.0
        if len(self.granted) >= (most := draw.budget.writes - draw.kept):
            free_at = max(free_at, self.granted[-most] + _ALONE_WINDOW * draw.budget.seconds)
        return max(free_at - now, 0.0)

    def known(self, draw: _Draw, now: float) -> float:
        """Return the seconds to wait, where the store need not be asked."""
        if now < self.uncounted_until:
            return max(self.alone(draw, now), self.paused_until - now)
        return max(self.paused_until, self.next_spaced if draw.spaced else now, now) - now

    def grant(self, draw: _Draw, now: float, *, spacing: float | None) -> None:
        """Remember a write, after which the store wants so many seconds until a spaced one.

        None: it has not counted it.
        """
        budget = draw.budget
        self.granted = [*self.granted, now][-budget.writes :]
        if spacing is None:
            self.uncounted_until = now + _ALONE_WINDOW * budget.seconds
            spacing = _ALONE_WINDOW * budget.seconds / budget.writes
        if draw.spaced:
            self.next_spaced = now + spacing

    def is_idle(self, now: float) -> bool:
        ends = max(self.next_spaced, self.paused_until, self.uncounted_until)
        return not self.waiting and ends <= now

    def _first(self) -> _Waiter | None:
        return min(self.waiting, key=lambda waiter: waiter.rank, default=None)


@dataclass(frozen=True, slots=True)
class _Draw:
    """What a write draws on, of which so many writes are kept from it."""

    budget: EditBudget
    queue: _Queue
    spaced: bool
    kept: int

    @property
    def words(self) -> tuple[int | str, ...]:
        """What the script is told."""
        budget = self.budget
        shape = "refills" if budget.refills else "slides" if budget.slides else "fixed"
        return budget.writes, int(budget.seconds * 1000), shape, int(self.spaced), self.kept


# The outermost bucket in which this task's last slot was booked, until somebody asks: tasks that it
# begins have the same list, so that one slot covers one of all their requests.
_booked: ContextVar[list[str]] = ContextVar("_booked")


class EditBudgets:
    """Says when a write may go out.

    All processes together count and space their writes in the store; whose write is the next is
    decided in each process: finals first, then what is new, then the stalest, and nobody has a slot
    before the moment of writing. Where a budget is within another, a slot is one of both or of
    neither. While the store is away each process counts and spaces its own writes.
    """

    def __init__(self, *, store: Store) -> None:
        self._store = store
        source = files("bot.reply").joinpath("edit_budget.lua").read_text(encoding="utf-8")
        self._script = store.script(source)
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
        waiter = _Waiter(_Kind.NEW if new else _Kind.INTERIM, since, wrote)
        ended: asyncio.Task[bool] | None = None
        try:
            while not unless.is_set():
                pause = await self._wait(budget, waiter)
                if not pause:
                    return True
                if not ended:
                    ended = asyncio.create_task(unless.wait())
                    ended.add_done_callback(lambda _: waiter.woken.set())
                await _woken(waiter, within=pause)
            return False
        finally:
            if ended:
                ended.cancel()
            self._leave(budget, waiter)

    async def final(self, budget: EditBudget, *, deadline: float) -> None:
        """Wait for a slot without regard for spacing: the whole budget may be used.

        Raises WriteDelayed when there will be none before `deadline` (loop time).
        """
        await self._before(deadline, budget, _Kind.FINAL)

    async def call(self, budget: EditBudget, *, deadline: float) -> None:
        """Wait as `final` does, but behind the finals, for what shows no text."""
        await self._before(deadline, budget, _Kind.NEW)

    async def spare(self, budget: EditBudget) -> bool:
        """Take a slot for what nobody would miss; False, at once, where others may need it.

        That is when somebody waits, or half of the budget is used up.
        """
        if any(self._queue(each).waiting for each in _all_of(budget)):
            return False
        waiter = _Waiter(_Kind.SPARE, since=0.0)
        return not (await self._slot(self._draws(budget, waiter), waiter))[0]

    def covers(self, budget: EditBudget) -> bool:
        """Whether the slot that this task got last was one of this budget, too; says so once."""
        booked = _booked.get([])
        covered = budget.bucket in booked
        booked.clear()
        return covered

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        """Let no process write into this bucket for so long, because the platform said so."""
        queue = self._queue(budget)
        until = asyncio.get_running_loop().time() + seconds
        queue.paused_until = max(queue.paused_until, until)
        if self._store.is_away:
            return
        try:
            await self._script(keys=[self._key(budget)], args=["pause", int(seconds * 1000)])
        except StoreUnavailable as error:
            self._store.note_away(error)

    def learn(self, bucket: str, *, writes: int, seconds: float) -> None:
        """Take what the platform says of a bucket for truer than what the surface knows."""
        if len(self._learned) >= _MANY:
            self._learned.pop(next(iter(self._learned)))
        self._learned[bucket] = (max(writes, 1), seconds)

    async def _before(self, deadline: float, budget: EditBudget, kind: _Kind) -> None:
        now = asyncio.get_running_loop().time
        waiter = _Waiter(kind, since=now())
        try:
            while pause := await self._wait(budget, waiter):
                left = deadline - now()
                if left <= 0 or left < pause < math.inf:
                    wait = pause if pause < math.inf else budget.seconds
                    raise WriteDelayed("the platform wants no write for long", retry_after=wait)
                await _woken(waiter, within=min(pause, left))
        finally:
            self._leave(budget, waiter)

    def _queue(self, budget: EditBudget) -> _Queue:
        if len(self._queues) > _MANY:
            now = asyncio.get_running_loop().time()
            idle = [name for name, queue in self._queues.items() if queue.is_idle(now)]
            for name in idle:
                del self._queues[name]
        return self._queues.setdefault(budget.bucket, _Queue())

    def _leave(self, budget: EditBudget, waiter: _Waiter) -> None:
        for each in _all_of(budget):
            self._queue(each).leave(waiter)

    async def _wait(self, budget: EditBudget, waiter: _Waiter) -> float:
        """Return the seconds to wait before asking again; 0 grants the write.

        Infinity: it is another's turn, and whoever leaves the queue wakes the next.
        """
        waiter.woken.clear()
        around = budget.within and self._queue(budget.within)
        if not self._queue(budget).is_turn_of(waiter):
            # Nobody has to wait behind one who could not go.
            if around:
                around.leave(waiter)
            return math.inf
        if around and not around.is_turn_of(waiter):
            return math.inf
        pause, wanting = await self._slot(self._draws(budget, waiter), waiter)
        if around and wanting.queue is not around:
            around.leave(waiter)
        return pause

    def _draws(self, budget: EditBudget, waiter: _Waiter) -> list[_Draw]:
        draws = []
        for each in _all_of(budget):
            known = self._as_learned(each)
            spaced = waiter.kind is _Kind.INTERIM and each is budget
            draws.append(_Draw(known, self._queue(each), spaced, _kept(known, waiter.kind)))
        return draws

    async def _slot(self, draws: list[_Draw], waiter: _Waiter) -> tuple[float, _Draw]:
        """Return the seconds to wait, and for what; 0 books the write everywhere."""
        now = asyncio.get_running_loop().time
        for draw in draws:
            if pause := draw.queue.known(draw, now()):
                return pause, draw
        answer = await self._ask(draws, age=now() - waiter.wrote)
        pause, draw, spacing = answer or self._alone(draws)
        if not pause:
            for each in draws:
                each.queue.grant(each, now(), spacing=spacing)
            _booked.set([draws[-1].budget.bucket])
        return pause, draw

    def _alone(self, draws: list[_Draw]) -> tuple[float, _Draw, None]:
        now = asyncio.get_running_loop().time()
        waits = [(draw.queue.alone(draw, now), draw) for draw in draws]
        return *max(waits, key=lambda wait: wait[0]), None

    async def _ask(
        self, draws: list[_Draw], *, age: float
    ) -> tuple[float, _Draw, float | None] | None:
        """Return the seconds that the store has us wait, and for what; None while it is away.

        With them come those until another spaced write. `age` is since the reply's last write.
        """
        if self._store.is_away:
            return None
        since = int(min(age, draws[0].budget.seconds) * 1000)
        words = ["take", since, *(word for draw in draws for word in draw.words)]
        try:
            answer = await self._script(keys=[self._key(it.budget) for it in draws], args=words)
        except StoreUnavailable as error:
            self._store.note_away(error)
            return None
        wait, other = answer
        return (wait / 1000, draws[other], None) if wait else (0.0, draws[0], other / 1000)

    def _as_learned(self, budget: EditBudget) -> EditBudget:
        writes, seconds = self._learned.get(budget.bucket, (budget.writes, budget.seconds))
        return replace(budget, writes=writes, seconds=seconds)

    def _key(self, budget: EditBudget) -> str:
        return self._store.key("budget", budget.bucket)


def _all_of(budget: EditBudget) -> list[EditBudget]:
    return [budget, budget.within] if budget.within else [budget]


def _kept(budget: EditBudget, kind: _Kind) -> int:
    """Return how many writes of a window are not for this one."""
    if kind is _Kind.SPARE:
        return budget.writes // 2
    return min(budget.kept, budget.writes - 1) if kind is _Kind.INTERIM else 0


async def _woken(waiter: _Waiter, *, within: float) -> None:
    """Wait until the waiter is woken, but no longer than so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(None if within == math.inf else within):
            await waiter.woken.wait()
