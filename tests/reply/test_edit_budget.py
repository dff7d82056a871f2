"""The edit budget: even inside a process, shared between them, with finals always through."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bot import store as store_module
from bot.domain import EditBudget, Shape
from bot.errors import WriteDelayed
from bot.reply.edit_budget import EditBudgets
from bot.store import Store, connect
from tests.reply.virtual_clock import VirtualClock
from tests.support.outage import line
from tests.support.waiting import until

NEVER = asyncio.Event()
FOREVER = math.inf
LONG_AGO = -math.inf
SOON = 0.01  # what rounding to milliseconds may add


def fixed(bucket: str, writes: int, seconds: float, *, for_finals: int = 1) -> EditBudget:
    return EditBudget(bucket, writes, seconds, for_finals=for_finals)


def refilling(bucket: str, writes: int, seconds: float) -> EditBudget:
    return EditBudget(bucket, writes, seconds, shape="refills")


def inside(bucket: str, around: EditBudget) -> EditBudget:
    """A budget that is never used up, within another one."""
    return EditBudget(bucket, 1000, 1.0, within=around)


def posting(owed: EditBudget) -> EditBudget:
    """A budget of posts that have to be edited once more."""
    return replace(fixed("post", 100, 1.0), owes=(owed,))


class Scene(VirtualClock):
    """A store, and the time of the processes that share it."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    def processes(self, number: int) -> list[EditBudgets]:
        return [EditBudgets(store=self.store, clock=self) for _ in range(number)]


def unreachable_store(url: str = "unix:///nowhere/socket") -> Store:
    client = redis.asyncio.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
    return Store(client=client, url=url, prefix="none")


async def edit(
    budgets: EditBudgets,
    budget: EditBudget,
    *,
    new: bool = False,
    since: float = 0.0,
    wrote: float = LONG_AGO,
    unless: asyncio.Event = NEVER,
) -> bool:
    return await budgets.interim(budget, new=new, since=since, wrote=wrote, unless=unless)


async def edits(
    scene: Scene, budgets: EditBudgets, budget: EditBudget, *, within: float
) -> list[float]:
    """The moments of all interim edits that one reply may make in so many seconds."""
    began, moments = scene.now(), []
    over = asyncio.Event()
    scene.after(within, over.set)
    while await edit(budgets, budget, unless=over):
        moments.append(scene.now() - began)
    return moments


async def waits(
    scene: Scene, budgets: EditBudgets, budget: EditBudget, *, finals: int
) -> list[float]:
    """How long each of so many final writes waits, one after another."""
    return [await scene.took(budgets.final(budget, deadline=FOREVER)) for _ in range(finals)]


def gaps(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(moments)]


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(store)


class TestFixedWindow:
    """A window that opens with its first write."""

    async def test_interim_edits_are_spaced_evenly(self, scene: Scene) -> None:
        (budgets,) = scene.processes(1)

        (moments,) = await scene.run(edits(scene, budgets, fixed("a", 11, 100.0), within=60))

        assert gaps(moments) == pytest.approx([9.5] * 6, abs=SOON)

    async def test_one_of_a_process_is_kept_without_the_store(self, scene: Scene) -> None:
        (budgets,) = scene.processes(1)
        budget = EditBudget("a", 10, 100.0, for_finals=0, own=True)

        (moments,) = await scene.run(edits(scene, budgets, budget, within=250))

        assert gaps(moments) == pytest.approx([10.5] * 23, abs=SOON)
        assert await scene.store.command("EXISTS", scene.store.key("budget", "a")) == 0

    async def test_processes_together_keep_one_for_a_final(self, scene: Scene) -> None:
        budget, processes = fixed("a", 6, 100.0), scene.processes(3)

        of_each = await scene.run(*(edits(scene, one, budget, within=90) for one in processes))

        assert sum(map(len, of_each)) == 5
        assert await waits(scene, processes[0], budget, finals=1) == [0]

    @pytest.mark.parametrize("learned", [False, True])
    async def test_a_final_waits_for_the_next_one_if_this_is_used_up(
        self, scene: Scene, learned: bool
    ) -> None:
        budget, (budgets,) = fixed("a", 100 if learned else 2, 100.0), scene.processes(1)
        if learned:
            # As the platform's headers say.
            budgets.learn("a", writes=2, seconds=100.0)

        waited = await waits(scene, budgets, budget, finals=3)

        assert waited == pytest.approx([0, 0, 100], abs=SOON)

    async def test_the_last_edit_comes_just_before_its_end_and_delays_none_of_the_next(
        self, scene: Scene
    ) -> None:
        (budgets,) = scene.processes(1)

        (moments,) = await scene.run(edits(scene, budgets, fixed("a", 2, 100.0), within=110))

        assert moments == pytest.approx([0, 95, 100], abs=SOON)

    async def test_a_new_page_is_not_spaced(self, scene: Scene) -> None:
        budget, (budgets,) = fixed("a", 5, 100.0), scene.processes(1)

        for _ in range(5):
            assert await scene.took(edit(budgets, budget, new=True)) == 0

    async def test_a_reply_that_was_just_written_waits_for_half_an_interval(
        self, scene: Scene
    ) -> None:
        budget, (budgets,) = fixed("a", 3, 100.0), scene.processes(1)

        took = await scene.took(edit(budgets, budget, since=scene.now(), wrote=scene.now()))

        assert took == pytest.approx(95 / 4, abs=SOON)


class TestRefillingBucket:
    """A bucket that gets its writes back evenly."""

    async def test_it_begins_dense_and_widens(self, scene: Scene) -> None:
        (budgets,) = scene.processes(1)

        (moments,) = await scene.run(edits(scene, budgets, refilling("a", 12, 60.0), within=30))

        assert gaps(moments) == sorted(gaps(moments))
        assert gaps(moments)[0] < 1 < gaps(moments)[-1] < 5

    async def test_processes_together_empty_it_but_for_one(self, scene: Scene) -> None:
        budget = refilling("a", 4, 4000.0)
        await scene.run(*(edits(scene, one, budget, within=90) for one in scene.processes(3)))

        (another,) = scene.processes(1)
        assert await scene.took(another.final(budget, deadline=FOREVER)) == 0

    async def test_it_refills_evenly_up_to_its_writes(self, scene: Scene) -> None:
        budget, (budgets,) = refilling("a", 2, 80.0), scene.processes(1)

        for _ in range(2):
            waited = await waits(scene, budgets, budget, finals=3)
            await scene.run(scene.sleep(1000))

            assert waited == pytest.approx([0, 0, 40], abs=SOON)


class TestSlidingWindow:
    """A window of which nobody tells when it opens."""

    async def test_no_period_of_its_length_has_more_writes(self, scene: Scene) -> None:
        budget = EditBudget("a", 4, 60.0, shape="slides")
        processes = scene.processes(2)
        moments: list[float] = []
        for number in range(10):
            await scene.run(processes[number % 2].final(budget, deadline=FOREVER))
            moments.append(scene.now())
            # Late in its window, so that the next one would follow too closely.
            await scene.run(scene.sleep(50 if number == 0 else 0))

        spans = [later - earlier for earlier, later in zip(moments[:-4], moments[4:], strict=True)]
        assert min(spans) > 60 - SOON
        assert moments[-1] - moments[0] < 180 + SOON

    async def test_it_keeps_some_of_its_writes(self, scene: Scene) -> None:
        around = EditBudget("all", 4, 60.0, shape="slides", for_finals=2)
        (budgets,), ended = scene.processes(1), asyncio.Event()
        for name in "ab":
            await scene.run(edit(budgets, inside(name, around)))
        scene.after(10, ended.set)

        assert await scene.run(edit(budgets, inside("c", around), unless=ended)) == [False]
        for _ in range(2):
            await scene.run(budgets.final(around, deadline=0.0))
        with pytest.raises(WriteDelayed):
            await scene.run(budgets.final(around, deadline=0.0))


class TestPause:
    """A bucket into which the platform wants no write for a while."""

    async def test_it_holds_its_own_bucket_only_and_that_for_all_processes(
        self, scene: Scene
    ) -> None:
        paused, (one, other) = fixed("a", 9, 1), scene.processes(2)

        await one.pause(paused, 30)

        assert await waits(scene, one, fixed("b", 9, 1), finals=1) == [0]
        assert await waits(scene, other, paused, finals=1) == pytest.approx([30], abs=SOON)
        assert await waits(scene, one, paused, finals=1) == [0]

    async def test_it_holds_those_who_wait_already(self, scene: Scene) -> None:
        budget, (budgets,) = fixed("a", 11, 100.0), scene.processes(1)
        began = scene.now()

        async def write() -> float:
            await edit(budgets, budget)
            return scene.now() - began

        async def pause() -> None:
            await scene.sleep(1)
            await budgets.pause(budget, 60)

        first, second, third, _ = await scene.run(write(), write(), write(), pause())

        assert first == 0
        assert min(second or 0, third or 0) >= 61 - SOON

    async def test_it_outlasts_the_window_in_which_it_began(self, scene: Scene) -> None:
        budget, (one, other, third) = fixed("a", 100, 0.1), scene.processes(3)
        await scene.run(one.final(budget, deadline=FOREVER))

        await other.pause(budget, 100)

        assert await scene.store.command("PTTL", scene.store.key("budget", "a")) > 10_000
        await scene.run(scene.sleep(30))
        assert await scene.took(third.final(budget, deadline=FOREVER)) > 50

    async def test_a_final_that_would_wait_too_long_is_delayed(self, scene: Scene) -> None:
        budget, (budgets,) = fixed("a", 5, 1.0), scene.processes(1)
        await budgets.pause(budget, 3600)

        with pytest.raises(WriteDelayed) as caught:
            await scene.run(budgets.final(budget, deadline=scene.now() + 5))

        assert caught.value.retry_after == pytest.approx(3600)

    @pytest.mark.parametrize("paused", ["inf", "1e300", "9" * 17])
    async def test_one_that_no_platform_asks_for_is_none(self, scene: Scene, paused: str) -> None:
        budget, (budgets,) = fixed("a", 5, 1.0), scene.processes(1)
        await scene.store.command(
            "HSET", scene.store.key("budget", budget.bucket), "paused", paused
        )

        await scene.run(budgets.final(budget, deadline=scene.now() + 5))


class TestOrder:
    """Who of a process goes first."""

    async def test_finals_of_a_channel_go_out_in_the_order_in_which_replies_end(
        self, scene: Scene
    ) -> None:
        (budgets,) = scene.processes(1)
        channel = replace(refilling("channel", 5, 5.2), within=refilling("all", 300, 60.0))
        shown: list[tuple[int, float]] = []

        async def end(number: int) -> None:
            await scene.sleep(number / 10)
            await budgets.final(channel, deadline=FOREVER)
            shown.append((number, scene.now()))

        await scene.run(*(end(number) for number in reversed(range(20))))

        assert [number for number, _ in shown] == list(range(20))
        assert gaps([moment for _, moment in shown[6:]]) == pytest.approx([1.04] * 13, abs=SOON)

    async def test_a_new_page_does_not_wait_as_long_as_finals_keep_coming(
        self, scene: Scene
    ) -> None:
        budget, (budgets,) = fixed("a", 2, 1.0), scene.processes(1)
        written: list[str] = []

        async def finals() -> None:
            while "new" not in written and len(written) < 100:
                await budgets.final(budget, deadline=FOREVER)
                written.append("final")

        async def new() -> None:
            await edit(budgets, budget, new=True, since=scene.now())
            written.append("new")

        await scene.run(finals(), finals(), finals(), finals(), new())

        assert written.index("new") < 20

    async def test_the_end_of_a_reply_ends_its_waiting(self, scene: Scene) -> None:
        budget, (budgets,), ended = fixed("a", 2, 100.0), scene.processes(1), asyncio.Event()
        began = scene.now()
        await scene.run(edit(budgets, budget, unless=ended))
        scene.after(5, ended.set)

        assert await scene.run(edit(budgets, budget, unless=ended)) == [False]
        assert scene.now() - began == 5

    async def test_a_reply_that_ends_leaves_its_turn_to_the_next(self, scene: Scene) -> None:
        budget, (budgets,), ended = fixed("a", 11, 100.0), scene.processes(1), asyncio.Event()
        await scene.run(edit(budgets, budget))
        scene.after(1, ended.set)

        first, second = await scene.run(
            edit(budgets, budget, since=1.0, unless=ended), edit(budgets, budget, since=2.0)
        )

        assert (first, second) == (False, True)

    async def test_a_final_that_another_one_holds_up_is_reported_when_to_come_back(
        self, scene: Scene
    ) -> None:
        budget, (budgets,) = fixed("a", 1, 50.0), scene.processes(1)
        await waits(scene, budgets, budget, finals=1)

        with pytest.raises(WriteDelayed) as caught:
            await scene.run(
                budgets.final(budget, deadline=FOREVER),
                budgets.final(budget, deadline=scene.now() + 1),
            )

        assert caught.value.retry_after == 50

    async def test_what_nobody_would_miss_gets_half_of_a_budget_at_most(self, scene: Scene) -> None:
        budget, (budgets,) = fixed("a", 4, 60.0), scene.processes(1)

        granted = [await budgets.spare(budget) for _ in range(4)]

        assert granted == [True, True, False, False]

    async def test_what_nobody_would_miss_gets_nothing_while_somebody_waits(
        self, scene: Scene
    ) -> None:
        budget, (one, other) = fixed("a", 4, 1.0), scene.processes(2)
        await other.pause(budget, 30)

        async def spare() -> bool:
            await scene.sleep(1)
            return await one.spare(budget)

        async def final() -> bool:
            await one.final(budget, deadline=FOREVER)
            return True

        assert await scene.run(final(), spare()) == [True, False]


class TestWithin:
    """Budgets whose writes count in a budget around them, too."""

    async def test_processes_together_keep_to_it(self, scene: Scene) -> None:
        around, (one, other) = fixed("all", 3, 60.0), scene.processes(2)
        for budgets, bucket in ((one, "a"), (other, "b"), (one, "c")):
            await scene.run(budgets.final(inside(bucket, around), deadline=FOREVER))

        assert await scene.took(other.final(inside("d", around), deadline=FOREVER)) > 50

    async def test_a_write_that_it_holds_up_is_booked_nowhere(self, scene: Scene) -> None:
        around, (one, other) = fixed("all", 100, 1.0), scene.processes(2)
        budget = EditBudget("a", 1, 600.0, within=around)
        await one.pause(around, 30)

        await scene.run(other.final(budget, deadline=FOREVER))

        with pytest.raises(WriteDelayed):
            await scene.run(one.final(budget, deadline=0.0))

    async def test_a_write_that_its_own_bucket_holds_up_is_not_booked_there(
        self, scene: Scene
    ) -> None:
        around, (budgets,) = fixed("all", 2, 60.0), scene.processes(1)
        budget = EditBudget("a", 1, 60.0, within=around)
        await waits(scene, budgets, budget, finals=1)
        for _ in range(3):
            with pytest.raises(WriteDelayed):
                await scene.run(budgets.final(budget, deadline=0.0))

        assert await scene.took(budgets.final(inside("b", around), deadline=0.0)) == 0

    async def test_finals_go_first_then_what_is_new_and_then_the_stalest(
        self, scene: Scene
    ) -> None:
        around, (budgets,) = fixed("all", 1, 30.0), scene.processes(1)
        written: list[str] = []
        await scene.run(budgets.final(around, deadline=FOREVER))

        async def interim(name: str, since: float, *, new: bool = False) -> None:
            await edit(budgets, inside(name, around), new=new, since=since)
            written.append(name)

        async def final() -> None:
            await budgets.final(inside("final", around), deadline=FOREVER)
            written.append("final")

        async def call() -> None:
            await budgets.call(around, deadline=FOREVER)
            written.append("call")

        await scene.run(
            interim("fresh", 3.0),
            interim("stale", 1.0),
            call(),
            interim("new", scene.now() - 0.5, new=True),
            final(),
        )

        assert written == ["final", "new", "call", "stale", "fresh"]

    async def test_who_waits_for_its_own_bucket_holds_up_nobody_else(self, scene: Scene) -> None:
        around, (budgets,) = fixed("all", 100, 1.0), scene.processes(1)
        await budgets.pause(inside("a", around), 30)
        began = scene.now()

        async def other() -> float:
            await scene.sleep(1)
            await edit(budgets, inside("b", around))
            return scene.now() - began

        async def paused() -> float:
            await budgets.final(inside("a", around), deadline=FOREVER)
            return scene.now() - began

        assert await scene.run(paused(), other()) == pytest.approx([30, 1])

    async def test_a_final_overtakes_its_channels_edit_that_waits_for_it(
        self, scene: Scene
    ) -> None:
        around, (budgets,) = fixed("all", 1, 50.0), scene.processes(1)
        written: list[str] = []
        await scene.run(budgets.final(around, deadline=FOREVER))

        async def interim(name: str, since: float) -> None:
            await edit(budgets, inside(name, around), since=since)
            written.append(f"edit of {name}")

        async def final(name: str) -> None:
            await scene.sleep(1)
            await budgets.final(inside(name, around), deadline=FOREVER)
            written.append(f"final of {name}")

        await scene.run(interim("a", 1.0), interim("b", 2.0), final("a"))

        assert written == ["final of a", "edit of a", "edit of b"]

    async def test_a_channel_that_is_paused_meanwhile_holds_up_nobody_else(
        self, scene: Scene
    ) -> None:
        around, (budgets,) = fixed("all", 1, 50.0), scene.processes(1)
        await scene.run(budgets.final(around, deadline=FOREVER))
        began = scene.now()

        async def paused() -> float:
            await scene.sleep(1)
            await budgets.pause(inside("a", around), 3000)
            await budgets.final(inside("a", around), deadline=FOREVER)
            return scene.now() - began

        async def interim(name: str, since: float) -> float:
            await scene.sleep(since)
            await edit(budgets, inside(name, around), since=since)
            return scene.now() - began

        ended, first, other = await scene.run(paused(), interim("a", 0.0), interim("b", 2.0))

        assert other < 150
        assert min(first, ended) > 2900

    async def test_interim_edits_leave_some_of_it_to_others(self, scene: Scene) -> None:
        around = fixed("all", 5, 100.0, for_finals=2)
        (budgets,), ended = scene.processes(1), asyncio.Event()
        for name in "abc":
            await scene.run(edit(budgets, inside(name, around)))
        scene.after(1, ended.set)

        assert await scene.run(edit(budgets, inside("d", around), unless=ended)) == [False]
        for name in "de":
            final = budgets.final(inside(name, around), deadline=FOREVER)
            assert await scene.took(final) == 0

    async def test_a_slot_is_one_of_it_for_one_call(self, scene: Scene) -> None:
        around, (budgets,) = fixed("all", 5, 1.0), scene.processes(1)

        await budgets.final(inside("a", around), deadline=FOREVER)

        assert [budgets.use_booked_slot(around) for _ in range(2)] == [True, False]
        await budgets.final(fixed("b", 5, 1.0), deadline=FOREVER)
        assert not budgets.use_booked_slot(around)


class TestReserve:
    """The write that ends what a reply has begun."""

    OWED = refilling("owed", 5, 5000.0)

    async def begin(
        self, scene: Scene, budgets: EditBudgets, stack: AsyncExitStack, owed: EditBudget = OWED
    ) -> bool:
        """Begin a reply, unless it has to wait for 5 s; it ends with the stack."""
        await stack.enter_async_context(budgets.reserving())
        ended = asyncio.Event()
        scene.after(5, ended.set)
        begun = await scene.run(edit(budgets, posting(owed), new=True, unless=ended))
        return begun == [True]

    async def test_no_more_replies_begin_than_can_end(self, scene: Scene) -> None:
        async with AsyncExitStack() as stack:
            begun = [await self.begin(scene, budgets, stack) for budgets in scene.processes(6)]
            last = scene.processes(1)[0]
            for _ in range(5):
                assert await scene.took(last.final(self.OWED, deadline=FOREVER)) == 0

        assert begun == [True] * 5 + [False]

    async def test_it_is_given_back_at_the_end(self, scene: Scene) -> None:
        processes, owed = scene.processes(2), refilling("owed", 1, 5000.0)
        async with AsyncExitStack() as stack:
            assert await self.begin(scene, processes[0], stack, owed)

        async with AsyncExitStack() as stack:
            assert await self.begin(scene, processes[1], stack, owed)

    async def test_that_of_a_dead_process_lapses_with_its_lease(self, scene: Scene) -> None:
        owed = refilling("owed", 1, 5000.0)
        dead = EditBudgets(store=scene.store, clock=scene, lease_seconds=30.0)
        async with AsyncExitStack() as stack:
            await self.begin(scene, dead, stack, owed)
            (other,) = scene.processes(1)
            await stack.enter_async_context(other.reserving())

            took = await scene.took(edit(other, posting(owed), new=True))

        assert took == pytest.approx(30, abs=1 + SOON)

    async def test_who_waits_for_one_begins_soon_after_another_is_given_back(
        self, scene: Scene
    ) -> None:
        (one, other), owed = scene.processes(2), refilling("owed", 1, 5000.0)
        began = scene.now()

        async def reply(budgets: EditBudgets, *, begins: float, lasts: float) -> float:
            await scene.sleep(begins)
            async with budgets.reserving():
                await edit(budgets, posting(owed), new=True)
                begun = scene.now() - began
                await scene.sleep(lasts)
            return begun

        begun = await scene.run(
            reply(one, begins=0.0, lasts=10.0), reply(other, begins=1.0, lasts=0.0)
        )

        assert begun == pytest.approx([0, 10], abs=1 + SOON)

    async def test_what_an_earlier_attempt_owed_is_reserved_before_the_first_write(
        self, scene: Scene
    ) -> None:
        resuming, other = scene.processes(2)
        owed = refilling("owed", 1, 5000.0)
        async with AsyncExitStack() as stack:
            async with resuming.reserving([owed]):
                assert not await self.begin(scene, other, stack, owed)

            assert await self.begin(scene, other, stack, owed)

    async def test_it_is_kept_as_long_as_the_reply_goes_on(self, store: Store) -> None:
        budgets = EditBudgets(store=store, lease_seconds=0.03)
        key, seen = store.key("budget", "owed:owed"), set[float]()
        async with asyncio.timeout(60), budgets.reserving():
            await edit(budgets, posting(self.OWED), new=True)
            while len(seen) < 3:
                (owner,) = await store.command("ZRANGE", key, 0, -1)
                seen.add(float(await store.command("ZSCORE", key, owner)))
                await asyncio.sleep(0.005)

        assert await store.command("ZCARD", key) == 0

    async def test_interim_edits_leave_it(self, scene: Scene) -> None:
        processes = scene.processes(3)
        async with AsyncExitStack() as stack:
            for budgets in processes:
                await self.begin(scene, budgets, stack)
            (made,) = await scene.run(edits(scene, processes[0], self.OWED, within=5))
            spare = await scene.run(processes[0].spare(self.OWED))
            ends = [await scene.took(it.final(self.OWED, deadline=FOREVER)) for it in processes]

        # One is kept in any case.
        assert (len(made), spare, ends) == (1, [False], [0, 0, 0])

    async def test_who_waits_for_it_holds_up_no_final_of_its_channel(self, scene: Scene) -> None:
        (budgets,) = scene.processes(1)
        owed, began = refilling("owed", 1, 60.0), scene.now()
        await scene.run(budgets.final(owed, deadline=FOREVER))

        async def new() -> float:
            async with budgets.reserving():
                await edit(budgets, posting(owed), new=True)
            return scene.now() - began

        async def final() -> float:
            await scene.sleep(5)
            await budgets.final(posting(owed), deadline=FOREVER)
            return scene.now() - began

        assert await scene.run(new(), final()) == pytest.approx([60, 5], abs=SOON)


class TestLearned:
    """A bucket of which a 429 has shown that it has less than was assumed."""

    async def test_all_processes_write_less_for_a_while(self, scene: Scene) -> None:
        budget, (one, other) = refilling("a", 10, 100.0), scene.processes(2)
        for _ in range(3):
            # The calls that were under way get the same answer.
            await one.pause(budget, 1)
        await scene.run(other.final(budget, deadline=FOREVER))

        took = await scene.took(other.final(budget, deadline=FOREVER))
        await scene.run(scene.sleep(700))

        assert took == pytest.approx(12.5, abs=SOON)
        for _ in range(10):
            assert await scene.took(other.final(budget, deadline=FOREVER)) == 0

    async def test_one_refusal_at_the_end_of_the_writes_is_an_accident(self, scene: Scene) -> None:
        budget, (budgets,) = refilling("a", 10, 100.0), scene.processes(1)
        for _ in range(10):
            await budgets.final(budget, deadline=FOREVER)

        waits = []
        for _ in range(2):
            await budgets.pause(budget, 1)
            waits.append(await scene.took(budgets.final(budget, deadline=FOREVER)))

        # The second one, less than a minute later, is none.
        assert waits == pytest.approx([10, 12.5], abs=SOON)


class TestAlone:
    """A process whose store is away."""

    async def test_it_keeps_to_its_own_spacing(self, scene: Scene) -> None:
        budgets = EditBudgets(store=unreachable_store(), clock=scene)

        (moments,) = await scene.run(edits(scene, budgets, fixed("a", 6, 100.0), within=50))

        assert moments == pytest.approx([0, 17.5, 35])

    @pytest.mark.parametrize("new", [True, False])
    async def test_no_window_sees_too_many_writes(self, scene: Scene, new: bool) -> None:
        budget, budgets = fixed("a", 4, 60.0), EditBudgets(store=unreachable_store(), clock=scene)
        moments: list[float] = []

        async def write() -> None:
            if new:
                await edit(budgets, budget, new=True)
            else:
                await budgets.final(budget, deadline=FOREVER)
            moments.append(scene.now())

        await scene.run(*(write() for _ in range(9)))

        spans = [later - earlier for earlier, later in zip(moments[:-4], moments[4:], strict=True)]
        assert min(spans) > 60
        assert moments[-1] - moments[0] < 200

    async def test_one_write_of_a_window_is_kept_for_a_final(self, scene: Scene) -> None:
        budget, budgets = fixed("a", 3, 100.0), EditBudgets(store=unreachable_store(), clock=scene)
        await scene.run(edits(scene, budgets, budget, within=80))

        assert await scene.took(budgets.final(budget, deadline=FOREVER)) == 0

    async def test_a_store_that_is_away_is_not_asked_for_each_write(self, scene: Scene) -> None:
        async with _hanging_up() as (url, calls):
            budgets = EditBudgets(store=unreachable_store(url), clock=scene)

            for _ in range(20):
                await scene.run(budgets.final(fixed("a", 100, 1.0), deadline=FOREVER))

        assert 1 <= len(calls) <= 4

    async def test_what_it_wrote_alone_counts_when_the_store_is_back(
        self, valkey_url: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "PING_PAUSE", 0.05)
        budget = fixed("a", 2, 100.0)
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            async with line(valkey_url, Path(folder)) as way:
                there = unreachable_store(way.url)
                budgets = EditBudgets(store=there, clock=scene)
                await way.cut()
                await waits(scene, budgets, budget, finals=2)
                await way.mend()
                await until(lambda: not there.is_away)

                (took,) = await waits(scene, budgets, budget, finals=1)
                await there.redis.aclose()

        assert took == pytest.approx(105)

    async def test_a_store_that_hangs_holds_up_one_write_and_no_other(
        self, valkey_url: str, tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "PING_SECONDS", 0.1)
        monkeypatch.setattr(store_module, "PING_PAUSE", 0.05)
        budget, prefix = fixed("a", 100, 1.0), f"test-{uuid4().hex}"
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            async with (
                line(valkey_url, Path(folder)) as way,
                connect(url=way.url, data_dir=tmp_path, prefix=prefix) as there,
            ):
                budgets = EditBudgets(store=there, clock=scene)
                way.hold()
                monkeypatch.setattr(store_module, "COMMAND_SECONDS", 0.2)
                await waits(scene, budgets, budget, finals=1)
                # Hours, if each waited for the store.
                monkeypatch.setattr(store_module, "COMMAND_SECONDS", 600.0)
                async with asyncio.timeout(60):
                    for _ in range(20):
                        await waits(scene, budgets, budget, finals=1)
                monkeypatch.undo()
                await way.mend()
                await until(lambda: not there.is_away)
                await waits(scene, budgets, budget, finals=1)

                assert await there.command("EXISTS", there.key("budget", "a")) == 1


@asynccontextmanager
async def _hanging_up() -> AsyncIterator[tuple[str, list[None]]]:
    """A server that hangs up on everybody; yields its address, and one item for each call."""
    calls: list[None] = []

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(None)
        writer.close()

    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with await asyncio.start_unix_server(answer, Path(folder, "line")):
            yield f"unix://{folder}/line", calls


class TestRecords:
    """What another version, or another hand, wrote."""

    @pytest.mark.parametrize("wrong", ["garbage", "", "nan", "-1", "1e300"])
    @pytest.mark.parametrize("shape", ["fixed", "refills", "slides"])
    async def test_one_that_cannot_be_read_holds_up_no_write(
        self, scene: Scene, shape: Shape, wrong: str
    ) -> None:
        budget = EditBudget("b", 5, 1.0, shape=shape)
        fields = ("next", "used", "ends", "level", "at", "made", *(f"write{i}" for i in range(5)))
        written = [word for field in fields for word in (field, wrong)]
        await scene.store.command("HSET", scene.store.key("budget", "b"), *written)
        (budgets,) = scene.processes(1)

        await scene.run(budgets.final(budget, deadline=scene.now() + 5))

        assert not scene.store.is_away


async def test_without_another_clock_the_store_tells_the_time(store: Store) -> None:
    one, other, budget = EditBudgets(store=store), EditBudgets(store=store), fixed("a", 1, 600.0)
    await one.final(budget, deadline=0.0)

    with pytest.raises(WriteDelayed) as caught:
        await other.final(budget, deadline=0.0)

    (seconds, _) = await store.redis.time()
    ends = float(await store.command("HGET", store.key("budget", "a"), "ends")) / 1000
    assert 0 < ends - seconds <= 601
    assert 0 < caught.value.retry_after <= 600


async def test_a_wait_of_the_real_clock_ends_with_its_time(store: Store) -> None:
    budget, budgets = fixed("a", 1, 0.2), EditBudgets(store=store)

    for _ in range(2):
        await budgets.final(budget, deadline=FOREVER)
