"""A text beyond the longest answer, as another version may have left it, holds no process up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.domain import Exchange, Outcome, Page, Shown
from bot.errors import AnswerCut, GivenUp, ModelDenied, ModelError
from bot.reply.draft import STOPPED
from bot.store import Store
from tests.support.at_work import (
    LONGEST,
    all_ended,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    press,
    remembered,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform

LONG = "word " * LONGEST  # five times as long
NOTICES = 500  # characters of what stands below an answer


async def left(store: Store, shown: Shown, *, error: ModelError | None = None) -> FakePlatform:
    """Let a worker find what another has left, of which one page stands there."""
    platform = FakePlatform()
    dead = make_queue(store, "dead")
    await dead.admit(make_turn())
    message = await platform.shown.post(Page(0, shown.text[:50], final=False))
    await dead.leases.save(await take(dead), replace(shown, message_ids=(message,)))
    model = FakeModel((), error=error)
    async with working(make_worker(store, platform, model, name="next")):
        await all_ended(store)
    return platform


@pytest.mark.parametrize("said", ["done", "stopped", "failed"])
async def test_a_whole_text_that_was_left_ends_where_the_longest_answer_does(
    store: Store, said: Outcome
) -> None:
    whole = Shown(text=f"{LONG}\n\n{STOPPED}", said=LONG, outcome=said)

    platform = await left(store, whole)

    assert len(platform.shown.text) <= LONGEST + NOTICES
    assert platform.shown.text.endswith(AnswerCut.apology)
    assert [len(answer) for _, answer in await remembered(store)] == [LONGEST]
    assert await outcome(store) == said


async def test_a_half_text_that_was_left_ends_where_the_longest_answer_does(store: Store) -> None:
    half = Shown(text=LONG, said=LONG)

    platform = await left(store, half, error=ModelDenied("no"))

    assert len(platform.shown.text) <= LONGEST + NOTICES
    assert platform.shown.text.endswith(ModelDenied.apology)


async def test_a_long_answer_that_was_remembered_is_no_long_prompt(store: Store) -> None:
    queue = make_queue(store)
    turn = make_turn(1)
    await queue.admit(turn)
    exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, LONG)
    await queue.leases.finish(await take(queue), Shown(outcome="done"), exchange)
    model = FakeModel(["Hi"])

    await queue.admit(make_turn(2))
    async with working(make_worker(store, FakePlatform(), model)):
        await all_ended(store)

    (prompt,) = model.prompts
    assert max(len(message.text) for message in prompt) == LONGEST


async def test_a_long_previous_answer_comes_back_no_longer_than_an_answer(store: Store) -> None:
    queue, platform = make_queue(store), FakePlatform()
    turn = make_turn(1)
    await queue.admit(turn)
    exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, LONG)
    await queue.leases.finish(
        await take(queue), Shown(text=LONG, said=LONG, outcome="done"), exchange
    )

    await press(store)
    async with working(make_worker(store, platform, FakeModel(error=ModelDenied("no")))):
        await all_ended(store)

    assert platform.shown.text.startswith("word ")
    assert len(platform.shown.text) <= LONGEST + NOTICES


async def test_a_long_text_that_nobody_can_finish_is_abandoned_short(store: Store) -> None:
    half = Shown(message_ids=("m1",), text=LONG, said=LONG)
    dead, platform = make_queue(store, "dead"), FakePlatform()
    await dead.admit(make_turn())
    for _ in range(35):
        taken = await take(dead)
        await dead.leases.save(taken, half)
        await dead.leases.release(taken, delay_seconds=0, counts=True)

    async with working(make_worker(store, platform, FakeModel())):
        await all_ended(store)

    ended = await dead.result(make_turn().id)
    assert ended
    assert len(ended.text) <= LONGEST + NOTICES
    assert ended.text.endswith(GivenUp.apology)
