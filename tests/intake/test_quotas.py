"""Quotas: reserved when a turn is admitted, settled when it ends, each exactly once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from bot.access.quotas import Quota
from bot.access.rules import AccessRules
from bot.domain import (
    Asker,
    ContextMessage,
    Delta,
    Exchange,
    Outcome,
    Person,
    Reading,
    Shown,
    Start,
    ThreadKey,
    Turn,
    Used,
)
from bot.errors import ModelDenied, NotAllowed, QuestionEdited, QuotaUsed, Refused
from bot.intake.intake import Intake
from bot.store import Store
from bot.tokens.counters import estimate
from bot.turns.queue import Taken, TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits
from tests.support.at_work import answer, expire_all
from tests.support.fakes import FakeModel, FakePlatform
from tests.turns.test_queue import ANN, KEY, exchanges, make_turn, take

BEN = Person("u2", "Ben")
MANY = Limits(1000, 1000, 1000, 1000)
DAY_MS = 86_400_000


def make_queue(store: Store, worker: str = "w1") -> TurnQueue:
    return TurnQueue(store=store, worker=worker, limits=MANY, lease_seconds=60, keep_seconds=60)


def make_intake(store: Store, access: AccessRules, *, longest: int = 0) -> Intake:
    history = History(store=store, keep_seconds=60)
    return Intake(queue=make_queue(store), history=history, access=access, longest=longest)


async def used(queue: TurnQueue, person: Person = ANN) -> tuple[int, int, int]:
    """The questions and the tokens of a person, and the tokens of the server."""
    usage = await queue.usage(KEY, person, Quota())
    return usage.questions, usage.tokens, usage.server_tokens


async def end(
    queue: TurnQueue,
    taken: Taken,
    tokens: int | None,
    *,
    outcome: Outcome = "done",
    answer: str = "answer",
) -> None:
    turn = taken.turn
    exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, answer) if answer else None
    shown = Shown(("m1",), answer, answer, outcome=outcome)
    await queue.leases.finish(taken, shown, exchange, used=tokens)


async def test_a_question_reserves_an_estimate_and_is_settled_by_what_it_took(store: Store) -> None:
    queue = make_queue(store)

    await queue.admit(make_turn(1), estimate=500)
    reserved = await used(queue)
    await end(queue, await take(queue), 120)

    assert reserved == (1, 500, 500)
    assert await used(queue) == (1, 120, 120)
    assert await used(queue, BEN) == (0, 0, 120)


async def test_a_turn_that_is_admitted_or_ended_twice_counts_once(store: Store) -> None:
    queue = make_queue(store)

    for _ in range(3):
        assert await queue.admit(make_turn(1), quota=Quota(1), estimate=500)
    taken = await take(queue)
    for _ in range(3):
        await end(queue, taken, 120)

    assert await used(queue) == (1, 120, 120)
    assert not await store.command("HEXISTS", store.key("turn", "console:1"), "reserved")


async def test_a_worker_that_dies_leaves_the_reservation_to_the_next(store: Store) -> None:
    queue, other = make_queue(store), make_queue(store, "w2")
    await queue.admit(make_turn(1), estimate=500)
    first = await take(queue)
    await queue.leases.save(first, Shown(("m1",), "half", "half"), used=70)
    await expire_all(store)

    second = await take(other)

    assert second.used == 70
    assert await used(queue) == (1, 500, 500)
    await end(other, second, second.used + 200)
    with suppress(Refused, Exception):
        await end(queue, first, 9999)
    assert await used(queue) == (1, 270, 270)


@pytest.mark.parametrize(
    ("outcome", "tokens", "expected"),
    [
        ("done", None, (1, 500, 500)),  # the worker reports no tokens: the estimate stays
        ("stopped", 30, (1, 30, 30)),
        # The model was paid all the same.
        ("failed", 30, (0, 0, 30)),
        ("dead", 30, (0, 0, 30)),
    ],
)
async def test_a_question_that_only_failed_costs_its_person_nothing(
    store: Store, outcome: Outcome, tokens: int | None, expected: tuple[int, int, int]
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1), estimate=500)
    keys = await store.command("KEYS", store.key("spent", "*"))

    await end(queue, await take(queue), tokens, outcome=outcome, answer="")

    assert await used(queue) == expected
    # The counters expire by themselves.
    assert [0 < await store.command("PTTL", key) <= 2 * DAY_MS for key in keys] == [True] * 2


async def test_a_question_that_is_deleted_before_it_is_answered_costs_nothing(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1), estimate=500)

    await queue.changes.forget("console:1")
    await queue.changes.forget("console:1")

    assert await used(queue) == (0, 0, 0)


async def test_questions_that_are_answered_together_count_one_by_one(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2, 3):
        await queue.admit(replace(make_turn(number), joins=True), estimate=100)

    await end(queue, await take(queue), 150)

    assert await used(queue) == (3, 150, 150)


ELSEWHERE = ThreadKey("console", "another", "c", "t")


@pytest.mark.parametrize(
    ("quota", "estimate", "kind", "other"),
    [
        (Quota(1), 0, "questions", make_turn(3, person=BEN)),
        # The first question of a day may need more than there is.
        (Quota(tokens=100), 1100, "tokens", make_turn(3, person=BEN)),
        (Quota(server_tokens=1000), 600, "server_tokens", make_turn(3, key=ELSEWHERE, person=BEN)),
    ],
)
async def test_a_quota_that_is_used_up_refuses_the_next_question(
    store: Store, quota: Quota, estimate: int, kind: str, other: Turn
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1), quota=quota, estimate=estimate)

    with pytest.raises(QuotaUsed) as caught:
        await queue.admit(make_turn(2), quota=quota, estimate=estimate)

    assert caught.value.kind == kind
    assert 0 < caught.value.renews_in <= 24 * 3600
    assert await queue.admit(other, quota=quota, estimate=estimate)
    assert (await queue.load([])).open == 2


async def test_a_quota_of_no_tokens_refuses_every_question(store: Store) -> None:
    with pytest.raises(QuotaUsed):
        await make_queue(store).admit(make_turn(1), quota=Quota(tokens=0), estimate=10)


async def test_room_is_checked_with_what_the_question_will_need(store: Store) -> None:
    queue, quota = make_queue(store), Quota(tokens=100)
    await queue.admit(make_turn(1), quota=quota, estimate=60)

    await queue.check_room(make_turn(2), quota=quota, estimate=40)
    with pytest.raises(QuotaUsed):
        await queue.check_room(make_turn(2), quota=quota, estimate=41)


async def test_an_answer_that_is_written_anew_counts_once_more(store: Store) -> None:
    queue, quota = make_queue(store), Quota(2)
    await queue.admit(make_turn(1), quota=quota, estimate=500)
    await end(queue, await take(queue), 100)
    for press_id in ("p1", "p1"):
        await queue.changes.regenerate(
            "console:1", person_id="u1", press_id=press_id, quota=quota, estimate=500
        )
    reserved = await used(queue)
    await end(queue, await take(queue), 50)

    with pytest.raises(QuotaUsed):
        await queue.changes.regenerate("console:1", person_id="u1", press_id="p2", quota=quota)

    assert reserved == (2, 600, 600)
    assert await used(queue) == (2, 150, 150)


async def test_an_edit_counts_only_if_the_model_is_asked_again(store: Store) -> None:
    queue, quota = make_queue(store), Quota(3)

    async def edit(text: str, at: float, estimate: int) -> None:
        turn = replace(make_turn(1), text=text)
        await queue.edit(turn, edited_at=at, quota=quota, estimate=estimate)

    await queue.admit(make_turn(1), quota=quota, estimate=100)
    await edit("waiting", 1.0, 130)
    waiting = await used(queue)
    taken = await take(queue)
    await queue.leases.save(taken, Shown(("m1",), "half", "half"), used=40)
    await edit("running", 2.0, 120)
    running = await used(queue)
    with pytest.raises(QuestionEdited):
        await end(queue, taken, 40)
    await queue.leases.release(taken, delay_seconds=0, counts=False)
    again = await take(queue)
    await end(queue, again, again.used + 60)
    await edit("ended", 3.0, 110)

    with pytest.raises(QuotaUsed):
        await edit("too often", 4.0, 110)

    assert waiting == (1, 130, 130)
    assert running == (2, 250, 250)
    assert again.used == 40
    assert await used(queue) == (3, 210, 210)


async def test_what_ends_after_its_day_brings_no_counter_back(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1), estimate=500)
    for key in await store.command("KEYS", store.key("spent", "*")):
        await store.command("DEL", key)

    await end(queue, await take(queue), 120)

    assert not await store.command("KEYS", store.key("spent", "*"))


async def test_all_that_a_turn_reserves_counts_on_its_first_day(store: Store) -> None:
    queue, name = make_queue(store), store.key("turn", "console:1")
    await queue.admit(make_turn(1), estimate=100)
    await take(queue)
    day, rest = (await store.command("HGET", name, "reserved")).split(" ", 1)
    await store.command("HSET", name, "reserved", f"{int(day) - 1} {rest}")

    await queue.edit(replace(make_turn(1), text="edited"), edited_at=2.0, estimate=50)

    assert await used(queue) == (1, 100, 100)


async def test_a_person_without_access_reads_why_once_a_day(store: Store) -> None:
    first = make_intake(store, AccessRules(people=frozenset({"u2"})))
    second = make_intake(store, AccessRules(people=frozenset({"u2"})))

    async def repeated(intake: Intake, number: int) -> bool:
        with pytest.raises(NotAllowed) as caught:
            await intake.ask(make_turn(number))
        return caught.value.repeated

    repetitions = [await repeated(intake, n) for n, intake in enumerate((first, first, second))]

    assert repetitions == [False, True, True]
    # Nothing is kept of the question.
    assert await store.command("KEYS", store.key("*")) == [store.key("warned", "console:::u1")]
    assert 0 < await store.command("TTL", store.key("warned", "console:::u1")) <= 24 * 3600


async def test_a_quota_holds_over_three_processes_one_of_which_is_killed(store: Store) -> None:
    access = AccessRules(quota=Quota(37))
    intakes = [make_intake(store, access) for _ in range(3)]
    # A new connection takes long on a busy machine.
    connections = asyncio.Semaphore(30)

    async def ask(number: int, process: int) -> None:
        async with connections:
            with suppress(QuotaUsed):
                await intakes[process].ask(make_turn(number, key=replace(KEY, thread=f"{number}")))

    def delivered(process: int) -> list[asyncio.Task[None]]:
        # Each question comes to two processes.
        numbers = [number for number in range(100) if number % 3 != process]
        return [asyncio.create_task(ask(number, process)) for number in numbers]

    first, second, killed = (delivered(process) for process in range(3))
    await asyncio.wait(killed, return_when=asyncio.FIRST_COMPLETED)
    for task in killed:
        task.cancel()
    await asyncio.gather(*killed, return_exceptions=True)
    await asyncio.gather(*first, *second, *delivered(2))

    assert (await make_queue(store).load([])).open == 37
    assert (await used(make_queue(store)))[0] == 37


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        # The server's count is better than an estimate.
        ((Reading(500), "Hello", " world", Used(40, 2)), 42),
        ((Reading(500), "Hello"), 500 + estimate("Hello")),
        # The first attempt broke off.
        (
            (Reading(500), "Hel", Start(""), Reading(500), "Hello", Used(40, 2)),
            542 + estimate("Hel"),
        ),
        (
            (Reading(500), "Hel", Start(""), Reading(500), "Hello"),
            1000 + estimate("Hel") + estimate("Hello"),
        ),
        # What an earlier attempt has said is counted already.
        (("Hello",), 0),
        (("Hello", Reading(500), " world"), 500 + estimate(" world")),
        # A server that leaves one of the two out, or sends zeros, has not counted it.
        ((Reading(500), "Hello", Used(40, 0)), 40 + estimate("Hello")),
        ((Reading(500), "Hello", Used(0, 0)), 500 + estimate("Hello")),
        # A model that fails before a word costs nothing.
        ((), 0),
    ],
)
async def test_an_answer_costs_what_the_model_read_and_wrote(
    store: Store, deltas: tuple[Delta, ...], expected: int
) -> None:
    model = FakeModel(deltas, error=None if deltas else ModelDenied("no"))
    queue = make_queue(store)
    await queue.admit(make_turn(1), estimate=9999)

    await answer(store, FakePlatform(), model)

    assert await used(queue) == (1 if deltas else 0, expected, expected)


async def test_a_quote_is_reserved_with_its_question(store: Store) -> None:
    quote = ContextMessage("console:0", BEN, "word " * 100)

    await make_intake(store, AccessRules()).ask(replace(make_turn(1), quote=quote))

    tokens = estimate(quote.text) + estimate(make_turn(1).text)
    assert await used(make_queue(store)) == (1, tokens, tokens)


async def test_a_reply_under_way_is_not_cut_by_a_quota(store: Store) -> None:
    access = AccessRules(quota=Quota(tokens=100))
    intake, queue, platform = make_intake(store, access), make_queue(store), FakePlatform()
    await intake.ask(make_turn(1))

    await answer(store, platform, FakeModel((*["word "] * 50, Used(4000, 900))))
    with pytest.raises(QuotaUsed):
        await intake.ask(make_turn(2))

    assert await used(queue) == (1, 4900, 4900)
    assert [text for _, text in await exchanges(store)] == ["word " * 50]


async def test_usage_has_what_is_left(store: Store) -> None:
    intake = make_intake(store, AccessRules(quota=Quota(20, 9000)), longest=100)
    await intake.ask(Turn("console:1", KEY, ANN, "why?", {}, 1000.0))

    usage = await intake.access.usage(KEY, ANN, Asker())

    assert (usage.questions, usage.quota) == (1, Quota(20, 9000))
    assert 100 < usage.tokens < 120
    assert 0 < usage.renews_in <= 24 * 3600
