"""What a person does to a turn later: stop it, delete its question, have it answered anew."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from bot.domain import Person, Place, Shown
from bot.errors import (
    LeaseLost,
    NotRemembered,
    NotTheAsker,
    NotTheLast,
    PersonBusy,
    QueueFull,
    ThreadBusy,
)
from bot.intake.intake import Intake
from bot.store import Store, connect
from bot.turns.records import History
from tests.support.at_work import expire_all
from tests.turns.test_queue import (
    ANN,
    ELSEWHERE,
    KEY,
    WHOLE,
    answered,
    exchanges,
    finish,
    first_to_take,
    grown,
    history,
    make_queue,
    make_turn,
    nothing_to_take,
    press,
    take,
    taken_again,
)


async def test_a_deleted_question_passes_its_place_on_to_the_next_that_waits(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    for number in (1, 2, 3):
        await queue.admit(make_turn(number, key=replace(KEY, thread=f"t{number}")))
    first = await take(queue)
    assert await nothing_to_take(queue)

    await finish(queue, first)
    await queue.changes.forget("console:2")

    assert await first_to_take(queue) == "console:3"


async def test_a_deleted_question_whose_reply_was_handed_over_is_taken_once_more(
    store: Store,
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.leases.save(taken, grown("half", "m1"))
    await queue.leases.release(taken, delay_seconds=0, counts=False)

    await queue.changes.forget("console:1")
    again = await take(queue)
    await finish(queue, again, outcome="stopped")

    assert (again.stop, again.shown.message_ids) == (True, ("m1",))
    assert await history(store) == []


async def test_a_deleted_question_lets_the_next_of_its_thread_go_first(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    bob = Person("u2", "Bob")
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2, key=ELSEWHERE))
    await queue.admit(make_turn(3, key=ELSEWHERE, person=bob))
    await take(queue)

    await queue.changes.forget("console:2")

    assert await first_to_take(queue) == "console:3"


async def test_a_deleted_question_makes_nobody_wait_for_its_next_attempt(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2))
    await queue.leases.release(await take(queue), delay_seconds=60, counts=True)

    await queue.changes.forget("console:1")

    assert await first_to_take(queue) == "console:2"


async def test_whom_a_deleted_question_has_waited_for_wakes_its_thread_no_more(
    store: Store,
) -> None:
    queue = make_queue(store, running_per_person=1)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2, key=replace(KEY, thread="t3")))
    await queue.admit(make_turn(3, key=ELSEWHERE))
    first = await take(queue)
    assert await nothing_to_take(queue)
    await queue.changes.forget("console:3")
    await queue.admit(make_turn(4, key=ELSEWHERE, person=Person("u2", "Bob")))
    assert await first_to_take(queue) == "console:4"
    assert await nothing_to_take(queue)

    await finish(queue, first)
    await finish(queue, await take(queue))

    assert await nothing_to_take(queue)


async def test_who_waits_again_for_its_person_has_not_lost_its_place(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    for number in (1, 2, 3):
        await queue.admit(make_turn(number, key=replace(KEY, thread=f"t{number}")))
    first = await take(queue)
    assert await nothing_to_take(queue)
    await queue.leases.release(first, delay_seconds=0, counts=False)
    first = await take(queue)
    assert await nothing_to_take(queue)

    await finish(queue, first)

    assert await first_to_take(queue) == "console:2"


async def test_a_turn_that_waits_in_a_full_thread_is_not_refused_when_it_is_told_again(
    store: Store,
) -> None:
    queue = make_queue(store, waiting_per_thread=1)
    await queue.admit(make_turn(1))

    assert await queue.admit(make_turn(1))


async def test_all_that_is_due_is_ready_at_once(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2):
        await queue.admit(make_turn(number, key=replace(KEY, thread=f"t{number}")))
        await queue.leases.release(await take(queue), delay_seconds=60, counts=True)
    await expire_all(store)

    assert [(await take(queue)).turn.id for _ in range(2)] == ["console:1", "console:2"]


async def test_a_full_store_gives_out_the_turns_that_it_has(data_dir: Path) -> None:
    async with connect(url="", data_dir=data_dir) as full:
        queue = make_queue(full)
        await queue.admit(make_turn(1))
        await full.redis.config_set("maxmemory", "1")

        taken = await take(queue)
        await queue.leases.renew(taken)

        assert taken.turn == make_turn(1)
        await full.redis.config_set("maxmemory", "0")
        await finish(queue, taken)
        assert await history(full) == ["console:1"]


async def test_what_a_failed_turn_has_shown_is_no_previous_answer(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    sorry = Shown(("m1",), "(Sorry.)", "", outcome="failed")
    await queue.leases.finish(await take(queue), sorry, None)
    await answered(queue, 2)
    await queue.admit(make_turn(3))
    await queue.leases.finish(await take(queue), sorry, None)

    await press(queue, 3)

    assert (await take(queue)).previous_answer == ""


async def test_a_press_and_a_posted_message_are_known_for_as_long_as_they_are_told_of(
    store: Store,
) -> None:
    queue = make_queue(store)
    await answered(queue, 1)

    await press(queue, 1)

    assert await store.command("TTL", store.key("pressed", "p1")) > 3500
    assert await store.command("TTL", store.key("posted", "console", "m1")) > 50


async def test_what_is_to_be_repaired_expires_where_nobody_repairs_it(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))

    await queue.repairs.report_late_writes((await take(queue)).turn, ["m1"])

    assert await store.command("TTL", store.key("repairs", "console")) > 50


async def test_an_answer_that_is_written_anew_has_its_own_furthest_point(store: Store) -> None:
    queue, turn = make_queue(store), make_turn(1)
    await queue.admit(turn)
    taken = await take(queue)
    await queue.leases.save(taken, grown("A long answer", "m1"))
    await finish(queue, taken, answer="A long answer")
    await press(queue, 1)
    taken = await take(queue)
    for _ in range(2):
        taken = await taken_again(queue)

    await queue.leases.save(taken, grown("Short", "m1"))
    again = await taken_again(queue)

    assert taken.attempts == 3
    assert again.attempts == 2


async def test_stop_is_told_by_the_channel_and_by_the_record(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)

    async with aclosing(queue.leases.requests()) as turn_ids:
        request = asyncio.ensure_future(anext(turn_ids))
        async with asyncio.timeout(30):
            while not request.done():
                assert await queue.changes.stop("console:1")
                await asyncio.sleep(0.01)

    assert request.result() == "console:1"
    assert await queue.leases.renew(taken)
    assert await queue.leases.save(taken, grown(""))


async def test_stop_of_what_is_not_at_work_says_so(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await finish(queue, await take(queue))

    assert not await queue.changes.stop("console:1")
    assert not await queue.changes.stop("console:unknown")


async def test_stopping_a_thread_stops_its_first_turn_and_none_that_waits(store: Store) -> None:
    queue, other = make_queue(store), make_queue(store, "w2")
    for number in (1, 2):
        await queue.admit(make_turn(number))
    taken = await take(queue)

    stopped = await other.changes.stop_thread(KEY)

    assert stopped
    assert await queue.leases.renew(taken)
    await finish(queue, taken, outcome="stopped")
    assert not (await take(queue)).stop


async def test_a_turn_that_was_given_back_in_mid_reply_is_stopped_with_its_thread(
    store: Store,
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.leases.save(taken, grown("Because", "m1"))
    await queue.leases.release(taken, delay_seconds=0, counts=True)

    stopped = await queue.changes.stop_thread(KEY)

    assert stopped
    assert (await take(queue)).stop


async def test_a_thread_where_nothing_was_begun_is_not_stopped(store: Store) -> None:
    queue = make_queue(store)
    unknown = await queue.changes.stop_thread(KEY)
    await queue.admit(make_turn(1))

    waiting = await queue.changes.stop_thread(KEY)
    taken = await take(queue)
    await finish(queue, taken)

    assert not any((unknown, waiting, taken.stop, await queue.changes.stop_thread(KEY)))


async def test_forgetting_a_waiting_turn_drops_it(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2, 3):
        await queue.admit(make_turn(number))
    first = await take(queue)

    await queue.changes.forget("console:2")
    await finish(queue, first)

    assert (await take(queue)).turn.id == "console:3"
    assert (await queue.load([])).open == 1


async def test_what_was_dropped_has_left_nothing_on_the_screen(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))

    await queue.changes.forget("console:1")

    assert await queue.lookup.result("console:1") is None


async def test_what_waits_has_left_nothing_on_the_screen_yet(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))

    assert await queue.lookup.result("console:1") is None


async def test_forgetting_the_only_waiting_turn_leaves_the_thread_usable(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))

    await queue.changes.forget("console:1")
    await queue.admit(make_turn(2))

    assert (await take(queue)).turn.id == "console:2"
    assert await nothing_to_take(queue)


async def test_a_question_deleted_before_its_admission_is_not_answered(store: Store) -> None:
    queue = make_queue(store)

    await queue.changes.forget("console:1")

    assert not await queue.admit(make_turn(1))
    assert (await queue.load([])).open == 0
    assert 0 < await store.command("TTL", store.key("turn", "console:1")) <= 600


async def test_forgetting_a_running_turn_stops_it_and_remembers_nothing(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await queue.changes.forget("console:1")

    assert await queue.leases.renew(taken)
    await finish(queue, taken, outcome="stopped")
    assert await history(store) == []


async def test_forgetting_an_ended_turn_removes_its_exchange_only(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2):
        await queue.admit(make_turn(number))
        await finish(queue, await take(queue))

    await queue.changes.forget("console:1")

    assert await history(store) == ["console:2"]


async def test_an_answer_to_be_written_anew_is_queued_with_its_messages(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1, 2)

    await press(queue, 2)
    taken = await take(queue)

    assert (taken.turn, taken.fence, taken.attempts, taken.stop) == (make_turn(2), 2, 1, False)
    assert (taken.shown, taken.previous_answer) == (grown("", "m1"), "answer")
    assert await nothing_to_take(queue)


async def test_a_new_answer_takes_the_place_of_the_previous(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1, 2)
    await press(queue, 2)
    taken = await take(queue)
    before = await exchanges(store)

    await finish(queue, taken, answer="a better one")
    await finish(queue, taken, answer="a better one")

    assert before == [("console:1", "answer"), ("console:2", "answer")]
    assert await exchanges(store) == [("console:1", "answer"), ("console:2", "a better one")]
    assert (await queue.load([])).open == 0


async def test_without_a_new_answer_the_previous_stays_and_can_be_had_again(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)
    await press(queue, 1)
    taken = await take(queue)

    back = Shown(("m1",), "answer\n\n(Sorry.)", "", outcome="failed")
    await queue.leases.finish(taken, back, None)
    await press(queue, 1, press_id="p2")

    assert await exchanges(store) == [("console:1", "answer")]
    assert (await take(queue)).previous_answer == "answer"


async def test_a_new_answer_is_the_previous_of_the_next(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)
    await press(queue, 1)
    await finish(queue, await take(queue), answer="second")

    await press(queue, 1, press_id="p2")

    assert (await take(queue)).previous_answer == "second"


async def test_only_the_asker_has_an_answer_written_anew(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)

    with pytest.raises(NotTheAsker):
        await press(queue, 1, person="u2")

    assert (await queue.load([])).open == 0


async def test_only_the_last_answer_is_written_anew(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1, 2)

    with pytest.raises(NotTheLast):
        await press(queue, 1)

    await queue.changes.forget("console:2")
    await press(queue, 1)


async def test_what_is_forgotten_is_not_written_anew(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1, 2)
    await queue.changes.forget("console:2")

    with pytest.raises(NotRemembered):
        await press(queue, 2)
    with pytest.raises(NotRemembered):
        await press(queue, 7)
    await queue.changes.reset(KEY)
    with pytest.raises(NotRemembered):
        await press(queue, 1)

    assert (await queue.load([])).open == 0


async def test_a_deleted_question_brings_back_no_answer_of_a_reset_thread(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.changes.reset(KEY)

    await queue.changes.forget("console:1")

    await finish(queue, taken, answer="answer")
    result = await queue.lookup.result("console:1")
    assert result
    assert result.text == ""


async def test_a_thread_at_work_writes_nothing_anew(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)
    await queue.admit(make_turn(2))

    with pytest.raises(ThreadBusy):
        await press(queue, 1)
    with pytest.raises(ThreadBusy):
        await press(queue, 2)
    await finish(queue, await take(queue))
    await press(queue, 2)
    with pytest.raises(ThreadBusy):
        await press(queue, 2, press_id="p2")

    assert (await queue.load([])).open == 1


async def test_a_press_adds_to_the_place_of_its_turn(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(replace(make_turn(1), place={"channel": "7", "token": "old"}))
    await finish(queue, await take(queue))
    added: list[Place | None] = [{"press": {"token": "ü"}}, {"press": {"token": "new"}}, None]

    places = []
    for number, place in enumerate(added):
        await queue.changes.regenerate(
            "console:1", person_id=ANN.id, press_id=f"p{number}", place=place
        )
        taken = await take(queue)
        places.append(taken.turn.place)
        await finish(queue, taken)

    old = {"channel": "7", "token": "old"}
    assert places == [old | {"press": {"token": one}} for one in ("ü", "new", "new")]


async def test_a_press_on_what_is_just_being_stored_is_heeded(store: Store) -> None:
    queue = make_queue(store)
    intake = Intake(queue=queue, history=History(store=store, keep_seconds=60))
    await queue.admit(make_turn(1))
    taken = await take(queue)

    pressing = asyncio.create_task(
        intake.answers.regenerate("console:1", person_id=ANN.id, press_id="p1")
    )
    await asyncio.sleep(0.1)
    await finish(queue, taken)
    await pressing

    assert (await take(queue)).previous_answer == "answer"


async def test_of_two_presses_at_once_one_is_heeded(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)

    outcomes = await asyncio.gather(
        *(press(queue, 1, press_id=f"p{number}") for number in range(5)), return_exceptions=True
    )

    assert [type(one) for one in outcomes].count(ThreadBusy) == 4
    await finish(queue, await take(queue))
    assert await nothing_to_take(queue)


async def test_a_press_told_again_changes_nothing(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)

    await asyncio.gather(press(queue, 1), press(queue, 1))
    await finish(queue, await take(queue))
    await press(queue, 1)

    assert (await queue.load([])).open == 0
    assert await nothing_to_take(queue)


async def test_a_turn_without_a_word_can_be_answered_anew_until_another_follows(
    store: Store,
) -> None:
    queue = make_queue(store)
    await answered(queue, 1)
    await answered(queue, 2, answer="")

    await press(queue, 2)
    taken = await take(queue)
    await finish(queue, taken, answer="", outcome="failed")
    await answered(queue, 3)
    with pytest.raises(NotTheLast):
        await press(queue, 2, press_id="p2")

    assert (taken.shown, taken.previous_answer) == (grown("", "m1"), "")
    assert await history(store) == ["console:1", "console:3"]


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [({"waiting_per_person": 1}, PersonBusy), ({"waiting": 1}, QueueFull)],
)
async def test_answers_written_anew_count_for_the_limits(
    store: Store, limits: dict[str, int], refusal: type[Exception]
) -> None:
    queue = make_queue(store, **limits)
    await answered(queue, 1)
    await queue.admit(make_turn(2, key=replace(KEY, thread="t2")))

    with pytest.raises(refusal):
        await press(queue, 1)

    assert (await queue.load([])).open == 1


async def test_a_stop_of_the_previous_answer_is_over(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.changes.stop("console:1")
    await finish(queue, taken, outcome="stopped")

    await press(queue, 1)

    assert not (await take(queue)).stop


async def test_a_question_deleted_while_it_is_answered_anew_is_forgotten(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)
    await press(queue, 1)
    taken = await take(queue)

    await queue.changes.forget("console:1")

    assert await queue.leases.renew(taken)
    await finish(queue, taken, answer="new", outcome="stopped")
    assert await history(store) == []


async def test_a_worker_that_dies_over_a_new_answer_leaves_the_previous(store: Store) -> None:
    dead, alive = make_queue(store, "dead"), make_queue(store, "alive")
    await answered(dead, 1)
    await press(dead, 1)
    first = await take(dead)
    await dead.leases.save(first, grown("half", "m1", "m2"))

    second = await taken_again(alive)

    assert (second.shown, second.previous_answer) == (grown("half", "m1", "m2"), "answer")
    assert await exchanges(store) == [("console:1", "answer")]
    with pytest.raises(LeaseLost):
        await finish(dead, first, answer="late")
    await finish(alive, second, answer="new")
    assert await exchanges(store) == [("console:1", "new")]


async def test_what_is_written_anew_has_no_end(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.leases.save(taken, WHOLE)
    await finish(queue, taken)

    await press(queue, 1)

    assert (await take(queue)).shown == grown("", "m1")


async def test_an_end_that_shows_no_previous_answer_has_none(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)
    await press(queue, 1)

    await queue.leases.save(await take(queue), Shown(("m1",), "Sorry.", outcome="failed"))

    (one,) = await queue.lookup.standings("console:1", person_id=ANN.id)
    assert (one.state, one.answer, one.below) == ("failed", "", "Sorry.")


async def test_forgetting_what_is_unknown_and_old_leaves_nothing(store: Store) -> None:
    queue = make_queue(store)

    await queue.changes.forget("console:1", "console:2", asked_at=time.time() - 3600)

    assert await store.command("KEYS", store.key("*")) == []


async def test_a_question_deleted_before_it_came_is_not_admitted(store: Store) -> None:
    queue = make_queue(store)
    await queue.changes.forget("console:1", "console:2", asked_at=time.time() - 60)

    admitted = [await queue.admit(make_turn(number)) for number in (1, 2, 3)]

    assert admitted == [False, False, True]


async def test_one_call_forgets_waiting_running_and_ended_turns_of_all_ages(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)
    await queue.admit(make_turn(2))
    at_work = await take(queue)
    await queue.admit(make_turn(3))

    await queue.changes.forget("console:1", "console:2", "console:3", "console:4", asked_at=1.0)

    assert await queue.leases.renew(at_work)
    await finish(queue, at_work)
    assert await exchanges(store) == []
    assert await nothing_to_take(queue)


# A person deletes an answer


async def forget_answer(store: Store, *messages: str) -> None:
    await make_queue(store).changes.forget(platform="console", messages=messages)


async def test_a_deleted_answer_is_remembered_no_more_and_not_written_anew(store: Store) -> None:
    queue = make_queue(store)
    await answered(queue, 1)
    await queue.admit(make_turn(2))
    await finish(queue, await take(queue), message_ids=("m2", "m3"))

    await forget_answer(store, "m3", "unknown")

    assert await history(store) == ["console:1"]
    with pytest.raises(NotRemembered):
        await press(queue, 2)


async def test_a_deleted_answer_that_grows_is_stopped_and_not_remembered(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.leases.save(taken, grown("half", "m1"))

    await forget_answer(store, "m1")

    assert await queue.leases.renew(taken)
    await finish(queue, taken, outcome="stopped", message_ids=("m1",))
    assert await history(store) == []


async def test_a_deleted_answer_of_a_dead_worker_is_taken_once_more_to_end(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.leases.save(taken, grown("half", "m1"))
    await queue.leases.release(taken, delay_seconds=0, counts=False)

    await forget_answer(store, "m1")

    assert (await take(queue)).stop


async def test_a_message_that_its_worker_has_deleted_ends_no_answer(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.leases.save(taken, replace(grown("all", "m1", "m2"), removed=("m2",)))

    await forget_answer(store, "m2")

    assert not await queue.leases.renew(taken)
    await queue.edit(replace(make_turn(1), text="edited"), edited_at=2000.0)
    await queue.leases.release(taken, delay_seconds=0, counts=False)
    again = await take(queue)
    await forget_answer(store, "m2")
    assert (again.stop, again.shown.removed) == (False, ("m2",))
    assert not await queue.leases.renew(again)


async def test_an_edit_of_the_question_writes_no_deleted_answer_anew(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await finish(queue, await take(queue), message_ids=("m1",))
    await forget_answer(store, "m1")

    await queue.edit(replace(make_turn(1), text="edited"), edited_at=2000.0)

    assert (await queue.load([])).open == 0


@pytest.mark.parametrize("saved", [True, False])
async def test_an_answer_that_is_deleted_before_it_is_saved_is_forgotten(
    saved: bool, store: Store
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await forget_answer(store, "m1")

    if saved:
        assert await queue.leases.save(taken, grown("half", "m1"))
    await finish(queue, taken, message_ids=("m1",))
    assert await history(store) == []
    with pytest.raises(NotRemembered):
        await press(queue, 1)
