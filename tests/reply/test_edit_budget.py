"""The edit budget: even inside a process, shared between them, with finals always through."""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bot import store as store_module
from bot.concurrency import cancelled
from bot.domain import EditBudget
from bot.errors import WriteDelayed
from bot.reply.edit_budget import EditBudgets
from bot.store import Store, connect
from tests.support.outage import line
from tests.support.waiting import until

NEVER = asyncio.Event()
FOREVER = math.inf
LONG_AGO = -math.inf


def fixed(bucket: str, writes: int, seconds: float) -> EditBudget:
    return EditBudget(bucket, writes, seconds, refills=False)


def refilling(bucket: str, writes: int, seconds: float) -> EditBudget:
    return EditBudget(bucket, writes, seconds, refills=True)


def alone() -> EditBudgets:
    """Budgets whose store is away."""
    url = "unix:///nowhere/socket"
    client = redis.asyncio.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
    return EditBudgets(store=Store(client=client, url=url, prefix="none"))


async def seconds(waiting: Awaitable[object]) -> float:
    began = time.perf_counter()
    await waiting
    return time.perf_counter() - began


async def edits(budgets: EditBudgets, budget: EditBudget, *, within: float) -> list[float]:
    """The moments of all interim edits that one reply may make in so many seconds."""
    began, moments = time.perf_counter(), []
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(within, over.set)
    while await budgets.interim(budget, new=False, since=0.0, wrote=LONG_AGO, unless=over):
        moments.append(time.perf_counter() - began)
    return moments


async def test_interim_edits_are_spaced_evenly(store: Store) -> None:
    budget = fixed("a", 11, 1.0)

    moments = await edits(EditBudgets(store=store), budget, within=0.55)

    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert 3 <= len(moments) <= 6
    assert min(gaps) > 0.08, gaps
    # A busy machine holds one up, but not most of them.
    assert statistics.median_low(gaps) < 0.2, gaps


async def test_processes_together_keep_to_the_budget(store: Store) -> None:
    budget = fixed("a", 6, 1.0)

    of_each = await asyncio.gather(
        *(edits(EditBudgets(store=store), budget, within=0.9) for _ in range(3))
    )

    assert sum(map(len, of_each)) == 5


async def test_one_edit_of_a_window_is_kept_for_a_final(store: Store) -> None:
    budget = fixed("a", 4, 2.0)
    budgets = [EditBudgets(store=store) for _ in range(3)]
    for each in budgets:
        await each.interim(budget, new=False, since=0.0, wrote=LONG_AGO, unless=NEVER)

    took = await seconds(budgets[0].final(budget, deadline=FOREVER))

    assert took < 0.2


async def test_a_final_waits_for_the_next_window_when_this_one_is_used_up(store: Store) -> None:
    budget = fixed("a", 2, 0.5)
    budgets = EditBudgets(store=store)
    for _ in range(2):
        await budgets.final(budget, deadline=FOREVER)

    took = await seconds(budgets.final(budget, deadline=FOREVER))

    assert 0.3 < took < 1.0


async def test_a_final_that_would_wait_too_long_is_told(store: Store) -> None:
    budget = fixed("a", 5, 1.0)
    budgets = EditBudgets(store=store)
    await budgets.pause(budget, 3600)

    with pytest.raises(WriteDelayed) as caught:
        await budgets.final(budget, deadline=asyncio.get_running_loop().time() + 5)

    assert caught.value.retry_after > 3500


@pytest.mark.parametrize("paused", ["inf", "1e300", "9" * 17])
async def test_a_pause_that_no_platform_asks_for_is_none(store: Store, paused: str) -> None:
    budget = fixed("a", 5, 1.0)
    await store.command("HSET", store.key("budget", budget.bucket), "paused", paused)

    await EditBudgets(store=store).final(budget, deadline=asyncio.get_running_loop().time() + 5)


async def test_the_end_of_a_reply_ends_its_waiting(store: Store) -> None:
    budget, ended = fixed("a", 2, 10.0), asyncio.Event()
    budgets = EditBudgets(store=store)
    await budgets.interim(budget, new=False, since=0.0, wrote=LONG_AGO, unless=ended)
    asyncio.get_running_loop().call_later(0.05, ended.set)

    began = time.perf_counter()
    granted = await budgets.interim(budget, new=False, since=0.0, wrote=LONG_AGO, unless=ended)

    assert not granted
    assert time.perf_counter() - began < 1


async def test_a_pause_holds_its_own_bucket_only(store: Store) -> None:
    paused, other = fixed("a", 100, 1.0), fixed("b", 100, 1.0)
    budgets = EditBudgets(store=store)

    await budgets.pause(paused, 0.3)

    assert await seconds(budgets.final(other, deadline=FOREVER)) < 0.2
    assert await seconds(budgets.final(paused, deadline=FOREVER)) > 0.2


async def test_a_pause_holds_those_who_wait_already(store: Store) -> None:
    budget = fixed("a", 11, 1.0)
    budgets = EditBudgets(store=store)
    waiting = [
        asyncio.create_task(
            seconds(budgets.interim(budget, new=False, since=0.0, wrote=LONG_AGO, unless=NEVER))
        )
        for _ in range(3)
    ]
    await asyncio.sleep(0.05)

    await budgets.pause(budget, 0.6)

    took = await asyncio.gather(*waiting)
    assert took[0] < 0.1
    assert min(took[1:]) > 0.5


class TestAlone:
    """A process whose store is away."""

    async def test_it_keeps_to_its_own_spacing(self) -> None:
        moments = await edits(alone(), fixed("a", 6, 1.0), within=0.5)

        assert 2 <= len(moments) <= 3

    @pytest.mark.parametrize("new", [True, False])
    async def test_no_window_sees_too_many_writes(self, new: bool) -> None:
        budget, budgets = fixed("a", 4, 0.6), alone()
        moments: list[float] = []

        async def write() -> None:
            if new:
                await budgets.interim(budget, new=True, since=0.0, wrote=LONG_AGO, unless=NEVER)
            else:
                await budgets.final(budget, deadline=FOREVER)
            moments.append(time.perf_counter())

        await asyncio.gather(*(write() for _ in range(9)))

        assert all(
            later - earlier > 0.6 for earlier, later in zip(moments[:-4], moments[4:], strict=True)
        )
        assert moments[-1] - moments[0] < 2

    async def test_one_write_of_a_window_is_kept_for_a_final(self) -> None:
        budget, budgets = fixed("a", 3, 1.0), alone()
        await edits(budgets, budget, within=0.8)

        assert await seconds(budgets.final(budget, deadline=FOREVER)) < 0.1

    async def test_it_believes_what_the_platform_says(self) -> None:
        budget, budgets = fixed("a", 100, 0.1), alone()
        budgets.learn("a", writes=1, seconds=0.5)
        await budgets.final(budget, deadline=FOREVER)

        assert await seconds(budgets.final(budget, deadline=FOREVER)) > 0.4

    async def test_a_pause_holds(self) -> None:
        budget, budgets = fixed("a", 100, 1.0), alone()

        await budgets.pause(budget, 0.4)

        assert await seconds(budgets.final(budget, deadline=FOREVER)) > 0.3

    async def test_a_store_that_is_away_is_not_asked_for_each_write(self) -> None:
        async with _hanging_up() as (url, calls):
            client = redis.asyncio.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
            budgets = EditBudgets(store=Store(client=client, url=url, prefix="none"))

            for _ in range(20):
                await budgets.final(fixed("a", 100, 1.0), deadline=FOREVER)

        assert 1 <= len(calls) <= 4

    async def test_what_it_wrote_alone_counts_when_the_store_is_back(
        self, valkey_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "PING_PAUSE", 0.05)
        budget = fixed("a", 2, 1.0)
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            async with line(valkey_url, Path(folder)) as way:
                client = redis.asyncio.Redis.from_url(way.url, retry=Retry(NoBackoff(), 0))
                there = Store(client=client, url=way.url, prefix="back")
                budgets = EditBudgets(store=there)
                await way.cut()
                for _ in range(2):
                    await budgets.final(budget, deadline=FOREVER)
                await way.mend()
                await until(lambda: not there.is_away)

                took = await seconds(budgets.final(budget, deadline=FOREVER))
                await client.aclose()

        assert 0.6 < took < 1.5

    async def test_a_store_that_hangs_holds_up_one_write_and_no_other(
        self, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "COMMAND_SECONDS", 0.5)
        monkeypatch.setattr(store_module, "PING_SECONDS", 0.1)
        monkeypatch.setattr(store_module, "PING_PAUSE", 0.05)
        budget, prefix = fixed("a", 100, 1.0), f"test-{uuid4().hex}"
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            async with (
                line(valkey_url, Path(folder)) as way,
                connect(url=way.url, data_dir=tmp_path, prefix=prefix) as there,
            ):
                budgets = EditBudgets(store=there)
                way.hold()
                first = await seconds(budgets.final(budget, deadline=FOREVER))
                others = [await _after_a_moment(budgets, budget) for _ in range(20)]
                await way.mend()
                await until(lambda: not there.is_away)
                await budgets.final(budget, deadline=FOREVER)

                assert await there.command("EXISTS", there.key("budget", "a")) == 1
        assert first == pytest.approx(0.5, abs=0.3)
        assert max(others) < 0.1


async def _after_a_moment(budgets: EditBudgets, budget: EditBudget) -> float:
    """Return how long a write waits that comes a little later."""
    await asyncio.sleep(0.05)
    return await seconds(budgets.final(budget, deadline=FOREVER))


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


async def test_the_last_edit_of_a_window_is_interim_only_just_before_its_end(store: Store) -> None:
    budget = fixed("a", 4, 2.0)

    moments = await edits(EditBudgets(store=store), budget, within=1.99)

    assert len(moments) == 4
    assert 1.8 < moments[3] < 1.99


async def test_a_reply_that_was_just_written_waits_for_half_an_interval(store: Store) -> None:
    budget, budgets = fixed("a", 3, 2.0), EditBudgets(store=store)
    wrote = asyncio.get_running_loop().time()

    took = await seconds(budgets.interim(budget, new=False, since=wrote, wrote=wrote, unless=NEVER))

    assert 0.4 < took < 0.7


async def test_a_new_window_is_not_spaced_from_the_last_edit_of_the_one_before(
    store: Store,
) -> None:
    budget = fixed("a", 2, 3.0)

    moments = await edits(EditBudgets(store=store), budget, within=4.0)

    assert len(moments) == 3
    assert 2.8 < moments[1] < 3.0 <= moments[2] < 3.8


async def test_a_bucket_that_refills_begins_dense_and_widens(store: Store) -> None:
    budget = refilling("a", 12, 6.0)

    moments = await edits(EditBudgets(store=store), budget, within=3.0)

    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert gaps == pytest.approx(sorted(gaps), abs=0.05)
    assert gaps[0] < gaps[-1] < 0.6


async def test_processes_together_empty_a_bucket_that_refills_but_for_one(store: Store) -> None:
    budget = refilling("a", 4, 400.0)
    for budgets in (EditBudgets(store=store) for _ in range(3)):
        ended = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, ended.set)
        await budgets.interim(budget, new=False, since=0.0, wrote=LONG_AGO, unless=ended)

    took = await seconds(EditBudgets(store=store).final(budget, deadline=FOREVER))

    assert took < 0.2


async def test_a_bucket_that_refills_does_so_evenly(store: Store) -> None:
    budget, budgets = refilling("a", 2, 0.8), EditBudgets(store=store)
    for _ in range(2):
        await budgets.final(budget, deadline=FOREVER)

    took = await seconds(budgets.final(budget, deadline=FOREVER))

    assert 0.2 < took < 0.7


async def test_finals_go_first_and_then_the_stalest(store: Store) -> None:
    budget, budgets = fixed("a", 2, 0.6), EditBudgets(store=store)
    written: list[str] = []
    await budgets.final(budget, deadline=FOREVER)
    await budgets.final(budget, deadline=FOREVER)

    async def interim(name: str, since: float) -> None:
        await budgets.interim(budget, new=False, since=since, wrote=LONG_AGO, unless=NEVER)
        written.append(name)

    async def final() -> None:
        await budgets.final(budget, deadline=FOREVER)
        written.append("final")

    await asyncio.gather(interim("fresh", 3.0), interim("stale", 1.0), interim("old", 2.0), final())

    assert written == ["final", "stale", "old", "fresh"]


async def test_what_is_new_does_not_wait_for_as_long_as_finals_come(store: Store) -> None:
    budget, budgets, loop = fixed("a", 2, 0.1), EditBudgets(store=store), asyncio.get_running_loop()

    async def finals() -> None:
        while True:
            await budgets.final(budget, deadline=FOREVER)

    ending = [asyncio.create_task(finals()) for _ in range(10)]
    await asyncio.sleep(0.1)
    try:
        # A second behind them, and behind those that came before that was over.
        async with asyncio.timeout(6):
            await budgets.call(budget, deadline=FOREVER)
            await budgets.interim(budget, new=True, since=loop.time(), wrote=LONG_AGO, unless=NEVER)
    finally:
        await cancelled(*ending)


async def test_what_is_new_waits_for_no_spacing(store: Store) -> None:
    budget, budgets = fixed("a", 5, 2.0), EditBudgets(store=store)

    async def new() -> float:
        return await seconds(
            budgets.interim(budget, new=True, since=0.0, wrote=LONG_AGO, unless=NEVER)
        )

    took = await asyncio.gather(*(new() for _ in range(5)))

    assert max(took) < 0.5


async def test_a_pause_holds_all_processes(store: Store) -> None:
    budget = fixed("a", 100, 1.0)
    await EditBudgets(store=store).pause(budget, 0.4)

    took = await seconds(EditBudgets(store=store).final(budget, deadline=FOREVER))

    assert 0.3 < took < 2


async def test_what_the_platform_says_counts_more_than_what_we_know(store: Store) -> None:
    budget, budgets = fixed("a", 100, 0.1), EditBudgets(store=store)
    budgets.learn("a", writes=1, seconds=0.5)
    await budgets.final(budget, deadline=FOREVER)

    took = await seconds(budgets.final(budget, deadline=FOREVER))

    assert took > 0.3


async def test_a_reply_that_ends_leaves_its_turn_to_the_next(store: Store) -> None:
    budget, budgets, ended = fixed("a", 11, 1.0), EditBudgets(store=store), asyncio.Event()
    await budgets.interim(budget, new=False, since=0.0, wrote=LONG_AGO, unless=NEVER)
    first = asyncio.create_task(
        budgets.interim(budget, new=False, since=1.0, wrote=LONG_AGO, unless=ended)
    )
    second = asyncio.create_task(
        budgets.interim(budget, new=False, since=2.0, wrote=LONG_AGO, unless=NEVER)
    )
    await asyncio.sleep(0.02)

    ended.set()

    assert await asyncio.wait_for(second, 1)
    assert not await first


async def test_waiting_behind_a_final_costs_no_time(store: Store) -> None:
    budget, budgets, ended = fixed("a", 2, 1.5), EditBudgets(store=store), asyncio.Event()
    for _ in range(2):
        await budgets.final(budget, deadline=FOREVER)

    async def reply_that_ends() -> None:
        await budgets.interim(budget, new=False, since=1.0, wrote=LONG_AGO, unless=ended)
        await budgets.final(budget, deadline=FOREVER)

    ending = asyncio.create_task(reply_that_ends())
    waiting = asyncio.create_task(
        budgets.interim(budget, new=False, since=2.0, wrote=LONG_AGO, unless=NEVER)
    )
    await asyncio.sleep(0.05)
    began = time.process_time()

    ended.set()
    await ending

    assert time.process_time() - began < 0.3
    assert await waiting


async def test_a_final_that_another_one_holds_up_is_told_when_to_come_back(store: Store) -> None:
    budget, budgets = fixed("a", 1, 5.0), EditBudgets(store=store)
    now = asyncio.get_running_loop().time()
    await budgets.final(budget, deadline=FOREVER)
    first = asyncio.create_task(budgets.final(budget, deadline=FOREVER))
    await asyncio.sleep(0.01)

    with pytest.raises(WriteDelayed) as caught:
        await budgets.final(budget, deadline=now + 0.1)

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert caught.value.retry_after == 5.0


async def test_a_shorter_pause_does_not_end_a_longer_one(store: Store) -> None:
    budget = fixed("a", 100, 1.0)
    await EditBudgets(store=store).pause(budget, 0.6)
    await EditBudgets(store=store).pause(budget, 0.1)

    assert await seconds(EditBudgets(store=store).final(budget, deadline=FOREVER)) > 0.5


async def test_a_pause_outlasts_the_window_in_which_it_began(store: Store) -> None:
    budget = fixed("a", 100, 0.1)
    await EditBudgets(store=store).final(budget, deadline=FOREVER)
    await EditBudgets(store=store).pause(budget, 1.0)
    await asyncio.sleep(0.3)

    assert await seconds(EditBudgets(store=store).final(budget, deadline=FOREVER)) > 0.3


async def test_a_bucket_that_refills_holds_no_more_than_its_writes(store: Store) -> None:
    budget, budgets = refilling("a", 2, 0.8), EditBudgets(store=store)
    for _ in range(2):
        await budgets.final(budget, deadline=FOREVER)
    await asyncio.sleep(1.4)
    for _ in range(2):
        await budgets.final(budget, deadline=FOREVER)

    assert await seconds(budgets.final(budget, deadline=FOREVER)) > 0.2


def inside(bucket: str, around: EditBudget) -> EditBudget:
    """A budget that is never used up, within another one."""
    return EditBudget(bucket, 1000, 1.0, refills=False, within=around)


class TestWithin:
    """Budgets whose writes count in a budget around them, too."""

    async def test_processes_together_keep_to_it(self, store: Store) -> None:
        around = fixed("all", 3, 0.6)
        one, other = EditBudgets(store=store), EditBudgets(store=store)
        for budgets, bucket in ((one, "a"), (other, "b"), (one, "c")):
            await budgets.final(inside(bucket, around), deadline=FOREVER)

        assert await seconds(other.final(inside("d", around), deadline=FOREVER)) > 0.4

    async def test_a_write_that_it_holds_up_is_booked_nowhere(self, store: Store) -> None:
        around, budgets = fixed("all", 100, 1.0), EditBudgets(store=store)
        budget = EditBudget("a", 1, 60.0, refills=False, within=around)
        await budgets.pause(around, 0.3)

        await EditBudgets(store=store).final(budget, deadline=FOREVER)

        with pytest.raises(WriteDelayed):
            await budgets.final(budget, deadline=0.0)

    async def test_a_write_that_its_own_bucket_holds_up_is_not_booked_there(
        self, store: Store
    ) -> None:
        around, budgets = fixed("all", 2, 60.0), EditBudgets(store=store)
        budget = EditBudget("a", 1, 60.0, refills=False, within=around)
        await budgets.final(budget, deadline=FOREVER)
        for _ in range(3):
            with pytest.raises(WriteDelayed):
                await budgets.final(budget, deadline=0.0)

        assert await seconds(budgets.final(inside("b", around), deadline=0.0)) < 0.2

    async def test_finals_go_first_then_what_is_new_and_then_the_stalest(
        self, store: Store
    ) -> None:
        around, budgets = fixed("all", 1, 0.3), EditBudgets(store=store)
        written: list[str] = []
        await budgets.final(around, deadline=FOREVER)

        async def interim(name: str, since: float, *, new: bool = False) -> None:
            budget = inside(name, around)
            await budgets.interim(budget, new=new, since=since, wrote=LONG_AGO, unless=NEVER)
            written.append(name)

        async def final() -> None:
            await budgets.final(inside("final", around), deadline=FOREVER)
            written.append("final")

        async def call() -> None:
            await budgets.call(around, deadline=FOREVER)
            written.append("call")

        await asyncio.gather(
            interim("fresh", 3.0),
            interim("stale", 1.0),
            call(),
            interim("new", asyncio.get_running_loop().time(), new=True),
            final(),
        )

        assert written == ["final", "new", "call", "stale", "fresh"]

    async def test_who_waits_for_its_own_bucket_holds_up_nobody_else(self, store: Store) -> None:
        around, budgets = fixed("all", 100, 1.0), EditBudgets(store=store)
        await budgets.pause(inside("a", around), 1.0)
        waiting = asyncio.create_task(budgets.final(inside("a", around), deadline=FOREVER))
        await asyncio.sleep(0.05)

        assert await seconds(edit_once(budgets, inside("b", around))) < 0.2
        assert not waiting.done()
        await waiting

    async def test_a_final_overtakes_its_channels_edit_that_waits_for_it(
        self, store: Store
    ) -> None:
        around, budgets = fixed("all", 1, 0.5), EditBudgets(store=store)
        written: list[str] = []
        await budgets.final(around, deadline=FOREVER)

        async def edit(name: str, since: float) -> None:
            await edit_once(budgets, inside(name, around), since=since)
            written.append(f"edit of {name}")

        async def final(name: str) -> None:
            await budgets.final(inside(name, around), deadline=FOREVER)
            written.append(f"final of {name}")

        editing = [asyncio.create_task(edit("a", 1.0)), asyncio.create_task(edit("b", 2.0))]
        await asyncio.sleep(0.05)
        await asyncio.gather(final("a"), *editing)

        assert written == ["final of a", "edit of a", "edit of b"]

    async def test_a_channel_that_is_paused_meanwhile_holds_up_nobody_else(
        self, store: Store
    ) -> None:
        around, budgets = fixed("all", 1, 0.5), EditBudgets(store=store)
        await budgets.final(around, deadline=FOREVER)
        editing = asyncio.create_task(edit_once(budgets, inside("a", around)))
        await asyncio.sleep(0.05)
        await budgets.pause(inside("a", around), 3.0)
        ending = asyncio.create_task(budgets.final(inside("a", around), deadline=FOREVER))

        took = await seconds(edit_once(budgets, inside("b", around), since=1.0))

        assert took < 1.5
        await cancelled(editing, ending)

    async def test_interim_edits_leave_some_of_it_to_others(self, store: Store) -> None:
        around = EditBudget("all", 5, 2.0, refills=False, kept=2)
        budgets, ended = EditBudgets(store=store), asyncio.Event()
        for name in "abc":
            await edit_once(budgets, inside(name, around))
        asyncio.get_running_loop().call_later(0.1, ended.set)

        assert not await edit_once(budgets, inside("d", around), unless=ended)
        for name in "de":
            assert await seconds(budgets.final(inside(name, around), deadline=FOREVER)) < 0.2

    async def test_alone_it_counts_too(self) -> None:
        around, budgets = fixed("all", 2, 0.5), alone()
        for name in "ab":
            await budgets.final(inside(name, around), deadline=FOREVER)

        assert await seconds(budgets.final(inside("c", around), deadline=FOREVER)) > 0.4

    async def test_a_slot_is_one_of_it_for_one_call(self, store: Store) -> None:
        around, budgets = fixed("all", 5, 1.0), EditBudgets(store=store)

        await budgets.final(inside("a", around), deadline=FOREVER)

        assert [budgets.covers(around) for _ in range(2)] == [True, False]
        await budgets.final(fixed("b", 5, 1.0), deadline=FOREVER)
        assert not budgets.covers(around)


async def edit_once(
    budgets: EditBudgets,
    budget: EditBudget,
    *,
    since: float = 0.0,
    unless: asyncio.Event = NEVER,
) -> bool:
    return await budgets.interim(budget, new=False, since=since, wrote=LONG_AGO, unless=unless)


async def test_what_nobody_would_miss_gets_half_of_a_budget_at_most(store: Store) -> None:
    budget, budgets = fixed("a", 4, 60.0), EditBudgets(store=store)

    granted = [await budgets.spare(budget) for _ in range(4)]

    assert granted == [True, True, False, False]


async def test_what_nobody_would_miss_gets_nothing_where_somebody_waits(store: Store) -> None:
    budget, budgets = fixed("a", 4, 1.0), EditBudgets(store=store)
    await EditBudgets(store=store).pause(budget, 0.3)
    waiting = asyncio.create_task(budgets.final(budget, deadline=FOREVER))
    await asyncio.sleep(0.05)

    took = await seconds(budgets.spare(budget))

    assert took < 0.1
    assert not waiting.done()
    await waiting


async def test_no_time_of_its_length_sees_more_writes_than_a_sliding_window_takes(
    store: Store,
) -> None:
    budget = EditBudget("a", 4, 0.6, refills=False, slides=True)
    one, other = EditBudgets(store=store), EditBudgets(store=store)
    moments: list[float] = []
    for number in range(10):
        await (one, other)[number % 2].final(budget, deadline=FOREVER)
        moments.append(time.perf_counter())
        # Late in its window, so that the next one would follow too closely.
        await asyncio.sleep(0.5 if number == 0 else 0)

    gaps = [later - earlier for earlier, later in zip(moments[:-4], moments[4:], strict=True)]
    assert min(gaps) > 0.58
    assert moments[-1] - moments[0] < 2.5


async def test_a_sliding_window_keeps_some_of_its_writes(store: Store) -> None:
    around = EditBudget("all", 4, 60.0, refills=False, slides=True, kept=2)
    budgets, ended = EditBudgets(store=store), asyncio.Event()
    for name in "ab":
        await edit_once(budgets, inside(name, around))
    asyncio.get_running_loop().call_later(0.1, ended.set)

    assert not await edit_once(budgets, inside("c", around), unless=ended)
    for _ in range(2):
        await budgets.final(around, deadline=0.0)
    with pytest.raises(WriteDelayed):
        await budgets.final(around, deadline=0.0)


@pytest.mark.parametrize("wrong", ["garbage", "", "nan", "-1", "1e300"])
@pytest.mark.parametrize("shape", ["fixed", "refills", "slides"])
async def test_a_record_that_cannot_be_read_holds_up_no_write(
    store: Store, shape: str, wrong: str
) -> None:
    budget = EditBudget("b", 5, 1.0, refills=shape == "refills", slides=shape == "slides")
    fields = ("next", "used", "ends", "level", "at", "made", *(f"write{one}" for one in range(5)))
    told = [word for field in fields for word in (field, wrong)]
    await store.command("HSET", store.key("budget", "b"), *told)
    deadline = asyncio.get_running_loop().time() + 5

    await EditBudgets(store=store).final(budget, deadline=deadline)

    assert not store.is_away


async def test_a_budget_of_another_type_holds_up_no_write(store: Store) -> None:
    await store.command("SET", store.key("budget", "b"), "text")
    budgets, deadline = EditBudgets(store=store), asyncio.get_running_loop().time() + 5

    await budgets.final(fixed("b", 5, 1.0), deadline=deadline)
    await budgets.pause(fixed("b", 5, 1.0), 0.01)

    assert not store.is_away
