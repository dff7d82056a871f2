"""The edit budget: even inside a process, shared between them, with finals always through."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bot.budget import EditBudgets
from bot.domain import EditBudget
from bot.errors import WriteDelayed
from bot.store import Store

NEVER = asyncio.Event()
FOREVER = math.inf


async def seconds(waiting: Awaitable[object]) -> float:
    began = time.perf_counter()
    await waiting
    return time.perf_counter() - began


async def edits(budgets: EditBudgets, budget: EditBudget, *, within: float) -> list[float]:
    """The moments of all interim edits that one reply may make in so many seconds."""
    began, moments = time.perf_counter(), []
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(within, over.set)
    while await budgets.interim(budget, new=False, unless=over):
        moments.append(time.perf_counter() - began)
    return moments


async def test_interim_edits_are_spaced_evenly(store: Store) -> None:
    budget = EditBudget("a", 11, 1.0)

    moments = await edits(EditBudgets(store=store), budget, within=0.55)

    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert 5 <= len(moments) <= 6
    assert all(0.08 < gap < 0.2 for gap in gaps), gaps


async def test_processes_together_keep_to_the_budget(store: Store) -> None:
    budget = EditBudget("a", 6, 1.0)

    of_each = await asyncio.gather(
        *(edits(EditBudgets(store=store), budget, within=0.9) for _ in range(3))
    )

    assert sum(map(len, of_each)) == 5


async def test_one_edit_of_a_window_is_kept_for_a_final(store: Store) -> None:
    budget = EditBudget("a", 4, 2.0)
    budgets = [EditBudgets(store=store) for _ in range(3)]
    for each in budgets:
        await each.interim(budget, new=False, unless=NEVER)

    took = await seconds(budgets[0].final(budget, new=False, deadline=FOREVER))

    assert took < 0.2


async def test_a_final_waits_for_the_next_window_when_this_one_is_used_up(store: Store) -> None:
    budget = EditBudget("a", 2, 0.5)
    budgets = EditBudgets(store=store)
    for _ in range(2):
        await budgets.final(budget, new=False, deadline=FOREVER)

    took = await seconds(budgets.final(budget, new=False, deadline=FOREVER))

    assert 0.3 < took < 1.0


async def test_a_final_that_would_wait_too_long_is_told(store: Store) -> None:
    budget = EditBudget("a", 5, 1.0)
    budgets = EditBudgets(store=store)
    budgets.pause(budget, 3600)

    with pytest.raises(WriteDelayed) as caught:
        await budgets.final(budget, new=False, deadline=asyncio.get_running_loop().time() + 5)

    assert caught.value.retry_after > 3500


async def test_new_messages_do_not_wait_for_edits_and_push_the_next_one(store: Store) -> None:
    budget = EditBudget("a", 5, 2.0)
    budgets = EditBudgets(store=store)
    await budgets.interim(budget, new=False, unless=NEVER)

    new = await seconds(budgets.interim(budget, new=True, unless=NEVER))
    edit = await seconds(budgets.interim(budget, new=False, unless=NEVER))

    assert new < 0.2
    assert edit > 0.3


async def test_the_end_of_a_reply_ends_its_waiting(store: Store) -> None:
    budget, ended = EditBudget("a", 2, 10.0), asyncio.Event()
    budgets = EditBudgets(store=store)
    await budgets.interim(budget, new=False, unless=ended)
    asyncio.get_running_loop().call_later(0.05, ended.set)

    began = time.perf_counter()
    granted = await budgets.interim(budget, new=False, unless=ended)

    assert not granted
    assert time.perf_counter() - began < 1


async def test_a_pause_holds_its_own_bucket_only(store: Store) -> None:
    paused, other = EditBudget("a", 100, 1.0), EditBudget("b", 100, 1.0)
    budgets = EditBudgets(store=store)

    budgets.pause(paused, 0.3)

    assert await seconds(budgets.final(other, new=False, deadline=FOREVER)) < 0.2
    assert await seconds(budgets.final(paused, new=False, deadline=FOREVER)) > 0.2


async def test_a_pause_holds_those_who_wait_already(store: Store) -> None:
    budget = EditBudget("a", 11, 1.0)
    budgets = EditBudgets(store=store)
    waiting = [
        asyncio.create_task(seconds(budgets.interim(budget, new=False, unless=NEVER)))
        for _ in range(3)
    ]
    await asyncio.sleep(0.05)

    budgets.pause(budget, 0.6)

    took = await asyncio.gather(*waiting)
    assert took[0] < 0.1
    assert min(took[1:]) > 0.5


async def test_without_a_store_a_process_keeps_its_own_spacing() -> None:
    client = redis.asyncio.Redis.from_url("unix:///nowhere/socket", retry=Retry(NoBackoff(), 0))
    store = Store(client=client, url="unix:///nowhere/socket", prefix="none")

    moments = await edits(EditBudgets(store=store), EditBudget("a", 6, 1.0), within=0.5)

    assert 2 <= len(moments) <= 3
