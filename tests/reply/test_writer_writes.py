"""The writes of a reply keep to the budget, and are repeated where they fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from bot.concurrency import Backoff, cancelled, empty_stream
from bot.domain import Delta, EditBudget, Page, Shown
from bot.errors import WriteDelayed, WriteFailed
from bot.reply.edit_budget import EditBudgets
from bot.reply.writer import ReplyTiming, take_buttons_away
from bot.store import Store
from tests.support.fakes import FakeModel, FakeSurface, NoLimits
from tests.support.replies import TEXT, WORDS, Watched, answer, make_reply, spoken
from tests.support.waiting import at_least, until


def repeating(first: float) -> ReplyTiming:
    """Repeat failed writes after such a pause at first."""
    return ReplyTiming(repeat=Backoff(first=first, longest=3600.0))


async def test_interim_writes_keep_to_the_budget(store: Store) -> None:
    surface = FakeSurface(edits=EditBudget("a", 5, 3600.0))
    model = FakeModel([WORDS[0], lambda: surface.states, *WORDS[1:]], pause=0.005)

    await make_reply(store, surface).stream(model.stream([]))

    # The post, no edit for some minutes, then the end.
    assert len(surface.states) == 2


async def test_two_replies_share_one_budget(store: Store) -> None:
    budget = EditBudget("a", 10, 3600.0)
    surfaces = [FakeSurface(edits=budget, posts=budget), FakeSurface(edits=budget, posts=budget)]

    # Two objects that know nothing of each other, as in two processes.
    await asyncio.gather(
        *(
            make_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))
            for surface in surfaces
        )
    )

    assert [surface.text for surface in surfaces] == [TEXT, TEXT]
    assert sum(len(surface.states) for surface in surfaces) <= 10


async def test_the_final_write_is_repeated_until_it_is_through(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("1"), WriteDelayed("2", retry_after=0.1), None])

    await answer(store, surface, TEXT)

    assert surface.text == TEXT


async def test_a_failed_interim_write_is_repeated_while_the_model_is_silent(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("lost")])

    await answer(store, surface, "An answer.", lambda: surface.states, timing=repeating(0.02))

    assert surface.states == ["An answer."]


async def test_a_failed_interim_write_keeps_its_place_in_the_order(store: Store) -> None:
    budgets = Watched(store=store)
    surface = FakeSurface(errors=[WriteFailed("lost"), WriteDelayed("429", retry_after=0.1)])
    timing = repeating(0.1)

    await make_reply(store, surface, budgets=budgets, timing=timing).stream(
        spoken("An", lambda: len(surface.errors) == 1, " answer.", lambda: surface.states)
    )

    assert surface.states == ["An answer."]
    assert len(set(budgets.sinces)) == 1


async def test_an_interim_write_is_not_repeated_at_once(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("down")] * 50)
    timing = repeating(60.0)
    model = FakeModel([WORDS[0], lambda: len(surface.errors) < 50, *WORDS[1:]], pause=0.005)

    with pytest.raises(WriteFailed):
        await make_reply(store, surface, patience=0.1, timing=timing).stream(model.stream([]))

    # One at the first word and one at the end.
    assert 50 - len(surface.errors) == 2


@dataclass
class Timed(FakeSurface):
    """Knows when each write was tried."""

    tried_at: list[float] = field(default_factory=list)

    async def post(self, page: Page) -> str:
        self.tried_at.append(time.perf_counter())
        return await super().post(page)

    async def edit(self, message_id: str, page: Page) -> None:
        self.tried_at.append(time.perf_counter())
        await super().edit(message_id, page)

    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.tried_at)]


async def test_the_repeated_final_write_comes_later_each_time(store: Store) -> None:
    surface = Timed(errors=[WriteFailed("down")] * 4)
    earlier, timing = Shown(text=TEXT, said=TEXT, outcome="done"), repeating(0.02)
    reply = make_reply(store, surface, earlier=earlier, patience=60.0, timing=timing)

    await reply.stream(empty_stream())

    pauses = [0.02, 0.04, 0.08, 0.16]
    assert all(gap >= at_least(one) for gap, one in zip(surface.gaps(), pauses, strict=True))


async def test_a_write_that_fails_after_one_that_was_taken_is_soon_repeated(store: Store) -> None:
    surface = Timed(errors=[WriteFailed("down")] * 5)

    async def deltas() -> AsyncGenerator[Delta]:
        yield "H"
        await until(lambda: surface.states)
        for word in "i", " Ann", "!":
            surface.errors = [WriteFailed("down")]
            yield word
            await until(lambda: surface.text.endswith(word))  # noqa: B023

    await make_reply(store, surface, timing=repeating(0.03)).stream(deltas())

    # The fifth pause is 16 times as long as the first one. A busy machine may prolong any of these.
    assert min(surface.gaps()[6:11:2]) < surface.gaps()[4]


@dataclass
class Unwilling(FakeSurface):
    """Takes nothing but the end, and that at the second time."""

    refusals: int = 0
    has_refused_the_end: bool = False

    async def post(self, page: Page) -> str:
        if page.last and self.has_refused_the_end:
            return await super().post(page)
        self.refusals += 1
        self.has_refused_the_end = page.last
        raise WriteFailed("down")


async def test_an_end_does_not_wait_for_as_long_as_what_failed_before_it(store: Store) -> None:
    surface = Unwilling()

    # By then a write waits for 1.6 seconds after its next failure, and would be given up.
    await make_reply(store, surface, patience=1.0, timing=repeating(0.05)).stream(
        spoken("H", lambda: surface.refusals == 5, "i")
    )

    assert surface.text == "Hi"


async def test_an_end_does_not_wait_for_the_next_try_at_what_failed_before_it(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("down")])

    async with asyncio.timeout(60):
        await answer(store, surface, "H", lambda: not surface.errors, "i", timing=repeating(3600.0))

    assert surface.text == "Hi"


async def test_a_final_write_that_has_to_wait_holds_all_processes(store: Store) -> None:
    surface = FakeSurface(errors=[WriteDelayed("429", retry_after=3600)])
    with pytest.raises(WriteDelayed):
        await answer(store, surface, TEXT, patience=0.1)

    with pytest.raises(WriteDelayed):
        await EditBudgets(store=store).final(surface.posts, deadline=0.0)


async def test_a_delay_holds_the_bucket_that_it_names(store: Store) -> None:
    surface = Timed(errors=[WriteDelayed("429", retry_after=3600.0, bucket="another")])
    another = EditBudget("another", 10**9, 1.0)
    earlier = Shown(text=TEXT, said=TEXT, outcome="done")
    writing = asyncio.create_task(
        make_reply(store, surface, earlier=earlier, patience=7200.0).stream(empty_stream())
    )
    await until(lambda: surface.tried_at)

    with pytest.raises(WriteDelayed):
        await until_delayed(EditBudgets(store=store), another)
    await EditBudgets(store=store).final(surface.posts, deadline=0.0)

    # Its own slots are free: without waiting it would be told so again and again.
    assert len(surface.tried_at) == 1
    await cancelled(writing)


async def until_delayed(budgets: EditBudgets, budget: EditBudget) -> None:
    """Take slots until there are none. Raises WriteDelayed."""
    async with asyncio.timeout(60):
        while True:
            await budgets.final(budget, deadline=0.0)


async def test_what_an_earlier_try_saved_without_a_message_is_not_waited_for(store: Store) -> None:
    surface = FakeSurface()

    await make_reply(store, surface, message_ids=(), older="Much longer words").stream(
        spoken("New", lambda: surface.states, " words")
    )

    assert surface.states == ["New", "New words"]


class Busy(NoLimits):
    """Edit budgets whose slots others need."""

    async def spare(self, budget: EditBudget) -> bool:
        return False


@pytest.mark.parametrize(("budgets", "taken"), [(Busy(), False), (NoLimits(), True)])
async def test_old_buttons_are_taken_away_only_with_a_slot_that_nobody_needs(
    budgets: EditBudgets, taken: bool
) -> None:
    page = Page(0, "Hello", final=True, last=True)
    surface = FakeSurface(screen={"m1": page})
    shown = Shown(("m1",), "Hello", "Hello", outcome="done", end="older")

    done = await take_buttons_away(shown, surface=surface, budgets=budgets)

    assert done == taken
    assert surface.screen == {"m1": replace(page, end="older") if taken else page}


EDITS_FIRST = ReplyTiming(longest_edit=0.05, free_post=0.05, closing=0.05)


async def test_an_answer_goes_on_below_if_its_last_edit_would_wait(store: Store) -> None:
    edits = EditBudget("edits", 1, 60.0, shape="refills")
    surface, budgets = FakeSurface(edits=edits), EditBudgets(store=store)
    await budgets.final(edits, deadline=0.0)
    said = spoken("One tw", lambda: bool(surface.states), "o three four five.")

    shown = await make_reply(store, surface, budgets=budgets, timing=EDITS_FIRST).stream(said)

    assert surface.states == ["One tw", "two three four five."]
    assert (shown.text, len(shown.message_ids)) == ("One two three four five.", 2)


async def test_the_page_above_its_rest_is_closed_if_an_edit_becomes_free(store: Store) -> None:
    edits = EditBudget("edits", 4, 12.0, shape="refills")
    surface, budgets = FakeSurface(edits=edits), EditBudgets(store=store)
    said = spoken("One two", lambda: bool(surface.states), 0.01, " three four five.")
    for _ in range(4):
        await budgets.final(edits, deadline=0.0)
    timing = ReplyTiming(longest_edit=0.01, closing=30.0)

    await make_reply(store, surface, budgets=budgets, timing=timing).stream(said)

    pages = list(surface.screen.values())
    assert [page.text for page in pages] == ["One two", "three four five."]
    assert [page.final for page in pages] == [True, True]
    assert [page.last for page in pages] == [False, True]


async def test_a_last_edit_waits_if_no_post_is_free_either(store: Store) -> None:
    one = EditBudget("one", 2, 2.0, shape="refills")
    surface, budgets = FakeSurface(edits=one, posts=one), EditBudgets(store=store)
    said = spoken("One two", lambda: bool(surface.states), " three four five.")
    await budgets.final(one, deadline=0.0)

    await make_reply(store, surface, budgets=budgets, timing=EDITS_FIRST).stream(said)

    assert surface.states == ["One two", "One two three four five."]


async def test_what_a_429_has_refused_is_not_on_the_screen(store: Store) -> None:
    edits = EditBudget("edits", 9, 60.0, shape="refills")
    surface = FakeSurface(edits=edits, errors=[None, WriteDelayed("slow", retry_after=60.0)])
    parts = ("One two", lambda: surface.states, " three", lambda: not surface.errors, " four.")

    await answer(store, surface, *parts, timing=EDITS_FIRST)

    assert surface.states == ["One two", "three four."]


async def test_all_that_would_wait_go_on_below(store: Store) -> None:
    edits = EditBudget("edits", 4, 3600.0, shape="refills")
    around = EditBudget("all", 100, 60.0, shape="refills")
    budgets, begun = EditBudgets(store=store), asyncio.Event()
    surfaces = [
        FakeSurface(edits=edits, posts=replace(around, bucket=f"posts {number}", within=around))
        for number in range(8)
    ]
    for _ in range(4):
        await budgets.final(edits, deadline=0.0)
    options = {"budgets": budgets, "timing": replace(EDITS_FIRST, free_post=30.0)}
    answering = [
        asyncio.create_task(answer(store, it, "One", begun.is_set, " two.", **options))
        for it in surfaces
    ]

    await until(lambda: all(surface.states for surface in surfaces))
    begun.set()
    await asyncio.gather(*answering)

    assert [surface.states for surface in surfaces] == [["One", "two."]] * 8


@pytest.mark.parametrize("own", [True, False])
async def test_of_replies_that_no_platform_limits_few_are_written_at_once(
    store: Store, own: bool
) -> None:
    budgets = EditBudgets(store=store)
    growing = [
        FakeSurface(posts=EditBudget(f"live:{number}", 14, 1.0, own=own)) for number in range(30)
    ]
    at_once: set[int] = set()
    counts: list[int] = []

    async def grow(number: int) -> None:
        async def save(_: Shown) -> None:
            at_once.add(number)
            counts.append(len(at_once))
            await asyncio.sleep(0.2)
            at_once.discard(number)

        def all_grow() -> bool:
            return all(one.states for one in growing)

        await answer(store, growing[number], "An", all_grow, saved=save, budgets=budgets)

    await asyncio.gather(*map(grow, range(len(growing))))

    assert (max(counts[: len(growing)]) <= 16) is own
