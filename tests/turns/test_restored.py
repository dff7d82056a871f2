"""What is open in a store that was restored ends without a word."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from bot.access.quotas import Quota
from bot.domain import Exchange, Person, Shown, ThreadKey, Turn
from bot.intake.addressed import Facts
from bot.intake.intake import Admitted, Ignored, Received
from bot.store import Store
from bot.turns.forgetting import REMOVED_SECONDS, named
from bot.turns.queue import TurnQueue
from tests.support.at_work import (
    ANN,
    BOB,
    LIMITS,
    expire_all,
    make_queue,
    make_turn,
    outcome,
    pending_repairs,
    press,
    remembered,
    take,
)
from tests.support.fakes import NotedIntake

NOW = time.time()


async def end_all(queue: TurnQueue, *, until: float = NOW, is_live: bool = False) -> int:
    return await queue.leases.end_all(["console", "slack"], until=until, is_live=is_live)


async def admit(queue: TurnQueue, *turns: Turn) -> None:
    for turn in turns:
        assert await queue.admit(turn, quota=Quota(questions=5), estimate=10)


async def answered(queue: TurnQueue, text: str) -> None:
    taken = await take(queue)
    exchange = Exchange(taken.turn.id, ANN, 1000.0, taken.turn.text, text)
    await queue.leases.finish(taken, Shown(("m1",), text, text, outcome="done"), exchange)


async def test_open_turns_end_and_their_threads_and_people_are_free(store: Store) -> None:
    queue = make_queue(store)
    await admit(
        queue, *(make_turn(number) for number in (1, 2)), make_turn(3, thread="t2", person=BOB)
    )
    running = await take(queue)
    await queue.leases.save(running, Shown(("m1",), "Hel", "Hel"))

    ended = await end_all(queue)

    assert ended == 3
    assert [await outcome(store, number) for number in (1, 2, 3)] == ["failed"] * 3
    assert (await queue.load(["console"])).open == 0
    assert isinstance(await queue.leases.take(["console"]), float)
    result = await queue.lookup.result("console:1")
    # What its message shows now is not known.
    assert result
    assert (result.message_ids, result.text) == ((), "")
    # It cost nothing, it is not admitted again, and the next question is answered.
    usage = await queue.usage(make_turn(1).key, ANN, Quota())
    assert (usage.questions, usage.tokens) == (0, 0)
    assert not await queue.admit(Turn("console:1", make_turn(1).key, ANN, "other", {}, 2.0))
    await admit(queue, make_turn(4))
    assert (await take(queue)).turn.id == "console:4"


@pytest.mark.parametrize("remembers", [True, False])
async def test_words_do_not_outlive_a_restore_where_nothing_is_remembered(
    store: Store, remembers: bool
) -> None:
    days = {"%": int(not remembers), "T1": int(remembers)}
    queue = TurnQueue(
        store=store,
        worker="w1",
        limits=LIMITS,
        lease_seconds=10,
        keep_seconds=24 * 3600,
        remembers=remembers,
        server_days=days,
    )
    for number, workspace in enumerate(("%", "T1", "T2"), 1):
        key = ThreadKey("console", workspace, "c", "t")
        await queue.admit(Turn(f"console:{number}", key, ANN, "zebra", {}, 1.0))

    await end_all(queue)

    kept = {
        workspace: await store.command("PTTL", store.key("turn", f"console:{number}")) > 600_000
        for number, workspace in enumerate(("%", "T1", "T2"), 1)
    }
    assert kept == {"%": not remembers, "T1": remembers, "T2": remembers}


async def test_an_answer_that_was_being_written_anew_stays(store: Store) -> None:
    queue = make_queue(store)
    await admit(queue, make_turn(1))
    await answered(queue, "Hello")
    await press(store)

    ended = await end_all(queue)

    assert ended == 1
    assert await outcome(store) == "done"
    assert await remembered(store) == [("question 1", "Hello")]
    (standing,) = await queue.lookup.standings("console:1", person_id=ANN.id)
    assert (standing.state, standing.answer) == ("done", "Hello")
    assert (await queue.usage(make_turn(1).key, ANN, Quota())).questions == 1
    await press(store, press_id="p2")
    assert (await take(queue)).previous_answer == "Hello"


async def test_no_repair_writes_over_what_followed(store: Store) -> None:
    queue = make_queue(store)
    await admit(queue, make_turn(1))
    await take(queue)
    await expire_all(store)
    await answered(queue, "Hello")
    repairs = await pending_repairs(store)

    await end_all(queue)

    assert repairs == 1
    assert await pending_repairs(store) == 0


async def test_turns_that_workers_answer_are_left_alone_in_a_live_store(store: Store) -> None:
    queue = make_queue(store, lease=60)
    await admit(queue, make_turn(1), make_turn(2))
    await take(queue)

    refused = await end_all(queue, is_live=True)
    left = await queue.load(["console"])
    restored_at = await queue.restored_at()
    await expire_all(store)
    ended = await end_all(queue, is_live=True)

    assert (refused, left.open, restored_at) == (-1, 2, 0)
    assert ended == 2


async def test_a_second_restore_forgets_nothing_of_the_first(store: Store) -> None:
    queue = make_queue(store)

    await end_all(queue)
    await end_all(queue, until=NOW - 3600)

    assert abs(await queue.restored_at() - NOW) < 0.01


def said(text: str, at: float, *, edited_at: float = 0.0, number: int = 1) -> Received:
    key = ThreadKey("slack", "T1", "C1", "1")
    turn = Turn(f"slack:{number}", key, Person("U1", "Ann"), text, {}, at)
    return Received(turn=turn, facts=Facts(calls_bot=True), edited_at=edited_at)


BEFORE: Mapping[str, Received] = {
    "a question": said("why?", NOW - 1),
    "the last thing that was said": said("why?", NOW),
    "a call for help": said("help", NOW - 1),
    "a mention alone": said(" ", NOW - 1),
    "an edit that comes again": said("why?", NOW - 9, edited_at=NOW - 1),
    "an edit of what the store does not know": said("why?", NOW - 9, edited_at=NOW + 1),
}


@pytest.mark.parametrize("what", BEFORE)
async def test_what_was_said_before_a_restore_is_not_received(store: Store, what: str) -> None:
    await end_all(make_queue(store))

    assert type(await NotedIntake(store).receive(BEFORE[what])) is Ignored


async def test_what_is_said_after_a_restore_is_answered(store: Store) -> None:
    known = NotedIntake(store)
    assert isinstance(await known.receive(said("why?", NOW - 9)), Admitted)
    await end_all(make_queue(store))
    intake = NotedIntake(store)

    asked = await intake.receive(said("why not?", NOW + 1, number=2))
    edited = await intake.receive(said("how?", NOW - 9, edited_at=NOW + 1))
    again = await intake.receive(said("what?", NOW - 9, edited_at=NOW - 1))

    assert [type(one) for one in (asked, edited, again)] == [Admitted, Admitted, Ignored]


async def test_without_a_restore_the_oldest_event_is_received(store: Store) -> None:
    assert isinstance(await NotedIntake(store).receive(said("why?", 0.0)), Admitted)


async def test_a_server_that_has_the_bot_again_outlives_a_restore(store: Store) -> None:
    queue = make_queue(store)
    returned, gone = (named("server", "discord", it) for it in ("81", "82"))
    person = named("person", "discord", "u1")
    # In the backup, both servers had removed the bot and Ann asked to be forgotten: long ago.
    for who in (returned, gone, person):
        await queue.forgetting.begin(who)

    await end_all(queue)
    await queue.forgetting.cancel(returned)

    assert await queue.forgetting.claim() == person
    assert await queue.forgetting.claim() is None
    assert await queue.forgetting.is_done(returned)
    due_at = float(await store.command("ZSCORE", store.key("forgetting"), gone)) / 1000
    assert abs(due_at - time.time() - REMOVED_SECONDS) < 600
