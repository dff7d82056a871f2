"""What the queue makes of presses: whose they are, when they come, and how often."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bot.access.rules import AccessRules
from bot.domain import Asker, ContextMessage, End, Exchange, Outcome, Shown
from bot.errors import (
    HasEnded,
    NotAllowed,
    NotRemembered,
    NotTheAsker,
    NotTheLast,
    PersonBusy,
    Refused,
    ThreadBusy,
)
from bot.intake.answers import GO_ON
from bot.intake.intake import Intake
from bot.store import Store
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits
from tests.support.at_work import (
    ANN,
    BOB,
    KEEP,
    KEY,
    LIMITS,
    due_repair,
    make_queue,
    make_turn,
    take,
)


def make_intake(store: Store, limits: Limits = LIMITS) -> Intake:
    queue = make_queue(store, limits=limits)
    return Intake(queue=queue, history=History(store=store, keep_seconds=KEEP))


async def ended(
    queue: TurnQueue, number: int = 1, *, end: End = "cut", outcome: Outcome = "done"
) -> str:
    """Ask and answer; return the id of the reply that was the newest until then."""
    await queue.admit(make_turn(number))
    taken = await take(queue)
    shown = Shown((f"m{number}",), "One, two", "One, two", outcome=outcome, end=end)
    exchange = Exchange(taken.turn.id, ANN, 1000.0, taken.turn.text, shown.said, model="m")
    return await queue.leases.finish(taken, shown, exchange if outcome == "done" else None)


async def test_a_press_of_continue_that_comes_twice_is_one_turn(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    await ended(queue)

    presses = [
        intake.answers.continue_answer("console:1", person_id="u1", press_id="console:p1")
        for _ in range(2)
    ]
    await asyncio.gather(*presses)
    taken = await take(queue)
    await intake.answers.continue_answer("console:1", person_id="u1", press_id="console:p1")

    expected = replace(make_turn(), id="console:p1", text=GO_ON, asked_at=taken.turn.asked_at)
    assert taken.turn == expected
    assert taken.placed.place == {"above": "m1"}
    assert (await queue.load([])).open == 1


async def test_two_presses_of_continue_at_once_are_one_turn(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    await ended(queue)

    presses = [
        intake.answers.continue_answer("console:1", person_id="u1", press_id=f"console:p{n}")
        for n in (1, 2)
    ]
    results = await asyncio.gather(*presses, return_exceptions=True)

    assert [type(one) for one in results if isinstance(one, Exception)] == [ThreadBusy]
    assert (await queue.load([])).open == 1


async def refused(intake: Intake, person: str = "u1") -> type[Refused] | None:
    try:
        await intake.answers.continue_answer("console:1", person_id=person, press_id="console:p")
    except Refused as error:
        return type(error)
    return None


async def test_continue_is_refused_to_others_and_when_it_comes_late(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    unknown = await refused(intake)
    await ended(queue)
    another = await refused(intake, "u2")
    await ended(queue, 2)
    late = await refused(intake)
    await queue.changes.forget("console:1")
    forgotten = await refused(intake)

    assert unknown is NotRemembered
    assert (another, late, forgotten) == (NotTheAsker, NotTheLast, NotRemembered)
    assert (await queue.load([])).open == 0


@pytest.mark.parametrize("end", ["", "failed"])
async def test_only_a_cut_answer_goes_on(store: Store, end: End) -> None:
    queue, intake = make_queue(store), make_intake(store)
    await ended(queue, end=end)

    assert await refused(intake) is HasEnded


@pytest.mark.parametrize("runs", [True, False])
async def test_what_continues_an_answer_is_forgotten_with_its_question(
    runs: bool, store: Store
) -> None:
    queue, history = make_queue(store), History(store=store, keep_seconds=KEEP)
    await ended(queue)
    await make_intake(store).answers.continue_answer(
        "console:1", person_id="u1", press_id="console:p"
    )
    taken = await take(queue)
    exchange = Exchange("console:p", ANN, 1000.0, GO_ON, "three")

    if runs:
        await queue.changes.forget("console:1")
        assert await queue.leases.renew(taken)
    await queue.leases.finish(taken, Shown(("m2",), "three", "three", outcome="done"), exchange)
    await queue.changes.forget("console:1")

    assert await history.read(KEY) == []


async def test_continue_counts_as_a_question_of_its_person(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store, replace(LIMITS, waiting_per_person=1))
    await ended(queue)
    await queue.admit(make_turn(2, thread="t2"))

    assert await refused(intake) is PersonBusy


async def test_an_answer_is_older_once_another_of_its_thread_has_ended(store: Store) -> None:
    queue = make_queue(store)
    first = await ended(queue)
    await queue.admit(make_turn(9))
    taken = await take(queue)
    before = await queue.lookup.result("console:1")
    shown = Shown(("m9",), "Sorry", outcome="failed", end="failed")

    followed = await queue.leases.finish(taken, shown, None)
    repeated = await queue.leases.finish(taken, shown, None)

    after, last = await queue.lookup.result("console:1"), await queue.lookup.result("console:9")
    assert (first, followed, repeated) == ("", "console:1", "")
    assert [one and one.end for one in (before, after, last)] == ["cut", "older", "failed"]


async def test_a_reply_that_shows_nothing_makes_none_older(store: Store) -> None:
    queue = make_queue(store)
    await ended(queue)
    await queue.admit(make_turn(2))
    taken = await take(queue)

    followed = await queue.leases.finish(taken, Shown(outcome="failed", end="failed"), None)

    result = await queue.lookup.result("console:1")
    assert followed == ""
    assert result
    assert result.end == "cut"


async def test_an_edited_answer_above_a_failed_one_is_the_older(store: Store) -> None:
    queue = make_queue(store)
    await ended(queue)
    await ended(queue, 2, end="failed", outcome="failed")

    above = await answered_anew(queue, "edited")
    results = [await queue.lookup.result(f"console:{number}") for number in (1, 2)]
    await queue.changes.forget("console:2")
    alone = await answered_anew(queue, "edited again")

    last = await queue.lookup.result("console:1")
    # The repair of the forgotten one takes its buttons away.
    assert (above, alone) == ("console:1", "")
    assert [one and one.end for one in (*results, last)] == ["older", "failed", "cut"]


async def answered_anew(queue: TurnQueue, text: str) -> str:
    """Edit the first question and answer it; return the id of the reply that is older now."""
    await queue.edit(make_turn(text=text), edited_at=2000.0)
    taken = await take(queue)
    shown = Shown(("m1",), "Anew", "Anew", outcome="done", end="cut")
    exchange = Exchange(taken.turn.id, ANN, 1000.0, text, "Anew")
    return await queue.leases.finish(taken, shown, exchange)


async def test_an_edited_answer_below_which_none_can_be_retried_is_the_newest(
    store: Store,
) -> None:
    queue = make_queue(store)
    await ended(queue, 1, end="failed", outcome="failed")
    await ended(queue, 2, end="failed", outcome="failed")

    followed = await answered_anew(queue, "edited")

    results = [await queue.lookup.result(f"console:{number}") for number in (1, 2)]
    assert followed == "console:2"
    assert [one and one.end for one in results] == ["cut", "older"]


async def test_a_turn_that_continues_is_alone_and_has_no_quote(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    quote = ContextMessage("console:0", BOB, "What?")
    asked = replace(make_turn(), quote=quote, joins=True, left_out=7, where="#c", zone="Asia/Tokyo")
    await queue.admit(asked)
    taken = await take(queue)
    shown = Shown(("m1",), "One", "One", outcome="done", end="cut")
    exchange = Exchange("console:1", ANN, 1000.0, "question 1", "One", quote)
    await queue.leases.finish(taken, shown, exchange)

    await intake.answers.continue_answer("console:1", person_id="u1", press_id="console:p1")
    await queue.admit(replace(make_turn(2), joins=True))
    following = (await take(queue)).turn

    alone = replace(asked, quote=None, joins=False, left_out=0, place={"refers": True})
    now = following.asked_at
    assert following == replace(alone, id="console:p1", text=GO_ON, asked_at=now)


async def test_a_stop_of_joined_questions_is_for_their_asker(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    for number in (1, 2):
        await queue.admit(replace(make_turn(number), joins=True))
    taken = await take(queue)

    with pytest.raises(NotTheAsker):
        await intake.answers.stop("console:2", person_id="u2")
    before = await queue.leases.renew(taken)
    await intake.answers.stop("console:2", person_id="u1")

    assert not before
    assert await queue.leases.renew(taken)


async def test_a_rating_waits_for_an_answer_that_is_about_to_end(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    await queue.admit(make_turn())
    taken = await take(queue)
    with pytest.raises(ThreadBusy):
        await queue.changes.rate("console:1", person_id="u2", rating="good")

    rating = asyncio.create_task(intake.answers.rate("console:1", person_id="u2", rating="good"))
    exchange = Exchange("console:1", ANN, 1000.0, "question 1", "Hi")
    await queue.leases.finish(taken, Shown(("m1",), "Hi", "Hi", outcome="done"), exchange)
    await rating

    assert await queue.changes.rate("console:1", person_id="u2", rating="bad") == ("", False)


async def test_a_rating_leaves_the_rest_of_its_exchange(store: Store) -> None:
    queue, history = make_queue(store), History(store=store, keep_seconds=KEEP)
    quote = ContextMessage("console:0", None, 'Is it ", "ratings": {"?')
    context = (ContextMessage("console:9", BOB, "It is {so}"),)
    await queue.admit(replace(make_turn(), asked_at=1000.5, quote=quote, context=context))
    taken = await take(queue)
    exchange = Exchange("console:1", ANN, 1000.5, "question 1", "Hi", quote, context, "m")
    await queue.leases.finish(taken, Shown(("m1",), "Hi", "Hi", outcome="done"), exchange)

    rated = [
        await queue.changes.rate("console:1", person_id=one, rating="good")
        for one in ("u1", "u2", "u1")
    ]

    assert rated == [("m", True), ("m", True), ("m", False)]
    assert await history.read(KEY) == [exchange]
    assert await ratings(store) == {"u1": "good", "u2": "good"}


async def test_a_crowd_rates_an_answer_up_to_a_limit_and_may_change_its_mind(store: Store) -> None:
    queue = make_queue(store)
    await ended(queue)
    for number in range(201):
        await queue.changes.rate("console:1", person_id=f"u{number}", rating="good")

    for one in ("u0", "u200"):
        await queue.changes.rate("console:1", person_id=one, rating="bad")

    found = await ratings(store)
    assert (len(found), found["u0"], found.get("u200")) == (200, "bad", None)


async def ratings(store: Store) -> dict[str, str]:
    return dict(await store.command("HGETALL", store.key("ratings", "console:1")))


async def test_a_stop_is_for_the_asker_and_for_who_may_stop_all(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    await queue.admit(make_turn())

    with pytest.raises(NotTheAsker):
        await intake.answers.stop("console:1", person_id="u2")
    assert not (await take(queue)).stop
    await intake.answers.stop("console:1", person_id="u1")
    await intake.answers.stop("console:1")
    with pytest.raises(HasEnded):
        await intake.answers.stop("console:7", person_id="u2")


async def test_a_rating_is_for_those_who_may_use_the_bot_there(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    await ended(queue)
    await intake.answers.rate("console:1", person_id="u2", rating="good")
    intake.access.rules = AccessRules(blocked=frozenset({"u2"}), roles=frozenset({"r1"}))

    with pytest.raises(NotAllowed):
        await intake.answers.rate("console:1", person_id="u2", rating="bad")
    with pytest.raises(NotAllowed):
        await intake.answers.rate("console:1", person_id="u3", rating="bad")
    await intake.answers.rate("console:1", person_id="u3", rating="bad", asker=Asker(roles=("r1",)))
    await intake.answers.rate("console:1", person_id="u2", rating="")

    assert await ratings(store) == {"u2": "", "u3": "bad"}


async def test_a_rating_is_forgotten_with_its_exchange(store: Store) -> None:
    queue, intake = make_queue(store), make_intake(store)
    await ended(queue)
    await intake.answers.rate("console:1", person_id="u2", rating="good")
    kept = await ratings(store)

    await queue.changes.forget("console:1")

    assert (kept, await ratings(store)) == ({"u2": "good"}, {})
    with pytest.raises(NotRemembered):
        await intake.answers.rate("console:1", person_id="u2", rating="good")
    with pytest.raises(NotRemembered):
        await intake.answers.rate("console:5", person_id="u2", rating="good")


async def test_the_reply_above_a_forgotten_one_is_the_newest_again(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2, 3):
        await ended(queue, number)

    await queue.changes.forget("console:2")
    untouched = await queue.repairs.claim("console", seconds=60)
    await queue.changes.forget("console:3")
    repairs = [await due_repair(queue) for _ in range(2)]
    above = await queue.lookup.result("console:1")

    assert untouched is None
    assert {one.turn.id: one.late_writes for one in repairs} == {
        "console:1": ("m1",),
        "console:3": ("m3",),
    }
    assert above
    assert above.end == "cut"
    await queue.changes.regenerate("console:1", person_id="u1", press_id="p1")


async def test_a_stopped_reply_to_a_deleted_question_is_no_newest_one(store: Store) -> None:
    queue = make_queue(store)
    await ended(queue)
    await queue.admit(make_turn(2))
    taken = await take(queue)
    await queue.changes.forget("console:2")

    shown = Shown(("m2",), "Half", "Half", outcome="stopped")
    older = await queue.leases.finish(taken, shown, None)

    stopped, above = await queue.lookup.result("console:2"), await queue.lookup.result("console:1")
    assert older == "console:2"
    assert stopped
    assert above
    assert (stopped.end, above.end) == ("older", "cut")


async def test_a_retry_that_fails_above_a_forgotten_reply_keeps_its_buttons(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2):
        await ended(queue, number, outcome="failed", end="failed")
    await queue.changes.forget("console:2")

    await queue.changes.regenerate("console:1", person_id="u1", press_id="p1")
    failed = Shown(("m1",), "Sorry.", outcome="failed", end="failed")
    await queue.leases.finish(await take(queue), failed, None)

    result = await queue.lookup.result("console:1")
    assert result
    assert result.end == "failed"


async def test_a_reply_whose_thread_was_reset_has_no_buttons(store: Store) -> None:
    queue = make_queue(store)
    await ended(queue)

    await queue.changes.reset(KEY, "event")

    result = await queue.lookup.result("console:1")
    assert result
    assert result.end == "older"
