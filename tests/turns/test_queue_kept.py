"""What is kept of turns that have ended: each question once, and of one person only so much."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from bot.domain import ContextMessage, Place, Shown, Turn
from bot.errors import NotRemembered
from bot.store import Store
from bot.turns.queue import TurnQueue
from tests.turns.test_queue import (
    BOB,
    ELSEWHERE,
    KEY,
    LIMITS,
    answered,
    exchanges,
    finish,
    grown,
    history,
    make_queue,
    make_turn,
    press,
    take,
)

LONG = "q" * 40_000
STRANGE = (
    """A "quote", C:\\path, a/b, </script>, \t, \x00, \x7f, \u2028, ü, 你好, 👩‍🚀", "text": "no"}"""
)
PLACE: Place = {"id": 1_234_567_890_123_456_789, "parts": [], "more": {"text": None, "at": 0.1}}
OUTLINE = 3000  # bytes, of a turn without long texts


async def ended(queue: TurnQueue, turn: Turn, *, answer: str = "answer") -> None:
    await queue.admit(turn)
    await finish(queue, await take(queue), answer=answer)


async def places_of(store: Store, text: str) -> list[str]:
    """Return the kinds of keys in which a text stands."""
    found = []
    for name in await store.command("KEYS", store.key("*")):
        kind = await store.command("TYPE", name)
        if kind == "hash":
            value = await store.command("HGETALL", name)
        elif kind == "list":
            value = await store.command("LRANGE", name, 0, -1)
        else:
            continue
        if text in str(value):
            found.append(name.removeprefix(store.key("")).partition(":")[0])
    return sorted(found)


async def size(store: Store, kind: str, name: str) -> int:
    return int(await store.command("MEMORY", "USAGE", store.key(kind, name), "SAMPLES", 0))


async def test_a_question_that_was_answered_is_kept_once(store: Store) -> None:
    queue = make_queue(store)

    await ended(queue, replace(make_turn(1), text=LONG))

    assert await places_of(store, LONG) == ["turn"]
    assert await size(store, "turn", "console:1") < OUTLINE + len(LONG)


async def test_a_question_that_is_answered_anew_is_the_same_to_the_last_bit(store: Store) -> None:
    queue = make_queue(store)
    turn = replace(make_turn(1), text=STRANGE, place=PLACE, asked_at=1763800000.123456, left_out=7)
    await ended(queue, turn)

    await press(queue, 1)
    taken = await take(queue)
    await finish(queue, taken, answer="better")
    await press(queue, 1, press_id="p2")

    assert taken.turn == turn
    assert (await take(queue)).turn == turn


async def test_a_question_that_got_no_word_can_be_asked_again(store: Store) -> None:
    queue = make_queue(store)
    await ended(queue, replace(make_turn(1), text=LONG), answer="")

    await press(queue, 1)

    assert (await take(queue)).turn.text == LONG


async def test_a_question_whose_previous_answer_stays_is_kept_once(store: Store) -> None:
    queue = make_queue(store)
    await ended(queue, replace(make_turn(1), text=LONG))
    await press(queue, 1)

    await queue.leases.finish(await take(queue), Shown(("m1",), "Sorry.", outcome="failed"), None)

    assert await places_of(store, LONG) == ["turn"]
    await press(queue, 1, press_id="p2")
    assert (await take(queue)).turn.text == LONG


@pytest.mark.parametrize("when", ["waiting", "running", "answered", "without a word"])
async def test_a_deleted_question_is_nowhere(store: Store, when: str) -> None:
    queue = make_queue(store)
    await queue.admit(replace(make_turn(1), text=LONG))
    taken = await take(queue) if when != "waiting" else None
    if taken and when != "running":
        await finish(queue, taken, answer="answer" if when == "answered" else "")

    await queue.changes.forget("console:1")
    if taken and when == "running":
        await finish(queue, taken, outcome="stopped")

    assert await places_of(store, LONG) == []


async def test_a_turn_is_told_again_after_its_end_and_changes_nothing(store: Store) -> None:
    queue = make_queue(store)
    turn = replace(make_turn(1), text=STRANGE, place=PLACE)
    await ended(queue, turn)

    assert await queue.admit(turn)
    assert not await queue.admit(replace(turn, place={}))
    assert (await queue.load([])).open == 0


async def test_without_a_history_a_question_is_answered_once_though_its_record_is_gone(
    store: Store,
) -> None:
    queue = make_queue(store, history=0)
    await ended(queue, make_turn(1))

    await store.command("DEL", store.key("turn", "console:1"))

    assert not await queue.admit(make_turn(1))
    await queue.edit(replace(make_turn(1), asked_at=time.time()), edited_at=time.time())
    assert (await queue.load([])).open == 0


async def test_of_a_person_who_asks_without_end_the_last_turns_are_kept(store: Store) -> None:
    queue = make_queue(store, person_bytes=10_000)
    await ended(queue, make_turn(1, person=BOB))
    await ended(queue, make_turn(2, key=ELSEWHERE), answer="")
    await answered(queue, *range(3, 8))
    before = await history(store)

    await answered(queue, 8, 9)

    assert before == ["console:1", *(f"console:{n}" for n in range(3, 8))]
    # Ann's oldest went; Bob's stays.
    assert await history(store) == ["console:1", *(f"console:{n}" for n in range(5, 10))]
    with pytest.raises(NotRemembered):
        await press(queue, 2)
    assert await size(store, "turn", "console:3") < 200
    assert not await queue.admit(make_turn(3))
    assert await queue.lookup.result("console:3") is None


async def test_what_one_person_has_kept_is_bounded_however_long_the_questions_are(
    store: Store,
) -> None:
    queue = make_queue(store, person_bytes=200_000, history_bytes=100_000)

    for number in range(30):
        turn = replace(make_turn(number, key=replace(KEY, thread=f"t{number}")), text=LONG)
        # Every third fails.
        await ended(queue, turn, answer="answer" if number % 3 else "")

    names = await store.command("KEYS", store.key("*"))
    used = [await store.command("MEMORY", "USAGE", name, "SAMPLES", 0) for name in names]
    # The newest turn comes on top.
    assert 160_000 < sum(used) < 300_000


async def test_the_messages_of_turns_that_are_no_longer_kept_lead_nowhere(store: Store) -> None:
    queue = make_queue(store, person_bytes=5000)

    for number in range(1, 5):
        await queue.admit(make_turn(number))
        shown = Shown((f"m{number}", f"n{number}"), "answer", "answer", outcome="done")
        await queue.leases.finish(await take(queue), shown, None)

    threads = [
        await queue.lookup.thread_of("console", f"{kind}{n}") for n in (1, 4) for kind in "mn"
    ]
    assert threads == [None, None, KEY, KEY]


async def test_a_thread_lists_no_turns_that_have_expired(store: Store) -> None:
    queue, name = make_queue(store), store.key("turns", str(KEY))
    await ended(queue, make_turn(1))
    await store.command("ZADD", name, 1, "console:1")

    await ended(queue, make_turn(2))

    assert await store.command("ZRANGE", name, 0, -1) == ["console:2"]


async def test_without_a_history_a_context_expires_with_its_turn(store: Store) -> None:
    queue = TurnQueue(
        store=store,
        worker="w1",
        limits=replace(LIMITS, history=0),
        lease_seconds=1,
        keep_seconds=3600,
    )
    quote = ContextMessage("console:0", BOB, "Deploy?")
    await ended(queue, replace(make_turn(1), quote=quote))

    names = [store.key(kind, "console:1") for kind in ("turn", "context")]
    left = [await store.command("TTL", name) for name in names]
    assert all(0 < one <= 63 for one in left), left


async def test_an_answer_written_anew_is_as_new_as_that(store: Store) -> None:
    queue = make_queue(store, person_bytes=7000)
    await ended(queue, make_turn(1))
    await answered_elsewhere(queue, 2)
    await press(queue, 1)
    await finish(queue, await take(queue), answer="new")

    await answered_elsewhere(queue, 3)
    await answered_elsewhere(queue, 4)

    assert await exchanges(store) == [("console:1", "new")]


async def test_an_answer_that_is_being_written_anew_keeps_its_record(store: Store) -> None:
    queue = make_queue(store, person_bytes=2000)
    await ended(queue, replace(make_turn(1), text=LONG))
    await press(queue, 1)
    taken = await take(queue)

    await answered_elsewhere(queue, 2)
    await queue.leases.save(taken, grown("new", "m1"))
    await finish(queue, taken, answer="new")

    assert taken.previous_answer == "answer"
    assert await exchanges(store) == [("console:1", "new")]


async def test_an_answer_that_is_written_anew_in_vain_counts_once(store: Store) -> None:
    queue = make_queue(store, person_bytes=7000)
    await answered_elsewhere(queue, 2)
    await ended(queue, make_turn(1))

    for number in range(5):
        await press(queue, 1, press_id=f"p{number}")
        await queue.leases.finish(
            await take(queue), Shown(("m1",), "Sorry.", outcome="failed"), None
        )

    assert await queue.lookup.result("console:2")


async def test_a_turn_that_is_to_be_repaired_keeps_its_record(store: Store) -> None:
    queue = make_queue(store, person_bytes=3000)
    await queue.admit(make_turn(1))
    await queue.leases.release(await take(queue), delay_seconds=0, counts=True)
    await finish(queue, await take(queue))
    await queue.repairs.report_late_writes(make_turn(1), ["m2"])

    await answered_elsewhere(queue, 2)
    await answered_elsewhere(queue, 3)

    repair = await queue.repairs.claim("console", seconds=60)
    assert repair
    assert (repair.turn.id, repair.late_writes) == ("console:1", ("m2",))
    assert await queue.lookup.result("console:1")


async def answered_elsewhere(queue: TurnQueue, number: int) -> None:
    await ended(queue, make_turn(number, key=replace(KEY, thread=f"t{number}")))
