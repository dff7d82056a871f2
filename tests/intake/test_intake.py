"""The door: what is kept of a question."""

from __future__ import annotations

import pytest

from bot.domain import Person, Place, ThreadKey, Turn
from bot.errors import HasEnded, NotRemembered
from bot.intake.access import MAX_QUESTION
from bot.intake.intake import Intake
from bot.store import Store
from bot.text.graphemes import CUT
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits
from tests.support.at_work import make_turn, take

KEY = ThreadKey("console", "local", "ann", "t1")


def make_queue(store: Store) -> TurnQueue:
    return TurnQueue(
        store=store, worker="w1", limits=Limits(1, 1, 1, 1), lease_seconds=1, keep_seconds=60
    )


def make_intake(store: Store, queue: TurnQueue) -> Intake:
    return Intake(queue=queue, history=History(store=store, keep_seconds=60))


async def admitted(store: Store, turn: Turn) -> Turn:
    """Admit a turn, and return it as a worker takes it."""
    queue = make_queue(store)
    await make_intake(store, queue).ask(turn)
    return (await take(queue)).turn


async def test_a_question_is_kept_up_to_its_longest(store: Store) -> None:
    text = "h" + "x" * MAX_QUESTION + "t"

    turn = await admitted(store, Turn("console:1", KEY, Person("u1", "Ann"), text, {}, 1000.0))

    kept, left_out = turn.text, turn.left_out
    assert (len(kept), left_out) == (MAX_QUESTION, 2 + len(CUT))
    assert kept[0] + kept[-1] == "ht"
    assert CUT in kept


HALF = "A\ud83d"
WHOLE = "A\ufffd"
JOINED = "\ud83d\ude00"


async def test_a_turn_with_halves_of_characters_is_kept_whole(store: Store) -> None:
    key = ThreadKey("console", "local", HALF, "t1")
    place: Place = {"names": [HALF, {HALF: JOINED}], "count": 3, "is_dm": True, "none": None}

    turn = await admitted(
        store, Turn("console:1", key, Person(HALF, HALF, "T1"), f"{HALF}?", place, 1000.0)
    )

    assert turn == Turn(
        "console:1",
        ThreadKey("console", "local", "A?", "t1"),
        Person(WHOLE, WHOLE, "T1"),
        f"{WHOLE}?",
        {"names": [WHOLE, {WHOLE: "\U0001f600"}], "count": 3, "is_dm": True, "none": None},
        1000.0,
    )


async def test_what_names_a_turn_with_half_a_character_finds_none(store: Store) -> None:
    intake = make_intake(store, make_queue(store))
    place = ThreadKey("slack", "T1", HALF, HALF)

    await intake.changes.forget(HALF)
    found = [await intake.changes.stop_thread(place), await intake.lookup.thread_of_turn(HALF)]

    assert not any(found)
    with pytest.raises(HasEnded):
        await intake.answers.stop(HALF)
    with pytest.raises(NotRemembered):
        await intake.answers.regenerate(HALF, person_id=HALF, press_id=HALF)


@pytest.mark.parametrize("thread", ["20", "private-20-u1"])
async def test_an_answer_is_stopped_where_it_is_shown(store: Store, thread: str) -> None:
    queue = make_queue(store)
    intake = make_intake(store, queue)
    turn = make_turn(1, key=ThreadKey("console", "1", "10", thread))
    await queue.admit(turn)
    elsewhere, there = (ThreadKey("console", "1", channel, "") for channel in ("30", "10"))

    with pytest.raises(HasEnded):
        await intake.answers.stop(turn.id, at=elsewhere)
    await intake.answers.stop(turn.id, at=there)
