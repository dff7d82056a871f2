"""The queue: admitted once, worked on by one, in order, and never lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bot.domain import Exchange, Outcome, Person, Purpose, Shown, ThreadKey, Turn
from bot.errors import LeaseLost, PersonBusy, QueueFull, StoreUnavailable, ThreadBusy
from bot.intake.intake import Intake
from bot.store import Store, connect
from bot.turns.queue import Taken, TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits
from tests.support.at_work import expire_all

KEY = ThreadKey("console", "local", "ann", "t1")
ELSEWHERE = ThreadKey("console", "local", "ann", "t2")
ANN = Person("u1", "Ann")
LEASE = 60  # seconds
LIMITS = Limits(waiting_per_thread=5, waiting_per_person=8, waiting=20, running_per_person=2)


def make_turn(number: int, *, key: ThreadKey = KEY, person: Person = ANN) -> Turn:
    return Turn(f"console:{number}", key, person, f"question {number}", {"n": number}, 1000.0)


def make_queue(store: Store, worker: str = "w1", /, **limits: int) -> TurnQueue:
    return TurnQueue(
        store=store,
        worker=worker,
        limits=replace(LIMITS, **limits),
        lease_seconds=LEASE,
        keep_seconds=60,
    )


def grown(text: str, *message_ids: str) -> Shown:
    """A text that stands in messages and still grows."""
    return Shown(message_ids, text, text)


async def take(queue: TurnQueue) -> Taken:
    taken = await queue.leases.take(["console"])
    assert isinstance(taken, Taken)
    return taken


async def nothing_to_take(queue: TurnQueue) -> bool:
    return not isinstance(await queue.leases.take(["console"]), Taken)


async def first_to_take(queue: TurnQueue) -> str:
    return (await take(queue)).turn.id


async def finish(
    queue: TurnQueue,
    taken: Taken,
    *,
    answer: str = "answer",
    outcome: Outcome = "done",
    message_ids: tuple[str, ...] = ("m1",),
) -> None:
    turn = taken.turn
    exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, answer)
    shown = Shown(message_ids, answer, answer, outcome=outcome)
    await queue.leases.finish(taken, shown, exchange if answer else None)


async def taken_and_ended(queue: TurnQueue) -> str:
    taken = await take(queue)
    await finish(queue, taken)
    return taken.turn.id


async def taken_again(queue: TurnQueue) -> Taken:
    """Take a turn whose worker has died."""
    await expire_all(queue.leases.store)
    return await take(queue)


async def history(store: Store) -> list[str]:
    return [turn_id for turn_id, _ in await exchanges(store)]


async def exchanges(store: Store) -> list[tuple[str, str]]:
    read = await History(store=store, keep_seconds=60).read(KEY)
    return [(exchange.turn_id, exchange.answer) for exchange in read]


async def answered(queue: TurnQueue, *numbers: int, answer: str = "answer") -> None:
    for number in numbers:
        await queue.admit(make_turn(number))
        await finish(queue, await take(queue), answer=answer)


async def press(
    queue: TurnQueue, number: int, *, person: str = ANN.id, press_id: str = "p1"
) -> None:
    await queue.changes.regenerate(f"console:{number}", person_id=person, press_id=press_id)


async def test_a_turn_comes_out_as_it_went_in(store: Store) -> None:
    queue = make_queue(store)
    turn = replace(make_turn(1), place={"a": ["ü", 1, None, True], "b": {}})

    await queue.admit(turn)
    taken = await take(queue)

    assert taken == Taken(
        turn=turn, fence=1, attempts=1, shown=Shown(), stop=False, previous_answer=""
    )


async def test_a_turn_admitted_twice_at_once_is_one_turn(store: Store) -> None:
    queue = make_queue(store)

    answers = await asyncio.gather(*(queue.admit(make_turn(1)) for _ in range(10)))

    # Each may be the one whose answer was lost.
    assert answers == [True] * 10
    assert (await queue.load([])).open == 1


async def test_another_turn_of_the_same_id_is_refused(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))

    admitted = await queue.admit(replace(make_turn(1), place={"elsewhere": True}))

    assert not admitted
    assert (await take(queue)).turn == make_turn(1)


async def test_a_turn_that_ended_is_still_known(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await finish(queue, await take(queue))

    await queue.admit(make_turn(1))

    assert (await queue.load([])).open == 0
    assert await nothing_to_take(queue)


async def test_a_thread_has_one_turn_at_work_and_keeps_its_order(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2, 3):
        await queue.admit(make_turn(number))

    order = []
    while isinstance(taken := await queue.leases.take(["console"]), Taken):
        assert await nothing_to_take(queue)
        order.append(taken.turn.id)
        await finish(queue, taken)

    assert order == ["console:1", "console:2", "console:3"]
    assert await history(store) == order


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        ({"waiting_per_thread": 2}, ThreadBusy),
        ({"waiting_per_person": 2}, PersonBusy),
        ({"waiting": 2}, QueueFull),
    ],
)
async def test_a_limit_refuses_and_stores_nothing(
    store: Store, limits: dict[str, int], refusal: type[Exception]
) -> None:
    queue = make_queue(store, **limits)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2))

    with pytest.raises(refusal):
        await queue.admit(make_turn(3))

    assert (await queue.load([])).open == 2
    await finish(queue, await take(queue))
    assert await queue.admit(make_turn(3))


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [({"waiting_per_person": 1}, PersonBusy), ({"waiting": 1}, QueueFull)],
)
async def test_a_limit_is_told_before_there_is_a_turn(
    store: Store, limits: dict[str, int], refusal: type[Exception]
) -> None:
    queue, turn = make_queue(store, **limits), make_turn(1)
    await queue.check_room(turn)
    await queue.admit(turn)

    with pytest.raises(refusal):
        await queue.check_room(turn)

    await finish(queue, await take(queue))
    await queue.check_room(turn)


async def test_a_person_runs_no_more_turns_than_the_cap(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    other = replace(KEY, thread="t2")
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2, key=other))
    await queue.admit(make_turn(3, key=replace(KEY, thread="t3"), person=Person("u2", "Bob")))

    first = await take(queue)
    of_somebody_else = await take(queue)

    assert of_somebody_else.turn.id == "console:3"
    assert await nothing_to_take(queue)
    await finish(queue, first)
    assert (await take(queue)).turn.id == "console:2"


@pytest.mark.parametrize("is_looked_at_before", [True, False])
async def test_nobody_waits_in_a_thread_for_what_another_has_asked_elsewhere(
    store: Store, is_looked_at_before: bool
) -> None:
    queue = make_queue(store, running_per_person=1)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2, key=ELSEWHERE))
    first = await take(queue)
    if is_looked_at_before:
        assert await nothing_to_take(queue)
    await queue.admit(make_turn(3, key=ELSEWHERE))
    if is_looked_at_before:
        assert await nothing_to_take(queue)

    await queue.admit(make_turn(4, key=ELSEWHERE, person=Person("u2", "Bob")))

    for expected in (2, 3, 4):
        before = await take(queue)
        assert before.turn.id == f"console:{expected}"
        await finish(queue, before)
    await finish(queue, first)
    assert await nothing_to_take(queue)


async def test_nobody_waits_for_an_answer_anew_that_waits_for_its_person(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    await queue.admit(make_turn(1, key=ELSEWHERE))
    await finish(queue, await take(queue))
    await queue.admit(make_turn(2))
    await take(queue)
    await press(queue, 1)
    assert await nothing_to_take(queue)

    await queue.admit(make_turn(3, key=ELSEWHERE, person=Person("u2", "Bob")))

    assert await first_to_take(queue) == "console:1"


async def test_a_capped_turn_wakes_when_the_running_one_goes_back(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2, key=replace(KEY, thread="t2")))
    first = await take(queue)
    assert await nothing_to_take(queue)

    await queue.leases.release(first, delay_seconds=30, counts=True)

    assert (await take(queue)).turn.id == "console:2"


async def test_the_oldest_of_those_that_wait_for_their_person_is_next(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    for number in (1, 2, 3):
        await queue.admit(make_turn(number, key=replace(KEY, thread=f"t{number}")))
    first = await take(queue)
    assert await nothing_to_take(queue)

    await finish(queue, first)

    assert await first_to_take(queue) == "console:2"


async def test_who_asks_once_does_not_wait_for_all_that_another_asks(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2, 3, 4):
        await queue.admit(make_turn(number, key=replace(KEY, thread=f"t{number}")))
    bob = Person("u2", "Bob")
    await queue.admit(make_turn(5, key=replace(KEY, thread="t5"), person=bob))

    order = [await taken_and_ended(queue) for _ in range(5)]

    assert order == [f"console:{number}" for number in (1, 5, 2, 3, 4)]


async def test_whose_turn_stood_behind_another_in_its_thread_has_not_lost_its_place(
    store: Store,
) -> None:
    queue, people = make_queue(store), [Person(f"u{number}", "P") for number in range(4)]
    await queue.admit(make_turn(1, person=people[0]))
    await queue.admit(make_turn(2, person=people[1]))
    for number in (3, 4):
        key = replace(KEY, thread=f"t{number}")
        await queue.admit(make_turn(number, key=key, person=people[number - 1]))

    order = [await taken_and_ended(queue) for _ in range(4)]

    assert order == [f"console:{number}" for number in (1, 2, 3, 4)]


async def test_a_turn_that_was_handed_over_is_first_again(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.admit(make_turn(2, key=ELSEWHERE, person=Person("u2", "Bob")))

    await queue.leases.release(taken, delay_seconds=0, counts=False)

    assert await first_to_take(queue) == "console:1"


async def test_a_worker_takes_what_a_dead_one_left_and_nothing_that_others_still_hold(
    store: Store,
) -> None:
    owner, dead, finder = (
        make_queue(store, "owner"),
        make_queue(store, "dead"),
        make_queue(store, "finder"),
    )
    for number in range(16):
        await owner.admit(
            make_turn(
                number, key=replace(KEY, thread=f"t{number}"), person=Person(f"{number}", "P")
            )
        )
    held = [await take(owner) for _ in range(15)]
    lost = await take(dead)
    await expire_all(store)
    for taken in held:
        await owner.leases.renew(taken)

    again = await take(finder)

    assert again.turn == lost.turn
    assert await nothing_to_take(finder)


async def test_the_platforms_are_asked_in_the_given_order(store: Store) -> None:
    queue = make_queue(store)
    for number, platform in enumerate(("console", "slack", "slack")):
        key = replace(KEY, platform=platform, thread=f"t{number}")
        await queue.admit(replace(make_turn(number, key=key), id=f"{platform}:{number}"))

    found = [await queue.leases.take(["web", "slack", "console"]) for _ in range(3)]

    platforms = [one.turn.key.platform for one in found if isinstance(one, Taken)]
    assert platforms == ["slack", "slack", "console"]


async def test_without_a_turn_it_is_known_how_long_to_wait(store: Store) -> None:
    queue, seconds = make_queue(store), []
    seconds.append(await queue.leases.take(["console"]))
    await queue.admit(make_turn(1))
    taken = await take(queue)
    seconds.append(await queue.leases.take(["console"]))
    await queue.leases.release(taken, delay_seconds=20, counts=True)
    seconds.append(await queue.leases.take(["web", "console"]))

    assert seconds == [86400, pytest.approx(LEASE, abs=10), pytest.approx(20, abs=10)]


async def test_what_is_due_is_left_to_its_worker_while_that_may_renew_it(store: Store) -> None:
    owner, other = make_queue(store, "owner"), make_queue(store, "other")
    await owner.admit(make_turn(1))
    taken = await take(owner)
    await expire_all(store)

    assert await other.leases.take(["console"], holds_due=True) == 0

    await owner.leases.renew(taken)
    assert await nothing_to_take(other)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_who_waits_is_woken_by_what_can_be_taken(
    store: Store, tmp_path: Path, protocol: int
) -> None:
    queue = make_queue(store)
    prefix = store.key("").partition(":")[0]
    url = f"{store.url}?protocol={protocol}"
    async with connect(url=url, data_dir=tmp_path, prefix=prefix) as there:
        waiting = asyncio.create_task(make_queue(there).leases.wait(["web", "console"], 30))
        await asyncio.sleep(0.1)

        await queue.admit(make_turn(1))

        async with asyncio.timeout(20):
            await waiting
        assert (await take(make_queue(there))).turn == make_turn(1)


async def test_wakes_of_turns_that_were_taken_wake_nobody(store: Store) -> None:
    queue = make_queue(store, waiting=500, waiting_per_person=500)
    for number in range(150):
        await queue.admit(make_turn(number, key=replace(KEY, thread=f"t{number}"), person=BOB))
    wakes = await store.command("LLEN", store.key("wake", "console"))

    while not await nothing_to_take(queue):
        pass

    assert wakes == 100
    assert await store.command("LLEN", store.key("wake", "console")) == 0


async def test_a_turn_that_cannot_be_read_makes_way_for_the_next(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2))
    await store.command("HSET", store.key("turn", "console:1"), "place", "[]")

    assert (await take(queue)).turn.id == "console:2"


async def test_back_repeated_after_a_lost_answer_changes_nothing(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await queue.leases.release(taken, delay_seconds=0, counts=False)
    await queue.leases.release(taken, delay_seconds=0, counts=False)

    assert (await take(queue)).attempts == 1
    assert await nothing_to_take(queue)


async def test_who_has_a_turn_stands_in_its_record(store: Store) -> None:
    queue = make_queue(store, "ours")
    await queue.admit(make_turn(1))

    await take(queue)

    assert await store.command("HGET", store.key("turn", "console:1"), "worker") == "ours"


async def test_a_dead_workers_turn_is_taken_with_a_higher_fence(store: Store) -> None:
    dead, alive = make_queue(store, "dead"), make_queue(store, "alive")
    await dead.admit(make_turn(1))
    first = await take(dead)
    await dead.leases.save(first, grown("half", "m1"))

    second = await taken_again(alive)

    assert (second.fence, second.attempts) == (2, 2)
    assert (first.purpose, second.purpose) == (Purpose.ANSWER, Purpose.RESUME)
    assert second.shown == grown("half", "m1")


async def test_a_turn_that_gets_further_each_time_is_not_given_up(store: Store) -> None:
    queue, tries = make_queue(store), []
    await queue.admit(make_turn(1))

    taken = await take(queue)
    for shown in ("One", "One", "One two", "Uno dos", "One two three"):
        await queue.leases.save(taken, grown(shown, "m1"))
        # Its worker is killed here.
        taken = await taken_again(queue)
        tries.append(taken.attempts)

    assert tries == [2, 3, 2, 3, 2]


@pytest.mark.parametrize(
    ("pages", "tries"),
    [
        # Another first text each time, of which none was posted.
        (["", "", "", ""], [2, 3, 4, 5]),
        # Another answer each time, of which only the second shows more than all before it.
        (["m1", "m1", "m1", "m1"], [2, 2, 3, 4]),
    ],
)
async def test_a_turn_that_gets_no_further_is_given_up_however_its_answers_differ(
    store: Store, pages: list[str], tries: list[int]
) -> None:
    queue, counted = make_queue(store), []
    await queue.admit(make_turn(1))

    taken = await take(queue)
    for page, shown in zip(pages, ("One", "One two three", "One", "One two"), strict=True):
        for length in (1, len(shown)):
            ids = [page] if page else []
            await queue.leases.save(taken, grown(shown[:length], *ids))
        taken = await taken_again(queue)
        counted.append(taken.attempts)

    assert counted == tries


async def taken_over(late: TurnQueue, owner: TurnQueue) -> tuple[Taken, Taken]:
    """Return a turn as the first worker had it, and as the second has it now."""
    await late.admit(make_turn(1))
    lost = await take(late)
    return lost, await taken_again(owner)


async def test_a_lost_fence_refuses_every_write(store: Store) -> None:
    late, owner = make_queue(store, "late"), make_queue(store, "owner")
    lost, held = await taken_over(late, owner)

    with pytest.raises(LeaseLost):
        await late.leases.renew(lost)
    with pytest.raises(LeaseLost):
        await late.leases.save(lost, grown(""))
    with pytest.raises(LeaseLost):
        await finish(late, lost)
    with pytest.raises(LeaseLost):
        await late.leases.release(lost, delay_seconds=0, counts=True)

    await finish(owner, held)
    assert await history(store) == ["console:1"]


async def test_who_is_late_does_not_take_the_end_that_another_stored_for_its_own(
    store: Store,
) -> None:
    late, owner = make_queue(store, "late"), make_queue(store, "owner")
    lost, held = await taken_over(late, owner)

    await owner.leases.release(held, delay_seconds=0, counts=True)
    with pytest.raises(LeaseLost):
        await late.leases.release(lost, delay_seconds=0, counts=True)
    await finish(owner, await take(owner))
    with pytest.raises(LeaseLost):
        await finish(late, lost)


async def test_a_turn_whose_record_has_expired_makes_way_for_the_next(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2))
    await store.command("DEL", store.key("turn", "console:1"))

    assert await first_to_take(queue) == "console:2"
    assert (await queue.load([])).open == 1


async def test_a_lease_that_has_ended_is_renewed_until_another_worker_takes_the_turn(
    store: Store,
) -> None:
    owner, other = make_queue(store, "owner"), make_queue(store, "other")
    await owner.admit(make_turn(1))
    await owner.admit(make_turn(2, key=ELSEWHERE))
    first, second = await take(owner), await take(owner)
    await owner.leases.release(first, delay_seconds=0, counts=True)
    await expire_all(store)
    # The second is ready again, and the first comes before it.
    assert await first_to_take(other) == "console:1"

    await owner.leases.renew(second)

    assert await nothing_to_take(other)


async def test_a_turn_that_was_given_back_is_taken_by_the_worker_that_had_it(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await queue.leases.release(await take(queue), delay_seconds=0, counts=False)

    # The worker still counts it among its own.
    taken = await queue.leases.take(["console"], own=["console:1"])

    assert isinstance(taken, Taken)


async def test_finish_repeated_after_a_lost_answer_changes_nothing(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2))
    taken = await take(queue)

    await finish(queue, taken)
    await finish(queue, taken)

    assert await history(store) == ["console:1"]
    assert (await take(queue)).turn.id == "console:2"
    assert await nothing_to_take(queue)


async def test_a_turn_given_back_comes_again_when_it_is_due(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await queue.leases.release(taken, delay_seconds=1.0, counts=True)

    assert await nothing_to_take(queue)
    async with asyncio.timeout(60):
        while not isinstance(again := await queue.leases.take(["console"]), Taken):
            await queue.leases.wait(["console"], again)
    assert again.attempts == 2


async def test_a_turn_handed_over_at_shutdown_spends_no_attempt(store: Store) -> None:
    old, new = make_queue(store, "old"), make_queue(store, "new")
    await old.admit(make_turn(1))

    await old.leases.release(await take(old), delay_seconds=0, counts=False)
    taken = await take(new)

    # The messages of the first attempt may be there.
    assert (taken.attempts, taken.fence, taken.purpose) == (1, 2, Purpose.RESUME)


async def test_a_turn_that_is_tried_again_later_waits_and_does_not_run(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2, 3):
        await queue.admit(make_turn(number, key=replace(KEY, thread=f"t{number}")))
    await queue.leases.release(await take(queue), delay_seconds=60, counts=True)
    await take(queue)

    load = await queue.load(["console", "slack"])

    assert (load.open, load.waiting, load.running) == (3, 2, {"console": 1, "slack": 0})


BOB, CLEO = Person("u2", "Bob"), Person("u3", "Cleo")


async def test_a_thread_that_one_person_fills_still_takes_a_question_of_each_other(
    store: Store,
) -> None:
    queue = make_queue(store, waiting_per_thread=2)
    asked = [(ANN, 1), (ANN, 2), (BOB, 3), (CLEO, 4)]

    for person, number in asked:
        await queue.admit(make_turn(number, person=person))
    for person in (ANN, BOB):
        with pytest.raises(ThreadBusy):
            await queue.admit(make_turn(5, person=person))

    order = [await taken_and_ended(queue) for _ in asked]
    assert order == [f"console:{number}" for _, number in asked]


async def test_a_thread_takes_no_crowd_without_end(store: Store) -> None:
    queue = make_queue(store, waiting_per_thread=2)
    for number in range(8):
        await queue.admit(make_turn(number, person=Person(f"u{number}", "")))

    with pytest.raises(ThreadBusy):
        await queue.admit(make_turn(8, person=Person("u8", "")))


async def in_servers(queue: TurnQueue, *numbers: int, person: Person = ANN) -> None:
    """Ask in a server for each number."""
    for number in numbers:
        await queue.admit(
            make_turn(number, key=replace(KEY, workspace=f"s{number}"), person=person)
        )


async def test_a_person_fills_the_queue_from_no_number_of_servers(store: Store) -> None:
    queue = make_queue(store, waiting_per_person=2)
    await in_servers(queue, 1, 2)

    with pytest.raises(PersonBusy):
        await in_servers(queue, 3)

    assert (await queue.load([])).open == 2


async def test_a_person_takes_no_more_workers_from_several_servers(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    await in_servers(queue, 1, 2)
    first = await take(queue)

    second_waits = await nothing_to_take(queue)
    await finish(queue, first)

    assert second_waits
    assert await first_to_take(queue) == "console:2"


async def test_nobody_waits_for_what_another_asks_in_many_servers(store: Store) -> None:
    queue = make_queue(store, running_per_person=9)
    await in_servers(queue, 1, 2, 3)
    await in_servers(queue, 4, person=BOB)

    order = [await first_to_take(queue) for _ in range(4)]

    assert order == ["console:1", "console:4", "console:2", "console:3"]


async def test_people_of_one_id_in_two_workspaces_are_two(store: Store) -> None:
    queue = make_queue(store, waiting_per_person=1)
    here, there = replace(ANN, workspace="T1"), replace(ANN, workspace="T2")

    await in_servers(queue, 1, person=here)
    await in_servers(queue, 2, person=there)

    with pytest.raises(PersonBusy):
        await in_servers(queue, 3, person=here)


async def refused(intake: Intake, turn: Turn) -> bool:
    with pytest.raises(PersonBusy) as caught:
        await intake.ask(turn)
    return caught.value.repeated


async def test_a_person_refused_again_at_once_in_a_channel_has_read_why(store: Store) -> None:
    queue = make_queue(store, waiting_per_person=1)
    intake = Intake(queue=queue, history=History(store=store, keep_seconds=60))
    bob, elsewhere = Person("u2", "Bob"), replace(KEY, channel="elsewhere")
    await intake.ask(make_turn(1))
    await intake.ask(make_turn(2, person=bob))

    of_ann = [await refused(intake, make_turn(number)) for number in (3, 4, 5)]
    others = [
        await refused(intake, make_turn(6, person=bob)),
        await refused(intake, make_turn(7, key=elsewhere)),
    ]

    assert of_ann == [False, True, True]
    assert others == [False, False]


async def test_an_ended_turn_tells_what_stands_on_the_screen(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    before = await queue.lookup.result("console:1")

    await finish(queue, taken, answer="the end")
    after = await queue.lookup.result("console:1")

    assert before is None
    assert after
    assert after == Shown(("m1",), "the end", "the end", outcome="done")


WHOLE = Shown(
    ("m1", "m2"),
    "Whole ü.\n\n(Left out.)\n\n(Stopped.)",
    "Whole ü.",
    "(Left out.)",
    "stopped",
)


@pytest.mark.parametrize(
    "shown",
    [
        WHOLE,
        replace(WHOLE, message_ids=()),
        replace(WHOLE, said=""),
        replace(WHOLE, text="Whole ü.", below="", outcome="done"),
        Shown(("m1",), "Half", "Half", "(Left out.)"),
    ],
)
async def test_what_was_saved_is_what_the_next_has(store: Store, shown: Shown) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await queue.leases.save(taken, grown("Wh", "m1"))
    await queue.leases.save(taken, shown)
    await queue.leases.release(taken, delay_seconds=0, counts=True)

    assert (await take(queue)).shown == shown


async def test_a_text_that_grows_again_has_no_end(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await queue.leases.save(taken, WHOLE)
    await queue.leases.save(taken, grown("Half", "m1"))
    await queue.leases.release(taken, delay_seconds=0, counts=True)

    assert (await take(queue)).shown == grown("Half", "m1")


async def test_a_posted_message_leads_to_its_thread(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await queue.leases.save(taken, grown("", "m7"))

    assert await queue.lookup.thread_of("console", "m7") == KEY
    assert await queue.lookup.thread_of("console", "m8") is None


async def test_a_message_that_was_posted_while_the_store_was_away_leads_to_its_thread(
    store: Store,
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))

    await finish(queue, await take(queue))

    assert await queue.lookup.thread_of("console", "m1") == KEY


async def test_every_key_expires(store: Store) -> None:
    queue = make_queue(store, running_per_person=1)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2))
    await queue.admit(make_turn(3, key=replace(KEY, thread="t2")))
    taken = await take(queue)
    await queue.leases.save(taken, grown("x", "m1"))
    assert await nothing_to_take(queue)

    async def lasting() -> list[str]:
        names = await store.command("KEYS", store.key("*"))
        return [name for name in names if await store.command("TTL", name) < 0]

    assert await lasting() == []
    await finish(queue, taken)
    assert await lasting() == []
    await finish(queue, await take(queue))
    await press(queue, 2)
    assert await lasting() == []


async def test_what_is_tried_later_and_what_was_given_up_expire_too(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2, key=ELSEWHERE))
    await queue.leases.release(await take(queue), delay_seconds=30, counts=True)
    taken = await take(queue)
    # As if it had waited for long.
    await store.command("PEXPIRE", store.key("turn", "console:2"), 5000)

    await finish(queue, taken, answer="", outcome="dead")

    for name in (("due", "console"), ("turn", "console:2")):
        assert await store.command("TTL", store.key(*name)) > 50


async def test_a_thread_remembers_its_last_exchanges_only(store: Store) -> None:
    queue = make_queue(store, history=2)

    await answered(queue, 1, 2, 3)

    assert await history(store) == ["console:2", "console:3"]


async def test_a_thread_remembers_no_more_than_so_many_bytes(store: Store) -> None:
    queue = make_queue(store, history_bytes=1000)

    await answered(queue, 1, 2, answer="ü" * 150)
    two = await history(store)
    await answered(queue, 3, answer="a" * 400)
    few = await history(store)
    await answered(queue, 4, answer="a" * 5000)

    assert two == ["console:1", "console:2"]
    assert few == ["console:2", "console:3"]
    assert await history(store) == ["console:4"]


async def test_the_queue_survives_a_wiped_store(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await take(queue)
    for name in await store.command("KEYS", store.key("*")):
        await store.command("DEL", name)

    await queue.admit(make_turn(2))

    assert (await take(queue)).turn.id == "console:2"


@contextlib.asynccontextmanager
async def working(queue: TurnQueue) -> AsyncIterator[None]:
    async def work() -> None:
        while True:
            found = await queue.leases.take(["console"])
            if isinstance(found, Taken):
                await finish(queue, found)
            else:
                await queue.leases.wait(["console"], min(found, 0.5))

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_many_workers_end_every_turn_once_and_in_order(store: Store) -> None:
    queues = [make_queue(store, f"w{n}", waiting_per_thread=50, waiting_per_person=200, waiting=500)
              for n in range(4)]  # fmt: skip
    threads = [replace(KEY, thread=f"t{n}") for n in range(5)]

    async with contextlib.AsyncExitStack() as stack:
        for queue in queues:
            await stack.enter_async_context(working(queue))
        for number in range(60):
            await queues[0].admit(make_turn(number, key=threads[number % 5]))
        async with asyncio.timeout(60):
            while (await queues[0].load([])).open:
                await asyncio.sleep(0.02)

    remembered = History(store=store, keep_seconds=60)
    for index, thread in enumerate(threads):
        ids = [exchange.turn_id for exchange in await remembered.read(thread)]
        assert ids == [f"console:{number}" for number in range(index, 60, 5)]


async def test_an_unreachable_store_is_told_as_such() -> None:
    client = redis.asyncio.Redis.from_url("unix:///nowhere/socket", retry=Retry(NoBackoff(), 0))
    queue = make_queue(Store(client=client, url="unix:///nowhere/socket", prefix="none"))

    with pytest.raises(StoreUnavailable, match="REDIS_URL"):
        await queue.admit(make_turn(1))


async def test_a_reply_with_messages_goes_on_in_them(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    taken = await take(queue)
    before = taken.placed.place
    await queue.leases.save(taken, grown("Let me see.", "m1"))

    again = await taken_again(queue)

    assert again.placed.place == {**before, "continues": True}
