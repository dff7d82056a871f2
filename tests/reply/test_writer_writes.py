"""The writes of a reply keep to the budget, and are repeated where they fail."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest

from bot.domain import Delta, EditBudget, Page
from bot.errors import WriteDelayed, WriteFailed
from bot.reply import writer as reply_module
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.support.fakes import FakeModel, FakeSurface
from tests.support.replies import TEXT, WORDS, Watched, a_reply, spoken
from tests.support.waiting import until


async def test_interim_writes_keep_to_the_budget(store: Store) -> None:
    surface = FakeSurface(edits=EditBudget("a", 5, 1.0, refills=False))

    await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.015).stream([]))

    # 0.6 s at four interim writes a second, one at the start, one at the end.
    assert 3 <= len(surface.states) <= 5


async def test_two_replies_share_one_budget(store: Store) -> None:
    budget = EditBudget("a", 10, 1.0, refills=False)
    surfaces = [FakeSurface(edits=budget, posts=budget), FakeSurface(edits=budget, posts=budget)]

    # Two objects that know nothing of each other, as in two processes.
    await asyncio.gather(
        *(
            a_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))
            for surface in surfaces
        )
    )

    assert [surface.text for surface in surfaces] == [TEXT, TEXT]
    assert sum(len(surface.states) for surface in surfaces) <= 10


async def test_interim_writes_that_fail_do_not_end_a_reply(store: Store) -> None:
    surface = FakeSurface(errors=[None, WriteFailed("lost"), WriteDelayed("slow", retry_after=0.1)])

    shown = await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))

    assert shown.outcome == "done"
    assert surface.text == TEXT


async def test_the_final_write_is_repeated_until_it_is_through(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("1"), WriteDelayed("2", retry_after=0.1), None])

    await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))

    assert surface.text == TEXT


async def test_a_failed_interim_write_is_repeated_while_the_model_is_silent(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("lost")])
    writing = asyncio.create_task(a_reply(store, surface).stream(spoken("An answer.", 3.0)))

    await until(lambda: surface.states, within=2)

    assert surface.states == ["An answer."]
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_failed_interim_write_keeps_its_place_in_the_order(store: Store) -> None:
    budgets = Watched(store=store)
    surface = FakeSurface(errors=[WriteFailed("lost"), WriteDelayed("429", retry_after=0.1)])

    await a_reply(store, surface, budgets=budgets).stream(spoken("An", 0.2, " answer.", 1.0))

    assert surface.states == ["An answer."]
    assert len(set(budgets.sinces)) == 1


async def test_an_interim_write_is_not_repeated_at_once(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("down")] * 50)

    with pytest.raises(WriteFailed):
        await a_reply(store, surface, patience=0.1).stream(FakeModel(WORDS, pause=0.02).stream([]))

    # One at the first word, one half a second later, one at the end.
    assert 50 - len(surface.errors) <= 4


async def test_the_repeated_final_write_comes_later_each_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.02)
    surface = FakeSurface(errors=[WriteFailed("down")] * 50)
    began = time.perf_counter()

    with pytest.raises(WriteFailed):
        await a_reply(store, surface, patience=0.5).stream(FakeModel([TEXT]).stream([]))

    # After 0.02, 0.06, 0.14 and 0.3 seconds.
    assert 3 <= 50 - len(surface.errors) <= 6
    assert time.perf_counter() - began > 0.25


async def test_no_write_is_repeated_much_later_than_it_could_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(reply_module, "_LONGEST_PAUSE", 0.02)
    surface = FakeSurface(errors=[WriteFailed("down")] * 12)

    await a_reply(store, surface, patience=10).stream(FakeModel([TEXT]).stream([]))

    assert surface.text == TEXT


async def test_a_write_that_fails_after_one_that_was_taken_is_soon_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.02)
    surface, took = FakeSurface(errors=[WriteFailed("down")] * 6), 0.0

    async def deltas() -> AsyncGenerator[Delta]:
        nonlocal took
        yield "H"
        await until(lambda: surface.states)
        surface.errors, began = [WriteFailed("down")], time.perf_counter()
        yield "i"
        await until(lambda: surface.text == "Hi")
        took = time.perf_counter() - began

    await a_reply(store, surface).stream(deltas())

    # After six failures in a row it would be 1.3 seconds.
    assert took < 1


@dataclass
class Unwilling(FakeSurface):
    """Takes nothing but the end, and that at the second time."""

    refused: bool = False

    async def post(self, page: Page) -> str:
        if page.last and self.refused:
            return await super().post(page)
        self.refused = page.last
        raise WriteFailed("down")


async def test_an_end_does_not_wait_for_as_long_as_what_failed_before_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.05)
    surface = Unwilling()

    # By then a write waits for 1.6 seconds after its fifth failure.
    await a_reply(store, surface, patience=1.0).stream(spoken("H", 1.2, "i"))

    assert surface.text == "Hi"


async def test_an_end_does_not_wait_for_the_next_try_at_what_failed_before_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 8.0)
    surface, began = FakeSurface(errors=[WriteFailed("down")]), time.perf_counter()

    await a_reply(store, surface).stream(spoken("H", 0.3, "i"))

    assert surface.text == "Hi"
    assert time.perf_counter() - began < 6


async def test_a_final_write_that_has_to_wait_holds_all_processes(store: Store) -> None:
    surface = FakeSurface(errors=[WriteDelayed("429", retry_after=3600)])
    with pytest.raises(WriteDelayed):
        await a_reply(store, surface, patience=0.1).stream(FakeModel([TEXT]).stream([]))

    with pytest.raises(WriteDelayed):
        await EditBudgets(store=store).final(surface.posts, deadline=0.0)


async def test_a_delay_holds_the_bucket_that_it_names(store: Store) -> None:
    surface = FakeSurface(errors=[WriteDelayed("429", retry_after=0.6, bucket="another")])
    another = EditBudget("another", 100, 1.0, refills=False)
    began = time.perf_counter()
    writing = asyncio.create_task(a_reply(store, surface).stream(FakeModel([TEXT]).stream([])))
    await asyncio.sleep(0.1)

    await EditBudgets(store=store).final(surface.posts, deadline=math.inf)
    free_after = time.perf_counter() - began
    await EditBudgets(store=store).final(another, deadline=math.inf)
    paused_for = time.perf_counter() - began

    assert free_after < 0.5 < paused_for
    await writing
    # Its own slots were free: without waiting it would have been told so again and again.
    assert surface.states == [TEXT]
    assert time.perf_counter() - began > 0.55


async def test_replies_that_wait_for_one_bucket_take_turns(store: Store) -> None:
    budgets, budget = EditBudgets(store=store), EditBudget("a", 15, 1.5, refills=False)
    surfaces = [FakeSurface(edits=budget), FakeSurface(edits=budget)]
    deltas = [f"word{number} " for number in range(120)]

    await asyncio.gather(
        *(
            a_reply(store, surface, budgets=budgets).stream(
                FakeModel(deltas, pause=0.01).stream([])
            )
            for surface in surfaces
        )
    )

    assert min(len(surface.states) for surface in surfaces) >= 4


async def test_what_an_earlier_try_saved_without_a_message_is_not_waited_for(store: Store) -> None:
    surface = FakeSurface()

    await a_reply(store, surface, pages=(), older="Much longer words").stream(
        spoken("New", lambda: surface.states, " words")
    )

    assert surface.states == ["New", "New words"]


async def test_a_final_write_that_never_gets_through_is_told(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("down")] * 50)

    with pytest.raises(WriteFailed, match="down"):
        await a_reply(store, surface, patience=0.2).stream(FakeModel([TEXT]).stream([]))


async def test_a_final_write_that_has_to_wait_too_long_is_given_back(store: Store) -> None:
    surface = FakeSurface(errors=[WriteDelayed("an hour", retry_after=3600)])

    with pytest.raises(WriteDelayed):
        await a_reply(store, surface, patience=1).stream(FakeModel([TEXT]).stream([]))
