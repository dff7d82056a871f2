"""A repair posts an apology that did not get through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from bot.domain import Exchange, Page, Purpose, Shown, Turn
from bot.errors import GivenUp, PlaceGone, WriteFailed
from bot.store import Store
from bot.turns.queue import Taken, TurnQueue
from tests.support.at_work import (
    all_repaired,
    due_repair,
    given_up_unseen,
    make_queue,
    make_turn,
    press,
    repairing,
    take,
    until_shown,
)
from tests.support.fakes import FakePlatform, FakeSurface


@dataclass
class Adopting(FakePlatform):
    """Of a turn that was tried before it takes over the page that stands there, as platforms do."""

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[FakeSurface]:
        async with super().surface(turn, purpose) as surface:
            if purpose.recovers:
                surface.screen.clear()
                surface.posted = 0
            yield surface


async def test_a_turn_that_ended_before_anything_stood_anywhere_gets_its_apology(
    store: Store,
) -> None:
    platform, queue = Adopting(unseen=2), make_queue(store)
    # It cannot be taken for a orphan.
    platform.left = ["m1"]
    platform.shown.errors = [WriteFailed("away")]

    await given_up_unseen(queue)
    async with repairing(queue, platform):
        await until_shown(platform, {"m1": GivenUp.apology})
        await all_repaired(store)

    assert platform.shown.screen["m1"].last


async def test_an_apology_whose_repairer_died_stands_there_once(store: Store) -> None:
    platform, queue = Adopting(), make_queue(store)
    await given_up_unseen(queue)
    await due_repair(make_queue(store, "dead"), seconds=0.5)
    await platform.shown.post(Page(0, GivenUp.apology, final=True, last=True))

    async with repairing(queue, platform):
        await all_repaired(store)

    assert platform.shown.text == GivenUp.apology


@pytest.mark.parametrize("is_forgotten", [True, False])
async def test_an_apology_for_a_deleted_question_or_a_place_that_is_gone_is_dropped(
    store: Store, is_forgotten: bool
) -> None:
    error = None if is_forgotten else PlaceGone("archived")
    platform, queue = FakePlatform(error=error), make_queue(store)
    await given_up_unseen(queue)
    if is_forgotten:
        await queue.changes.forget(make_turn().id)

    async with repairing(queue, platform):
        await all_repaired(store)

    assert platform.shown.screen == {}


async def give_up_unread(queue: TurnQueue, store: Store) -> None:
    """Let a worker take a turn whose record only another version can read."""
    name = store.key("turn", "console:1")
    place = await store.command("HGET", name, "place")
    await store.command("HSET", name, "place", "[]")
    assert not isinstance(await queue.leases.take(["console"]), Taken)
    await store.command("HSET", name, "place", place)


async def test_what_another_version_asked_leaves_the_answer_that_stands(store: Store) -> None:
    platform, queue = FakePlatform(), make_queue(store)
    await queue.admit(make_turn())
    said = Exchange("console:1", make_turn().person, 1000.0, "question 1", "Hi")
    await queue.leases.finish(await take(queue), Shown(("m1",), "Hi", "Hi", outcome="done"), said)
    platform.shown.screen["m1"] = Page(0, "Hi", final=True, last=True)
    await press(store)
    await give_up_unread(queue, store)

    async with repairing(queue, platform):
        await all_repaired(store)

    assert platform.shown.text == "Hi"


async def test_a_question_that_the_first_to_take_it_could_not_read_gets_an_apology(
    store: Store,
) -> None:
    platform, queue = Adopting(), make_queue(store)
    await queue.admit(make_turn())
    await give_up_unread(queue, store)

    async with repairing(queue, platform):
        await all_repaired(store)

    assert platform.shown.text == GivenUp.apology


async def test_an_apology_that_does_not_fit_below_the_text_stands_there_all_the_same(
    store: Store,
) -> None:
    platform, queue = FakePlatform(), make_queue(store)
    words = "w" * platform.shown.limit
    platform.shown.screen["m1"] = Page(0, words, final=False)
    platform.shown.posted = 1
    await queue.admit(make_turn())
    await queue.leases.release(await take(queue), delay_seconds=0, counts=True)
    text = f"{words}\n\n{GivenUp.apology}"
    await queue.leases.finish(await take(queue), Shown(("m1",), text, words, outcome="dead"), None)

    async with repairing(queue, platform):
        await all_repaired(store)

    assert GivenUp.apology in platform.shown.text
