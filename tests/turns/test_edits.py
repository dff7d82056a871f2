"""The last question of a thread is edited: its answer is written anew in the same messages."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from bot.domain import ContextMessage, Exchange, Outcome, Page, Person, Shown, Turn
from bot.errors import LeaseLost, ModelUnavailable, PersonBusy, QuestionEdited, ThreadBusy
from bot.reply.draft import FAILED_ANEW
from bot.store import Store
from bot.turns.queue import Taken, TurnLeases, TurnQueue
from tests.support.at_work import (
    BOB,
    LIMITS,
    WORDS,
    all_ended,
    answer,
    expire_all,
    make_leases,
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
from tests.support.waiting import until

EDITED = "as it stands now"


async def edit(
    store: Store, number: int = 1, text: str = EDITED, *, at: float = 2000.0, **changes: Any
) -> None:
    turn = replace(make_turn(number, text=text), **changes)
    await make_queue(store).edit(turn, edited_at=at)


async def begun(store: Store, text: str = "") -> tuple[TurnQueue, Taken]:
    """Let a worker take a question."""
    queue = make_queue(store)
    await queue.admit(make_turn(text=text))
    return queue, await take(queue)


async def finish(queue: TurnQueue, taken: Taken, answer: str, outcome: Outcome = "done") -> None:
    turn = taken.turn
    exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, answer)
    shown = Shown(("m1",), answer, answer, outcome=outcome)
    await queue.leases.finish(taken, shown, exchange if answer else None)


async def given_back(queue: TurnQueue, *, text: str, at: float) -> None:
    taken = await take(queue)
    await edit(queue.leases.store, text=text, at=at)
    await queue.leases.release(taken, delay_seconds=0, counts=False)


async def is_idle(store: Store) -> bool:
    return not (await make_queue(store).load([])).open


async def next_turn(store: Store) -> Turn:
    return (await take(make_queue(store))).turn


# A question that waits


async def test_a_waiting_question_is_replaced_by_the_latest_edit_of_its_author(
    store: Store,
) -> None:
    await make_queue(store).admit(make_turn())

    await edit(store, text="second", at=3000.0, left_out=7)
    await edit(store, text="first", at=2000.0)
    await edit(store, text="another's", at=4000.0, person=BOB)

    assert await next_turn(store) == replace(make_turn(text="second"), left_out=7)


async def test_of_two_edits_at_one_moment_the_one_that_comes_later_counts(store: Store) -> None:
    await make_queue(store).admit(make_turn())

    await edit(store, text="first")
    await edit(store, text="second")

    assert (await next_turn(store)).text == "second"


async def test_an_unknown_question_that_is_refused_leaves_nothing(store: Store) -> None:
    limited = make_queue(store, limits=replace(LIMITS, waiting_per_person=0))

    with pytest.raises(PersonBusy):
        await limited.edit(replace(make_turn(), asked_at=time.time()), edited_at=time.time())

    assert await store.command("KEYS", store.key("*")) == []


async def test_a_quotation_in_a_name_does_not_pass_for_a_part_of_the_record(store: Store) -> None:
    person = Person("u1", '", "left_out": 5, "left_out": 6')
    await make_queue(store).admit(make_turn(person=person))

    await edit(store, person=person, left_out=7)

    turn = await next_turn(store)
    assert (turn.person.name, turn.left_out, turn.text) == (person.name, 7, EDITED)


# A question that is not known


async def test_an_edit_before_its_question_is_the_question(store: Store) -> None:
    recent = replace(make_turn(), asked_at=time.time())
    quote = ContextMessage("console:0", BOB, "Deploy?")

    await edit(store, asked_at=recent.asked_at, quote=quote)
    await make_queue(store).admit(recent)
    await edit(store, text="an earlier edit", at=1500.0, asked_at=recent.asked_at)

    turn = await next_turn(store)
    assert (turn.text, turn.quote) == (EDITED, quote)
    assert (await make_queue(store).load([])).open == 1


async def test_an_edit_of_a_deleted_question_or_one_of_long_ago_asks_nothing(store: Store) -> None:
    await make_queue(store).changes.forget("console:1", asked_at=time.time())

    await edit(store, 1, asked_at=time.time())
    await edit(store, 2, asked_at=time.time() - 90_000)

    assert await is_idle(store)


# A question that is answered


@pytest.mark.parametrize("state", ["unchanged", "forgotten", "another waits"])
async def test_an_edit_without_a_change_or_of_no_last_question_does_nothing(
    store: Store, state: str
) -> None:
    text = 'a/b "c" \x7f ü \U0001f600'
    queue, taken = await begun(store, text)
    await finish(queue, taken, "Hi")
    match state:
        case "forgotten":
            await queue.changes.forget("console:1")
        case "another waits":
            await queue.admit(make_turn(2))

    await edit(store, text=text if state == "unchanged" else EDITED)

    assert (await queue.load([])).open == (1 if state == "another waits" else 0)


@pytest.mark.parametrize("answer", ["Hi", ""])
async def test_an_edit_that_is_delivered_twice_is_answered_once(store: Store, answer: str) -> None:
    queue, taken = await begun(store)
    await finish(queue, taken, answer, "done" if answer else "failed")

    await edit(store)
    await edit(store)
    taken = await take(queue)
    await finish(queue, taken, "Hello")
    await edit(store)

    assert taken.turn.text == EDITED
    assert await is_idle(store)
    assert await remembered(store) == [(EDITED, "Hello")]


async def test_an_edit_that_is_refused_may_come_again(store: Store) -> None:
    limited = make_queue(store, limits=replace(LIMITS, waiting_per_person=1))
    await limited.admit(make_turn(1))
    await finish(limited, await take(limited), "Hi")
    await limited.admit(make_turn(2, thread="t2"))

    with pytest.raises(PersonBusy):
        await limited.edit(make_turn(text=EDITED), edited_at=2000.0)
    await finish(limited, await take(limited), "Hi")
    await limited.edit(make_turn(text=EDITED), edited_at=2000.0)

    assert (await take(limited)).turn.text == EDITED


async def test_an_answer_of_another_question_stays_if_there_is_no_new_one(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi"])

    await answer(store, platform, model, make_turn())
    model.deltas, model.error = [], ModelUnavailable("cut")
    await edit(store)
    await answer(store, platform, model)
    model.deltas, model.error = ["Hello"], None
    await press(store)
    await answer(store, platform, model)

    notice = FAILED_ANEW.format(apology=ModelUnavailable.apology)
    assert f"Hi\n\n{notice}" in platform.shown.states
    assert list(platform.shown.screen) == ["m1"]
    assert platform.shown.text == "Hello"
    assert [prompt[-1].text for prompt in model.prompts] == ["question 1", EDITED, EDITED]
    assert await remembered(store) == [(EDITED, "Hello")]


async def test_an_answer_is_remembered_with_its_question_until_there_is_a_new_one(
    store: Store,
) -> None:
    queue, taken = await begun(store)
    await finish(queue, taken, "Hi")

    await edit(store, text="second", at=2000.0)
    await edit(store, text="third", at=3000.0)

    assert await remembered(store) == [("question 1", "Hi")]


# A question that is being answered


class Slow(TurnLeases):
    """Lets something happen just before the end of a turn is stored."""

    happens: Callable[[], Awaitable[None]] | None = None

    async def finish(
        self, taken: Taken, shown: Shown, exchange: Exchange | None, **use: Any
    ) -> str:
        if self.happens:
            happens, self.happens = self.happens, None
            await happens()
        return await super().finish(taken, shown, exchange, **use)


async def test_an_answer_that_grows_begins_again_in_its_message(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(WORDS, pause=0.05)

    async with working(make_worker(store, platform, model, lease=600)):
        await make_queue(store).admit(make_turn())
        await until(lambda: platform.shown.text)
        model.deltas = ["Anew."]
        await edit(store)
        await all_ended(store)

    assert model.prompts[-1][-1].text == EDITED
    assert {name: page.text for name, page in platform.shown.screen.items()} == {"m1": "Anew."}
    assert await remembered(store) == [(EDITED, "Anew.")]
    assert await outcome(store) == "done"


async def test_an_edit_while_the_end_is_stored_is_not_lost(store: Store) -> None:
    platform, model, leases = FakePlatform(), FakeModel(["Hi"]), make_leases(Slow, store, lease=600)

    async def happens() -> None:
        model.deltas = ["Anew."]
        await edit(store)

    leases.happens = happens
    await answer(store, platform, model, make_turn(), lease=600, leases=leases)

    assert {name: page.text for name, page in platform.shown.screen.items()} == {"m1": "Anew."}
    assert await remembered(store) == [(EDITED, "Anew.")]


async def test_edits_without_end_do_not_hold_up_others_in_the_thread(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    for number in range(8):
        await given_back(queue, text=f"alone {number}", at=2000.0 + number)
    await queue.admit(make_turn(2, person=BOB))

    with pytest.raises(ThreadBusy):
        await edit(store, text="with Bob", at=3000.0)

    await finish(queue, await take(queue), "Hi")
    assert await remembered(store) == [("alone 7", "Hi")]
    assert (await next_turn(store)).text == "question 2"


async def test_an_answer_anew_may_be_edited_as_often_as_the_first(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    for number in range(5):
        await given_back(queue, text=f"alone {number}", at=2000.0 + number)
    await finish(queue, await take(queue), "Hi")
    await press(store)
    await queue.admit(make_turn(2, person=BOB))

    await given_back(queue, text="with Bob", at=3000.0)

    assert (await next_turn(store)).text == "with Bob"


@pytest.mark.parametrize("step", ["taken", "saved", "whole", "told"])
async def test_a_worker_that_dies_at_any_step_leaves_the_edited_question_to_the_next(
    step: str, store: Store
) -> None:
    platform, dead = FakePlatform(), make_queue(store, "dead", lease=600)
    await dead.admit(make_turn())
    taken = await take(dead)
    if step != "taken":
        whole: Outcome | Literal[""] = "done" if step == "whole" else ""
        await platform.shown.post(Page(0, "Hi", final=False))
        await dead.leases.save(taken, Shown(("m1",), "Hi", "Hi", outcome=whole))
    await edit(store)
    if step == "told":
        with pytest.raises(QuestionEdited):
            await dead.leases.renew(taken)
    await expire_all(store)

    await answer(store, platform, FakeModel(["Anew."]), name="next")

    assert {name: page.text for name, page in platform.shown.screen.items()} == {"m1": "Anew."}
    assert await remembered(store) == [(EDITED, "Anew.")]
    with pytest.raises(LeaseLost):
        await dead.leases.renew(taken)


async def test_every_report_of_a_worker_raises_the_edit_and_is_kept(store: Store) -> None:
    queue, taken = await begun(store)
    await edit(store)

    with pytest.raises(QuestionEdited):
        await queue.leases.renew(taken)
    with pytest.raises(QuestionEdited):
        await queue.leases.save(taken, Shown(("m1",), "Half", "Half"))
    with pytest.raises(QuestionEdited):
        await finish(queue, taken, "Whole")
    await queue.leases.release(taken, delay_seconds=0, counts=False)
    again = await take(queue)

    assert (again.shown, again.previous_answer) == (Shown(("m1",)), "Whole")
    assert (again.attempts, again.turn.text) == (1, EDITED)
    assert not await queue.leases.renew(again)


async def test_the_end_that_an_edit_gives_an_answer_is_no_former_answer(store: Store) -> None:
    queue, taken = await begun(store)
    await queue.leases.save(taken, Shown(("m1",), "Because", "Because"))
    await edit(store)

    with pytest.raises(QuestionEdited):
        await queue.leases.save(taken, Shown(("m1",), "Because\n(Stopped.)", "Because"))
    await queue.leases.release(taken, delay_seconds=0, counts=False)

    assert (await take(queue)).previous_answer == "Because"


async def test_a_text_that_was_in_no_message_is_no_previous_answer(store: Store) -> None:
    queue, taken = await begun(store)
    await queue.leases.save(taken, Shown((), "Because", "Because"))
    await edit(store)

    await queue.leases.release(taken, delay_seconds=0, counts=False)

    assert (await take(queue)).previous_answer == ""


async def test_a_stop_after_an_edit_is_heard_and_one_before_it_is_not(store: Store) -> None:
    queue, taken = await begun(store)

    await queue.changes.stop("console:1")
    await edit(store)
    await queue.leases.release(taken, delay_seconds=0, counts=False)
    again = await take(queue)
    await edit(store, text="once more", at=3000.0)
    await queue.changes.stop("console:1")
    with pytest.raises(QuestionEdited):
        await queue.leases.renew(again)
    await queue.leases.release(again, delay_seconds=0, counts=False)

    assert (again.stop, (await take(queue)).stop) == (False, True)


async def test_a_question_deleted_after_its_edit_is_not_answered(store: Store) -> None:
    queue, taken = await begun(store)
    await edit(store)

    await queue.changes.forget("console:1")

    assert await queue.leases.renew(taken)
    await finish(queue, taken, "Whole", "stopped")
    assert await remembered(store) == []
    assert await is_idle(store)


async def test_a_failed_attempt_at_an_edited_question_is_the_first(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    for _ in range(3):
        taken = await take(queue)
        await queue.leases.release(taken, delay_seconds=0, counts=True)

    await edit(store)

    assert (await take(queue)).attempts == 1
