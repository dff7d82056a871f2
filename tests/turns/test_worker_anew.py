"""An answer that is written anew takes the place of the former one, or leaves it there."""

from __future__ import annotations

import pytest

from bot.domain import Page, Shown
from bot.errors import PlaceGone
from bot.store import Store
from tests.support.at_work import (
    WORDS,
    all_ended,
    answer,
    make_queue,
    make_turn,
    make_worker,
    press,
    remembered,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform


async def test_an_answer_written_anew_takes_the_place_of_the_previous(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi"])

    await answer(store, platform, model, make_turn(1), make_turn(2))
    model.deltas = ["Hello"]
    await press(store, 2)
    await answer(store, platform, model)
    await answer(store, platform, model, make_turn(3))

    assert model.prompts[2] == model.prompts[1]
    assert [message.text for message in model.prompts[3]] == [
        "Be brief.", "question 1", "Hi", "question 2", "Hello", "question 3",
    ]  # fmt: skip
    assert [page.text for page in platform.shown.screen.values()] == ["Hi", "Hello", "Hello"]
    assert (await remembered(store))[1] == ("question 2", "Hello")


@pytest.mark.parametrize(
    ("saved", "text", "said"),
    [
        (Shown(("m1",), "Better.", "Better.", outcome="done"), "Better.", "Better."),
        (Shown(("m1",), "Half", "Half"), "Half", "Hi"),
        (None, "Hi", "Hi"),
    ],
    ids=["whole", "half", "nothing"],
)
async def test_a_place_that_went_leaves_a_whole_new_answer_or_the_previous_remembered(
    saved: Shown | None, text: str, said: str, store: Store
) -> None:
    platform = FakePlatform()
    await answer(store, platform, FakeModel(["Hi"]), make_turn())
    dead = make_queue(store, "dead")
    await press(store)
    taken = await take(dead)
    if saved:
        await dead.leases.save(taken, saved)
    platform.error = PlaceGone("archived")

    await answer(store, platform, FakeModel(["Hello"]), name="next")

    ended = await make_queue(store).lookup.result("console:1")
    assert ended
    assert ended.text == text
    assert await remembered(store) == [("question 1", said)]


async def test_a_dead_workers_new_answer_is_finished_in_the_same_message(store: Store) -> None:
    platform, text = FakePlatform(), "".join(WORDS)
    await answer(store, platform, FakeModel(["Hi " * 200]), make_turn())
    dead = make_queue(store, "dead")
    await press(store)
    taken = await take(dead)
    await dead.leases.save(taken, Shown(("m1",), text[:50], text[:50]))
    await platform.shown.edit("m1", Page(0, text[:50], final=False))
    platform.shown.states.clear()

    async with working(make_worker(store, platform, FakeModel(WORDS), name="next")):
        assert await remembered(store) == [("question 1", "Hi " * 200)]
        await all_ended(store)

    assert list(platform.shown.screen) == ["m1"]
    assert all(text.startswith(state) for state in platform.shown.states)
    assert platform.shown.text == text
    assert await remembered(store) == [("question 1", text)]
