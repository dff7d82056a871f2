"""Waiting questions of one person in one thread are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bot.domain import Exchange, Person, Shown
from bot.errors import PersonBusy, QuestionEdited, ThreadBusy
from bot.store import Store
from bot.turns.queue import Taken, TurnQueue
from bot.turns.script import Limits
from tests.support.at_work import (
    ANN,
    BOB,
    LIMITS,
    answer,
    expire_all,
    make_queue,
    make_turn,
    outcome,
    press,
    remembered,
    take,
)
from tests.support.fakes import FakeModel, FakePlatform

FEW = replace(LIMITS, waiting_per_thread=3)


async def ask(
    store: Store,
    *numbers: int,
    person: Person = ANN,
    limits: Limits = LIMITS,
    joins: bool = True,
    text: str = "",
) -> None:
    for number in numbers:
        turn = make_turn(number, person=person, text=text or f"q{number}")
        await make_queue(store, limits=limits).admit(replace(turn, joins=joins))


async def begun(store: Store, *numbers: int) -> tuple[TurnQueue, Taken]:
    """Let a worker take questions."""
    await ask(store, *numbers)
    queue = make_queue(store)
    return queue, await take(queue)


async def test_a_turn_waits_until_it_is_taken_by_itself_or_with_another(store: Store) -> None:
    queue = make_queue(store)
    await ask(store, 1, 2)
    await ask(store, 3, person=BOB)

    async def waiting() -> list[bool]:
        return [await queue.lookup.waits(f"console:{number}") for number in (1, 2, 3, 4)]

    before = await waiting()
    taken = await take(queue)
    after = await waiting()
    # What a worker gives back after a failure was seen, and is shown when it is taken again.
    await queue.leases.release(taken, delay_seconds=60, counts=True)

    assert (before, after) == ([True, True, True, False], [False, False, True, False])
    assert not await queue.lookup.waits("console:1")


async def test_what_continues_an_answer_is_forgotten_with_any_of_its_questions(
    store: Store,
) -> None:
    queue, taken = await begun(store, 1, 2)
    exchange = Exchange("console:1", ANN, 1000.0, taken.turn.text, "both")
    cut = Shown(("m1",), "both", "both", outcome="done", end="cut")
    await queue.leases.finish(taken, cut, exchange)
    following = replace(make_turn(3, text="go on"), place={})
    await queue.changes.continue_answer("console:1", following, person_id=ANN.id)
    more = replace(exchange, turn_id="console:3", question="go on", answer="more")
    shown = Shown(("m2",), "more", "more", outcome="done")
    await queue.leases.finish(await take(queue), shown, more)
    before = len(await remembered(store))

    await queue.changes.forget("console:2")

    assert (before, await remembered(store)) == (2, [])


async def edit(store: Store, number: int, text: str, at: float = 2000.0) -> None:
    turn = replace(make_turn(number, text=text), joins=True)
    await make_queue(store).edit(turn, edited_at=at)


async def finish(queue: TurnQueue, taken: Taken, answer: str = "Hi", *message_ids: str) -> None:
    turn = taken.turn
    exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, answer)
    shown = Shown(message_ids or ("m1",), answer, answer, outcome="done")
    await queue.leases.finish(taken, shown, exchange)


async def given_back(queue: TurnQueue, taken: Taken) -> Taken:
    await queue.leases.release(taken, delay_seconds=0, counts=False)
    return await take(queue)


def parts(taken: Taken) -> Sequence[str]:
    return taken.turn.text.split("\n\n")


async def test_what_a_person_asks_in_a_row_is_one_question(store: Store) -> None:
    queue = make_queue(store)
    await ask(store, 1, 2, 3)
    await ask(store, 4, person=BOB)
    await ask(store, 5)

    taken = await take(queue)
    await finish(queue, taken)

    assert (taken.turn.id, parts(taken)) == ("console:1", ["q1", "q2", "q3"])
    assert [await outcome(store, number) for number in (1, 2, 3)] == ["done"] * 3
    assert await remembered(store) == [("q1\n\nq2\n\nq3", "Hi")]
    assert (await queue.load([])).open == 2
    assert (await take(queue)).turn.text == "q4"


async def test_a_question_that_needs_an_answer_of_its_own_gets_one(store: Store) -> None:
    queue = make_queue(store)
    await ask(store, 1)
    await ask(store, 2, joins=False)
    await ask(store, 3)

    asked = []
    for _ in range(3):
        taken = await take(queue)
        asked.append(taken.turn.text)
        await finish(queue, taken)

    assert asked == ["q1", "q2", "q3"]


async def test_questions_are_joined_in_the_order_in_which_they_were_asked(store: Store) -> None:
    for number, asked_at in ((1, 1002.5), (2, 1001.5), (3, 1003.5)):
        turn = replace(make_turn(number, text=f"q{number}"), joins=True, asked_at=asked_at)
        await make_queue(store).admit(turn)

    assert parts(await take(make_queue(store))) == ["q2", "q1", "q3"]


async def test_no_more_is_joined_than_one_question_may_have(store: Store) -> None:
    queue = make_queue(store)
    await ask(store, 1, 2, 3, text="x" * 30_000)

    assert [len(part) for part in parts(await take(queue))] == [30_000, 30_000]


async def test_quick_questions_that_are_joined_fill_no_thread(store: Store) -> None:
    await ask(store, 1, limits=FEW)
    taken = await take(make_queue(store))
    await ask(store, *range(2, 9), limits=FEW)
    await ask(store, 11, person=BOB, limits=FEW)

    with pytest.raises(ThreadBusy):
        await ask(store, 9, limits=FEW)
    with pytest.raises(PersonBusy):
        await ask(store, 12, person=BOB, limits=replace(FEW, waiting_per_person=1))

    await finish(make_queue(store), taken)
    assert len(parts(await take(make_queue(store)))) == 7


@pytest.mark.parametrize("step", ["taken", "saved", "late question"])
async def test_a_dead_workers_joined_questions_are_answered_once(step: str, store: Store) -> None:
    platform, model, dead = FakePlatform(), FakeModel(["Hi"]), make_queue(store, "dead", lease=600)
    await ask(store, 1, 2)
    taken = await take(dead)
    if step == "saved":
        await dead.leases.save(taken, Shown((), "Hi", "Hi"))
    if step == "late question":
        await ask(store, 3)
    await expire_all(store)

    await answer(store, platform, model, name="next")

    asked = [prompt[-1].text for prompt in model.prompts]
    assert asked == ["q1\n\nq2", *(["q3"] if step == "late question" else [])]
    assert len(platform.shown.screen) == len(asked)


@pytest.mark.parametrize("number", [1, 2])
async def test_an_edit_of_a_joined_question_is_answered_with_the_others(
    number: int, store: Store
) -> None:
    queue, taken = await begun(store, 1, 2, 3)

    await edit(store, number, "edited")

    with pytest.raises(QuestionEdited):
        await queue.leases.renew(taken)
    again = await given_back(queue, taken)
    assert parts(again) == ["edited" if one == number else f"q{one}" for one in (1, 2, 3)]
    await finish(queue, again)
    await edit(store, number, "edited")
    assert (await queue.load([])).open == 0
    await edit(store, number, "once more", 3000.0)
    last = await take(queue)
    assert parts(last) == ["once more" if one == number else f"q{one}" for one in (1, 2, 3)]
    assert (last.turn.id, last.shown.message_ids) == ("console:1", ("m1",))
    await finish(queue, last, "Hello")
    assert [answer for _, answer in await remembered(store)] == ["Hello"]


async def test_joined_questions_are_answered_anew_together(store: Store) -> None:
    queue, taken = await begun(store, 1, 2)
    await finish(queue, taken)

    await press(store, 1)
    again = await take(queue)
    await ask(store, 3)
    await finish(queue, again)

    assert parts(again) == ["q1", "q2"]
    assert parts(await take(queue)) == ["q3"]


async def test_a_deleted_joined_question_is_left_out(store: Store) -> None:
    queue, taken = await begun(store, 1, 2, 3)

    await queue.changes.forget("console:2")

    with pytest.raises(QuestionEdited):
        await queue.leases.renew(taken)
    again = await given_back(queue, taken)
    await finish(queue, again)
    assert parts(again) == ["q1", "q3"]
    assert (await queue.load([])).open == 0


async def test_the_others_are_answered_if_the_first_question_is_deleted(store: Store) -> None:
    queue, taken = await begun(store, 1, 2, 3)

    await queue.changes.forget("console:1")

    assert await queue.leases.renew(taken)
    await finish(queue, taken)
    assert await remembered(store) == []
    assert parts(await take(queue)) == ["q2", "q3"]


@pytest.mark.parametrize("number", [1, 2])
async def test_a_joined_question_deleted_later_takes_the_exchange_with_it(
    number: int, store: Store
) -> None:
    queue, taken = await begun(store, 1, 2)
    await finish(queue, taken)

    await queue.changes.forget(f"console:{number}")

    assert await remembered(store) == []
    for one in (1, 2):
        assert await store.command("HGET", store.key("turn", f"console:{one}"), "text") == ""
    await edit(store, 3 - number, "edited")
    assert (await queue.load([])).open == 0


async def test_a_deleted_answer_to_joined_questions_is_not_written_anew(store: Store) -> None:
    queue, taken = await begun(store, 1, 2)
    await queue.leases.save(taken, Shown(("m1",), "half", "half"))

    await queue.changes.forget(platform="console", messages=["m1"])

    assert await queue.leases.renew(taken)
    await finish(queue, taken)
    assert (await queue.load([])).open == 0
    assert await remembered(store) == []


async def test_a_joined_question_can_be_deleted_as_long_as_its_answer_is_remembered(
    store: Store,
) -> None:
    queue, taken = await begun(store, 1, 2)
    await finish(queue, taken, "both", "m1")
    for name in ("turn:console:1", "turn:console:2"):
        await store.command("PEXPIRE", store.key(name), 300)
    await ask(store, 3, person=BOB)
    await finish(queue, await take(queue), "another", "m3")
    await asyncio.sleep(0.4)

    await queue.changes.forget("console:2")

    assert await remembered(store) == [("q3", "another")]


async def test_without_a_history_a_joined_question_is_answered_once(store: Store) -> None:
    limits = replace(LIMITS, history=0)
    await ask(store, 1, 2, limits=limits)
    queue = make_queue(store, limits=limits)
    await finish(queue, await take(queue))

    # Its record expires first.
    await store.command("DEL", store.key("turn", "console:2"))

    assert not await queue.admit(make_turn(2))


async def test_joined_questions_count_for_what_is_kept_of_their_person(store: Store) -> None:
    await ask(store, 1, 2)
    queue = make_queue(store, limits=replace(LIMITS, person_bytes=1000))

    await finish(queue, await take(queue))

    assert await queue.lookup.turn("console:1")
    assert await queue.lookup.turn("console:2") is None
