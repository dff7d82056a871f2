"""The sums of what people use: exact, kept for 90 days, and nobody's once a person is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pytest

from bot.access.quotas import Estimate, Price, Prices, Quota
from bot.domain import (
    Delta,
    Exchange,
    Outcome,
    Person,
    Purpose,
    Reading,
    Retrying,
    Shown,
    Turn,
    Used,
)
from bot.errors import ModelDenied, QuotaUsed
from bot.store import Store
from bot.tokens.counters import Bill, Meter, estimate
from bot.turns.forgetting import Forgetting, named
from bot.turns.queue import Taken, TurnQueue
from bot.turns.records import read_bill, write_bill
from bot.turns.script import Limits, source_of
from bot.turns.usage import Row, Sums, UsageSums
from tests.support.at_work import answer, expire_all
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.waiting import until
from tests.turns.test_queue import ANN, KEY, exchanges, make_turn, take

BEN = Person("u2", "Ben")
PRICES = Prices({"large": Price(2, 10)})
DAY_MS = 86_400_000
LARGE = Bill({"large": Used(100, 20)})


def make_queue(store: Store) -> TurnQueue:
    limits = Limits(1000, 1000, 1000, 1000)
    return TurnQueue(store=store, worker="w1", limits=limits, lease_seconds=60, keep_seconds=60)


async def end(
    queue: TurnQueue, taken: Taken, bill: Bill, *, outcome: Outcome = "done", cut: bool = False
) -> None:
    turn = taken.turn
    answered = Exchange(turn.id, turn.person, turn.asked_at, turn.text, "answer")
    shown = Shown(("m1",), "answer", "answer", outcome=outcome, end="cut" if cut else "")
    await queue.leases.finish(
        taken,
        shown,
        answered if outcome == "done" else None,
        used=bill.tokens,
        bill=write_bill(bill, PRICES),
        model="large",
    )


async def rows(store: Store) -> list[Row]:
    found = [it async for it in UsageSums(store).rows(date(2000, 1, 1), by_person=True)]
    return sorted(found, key=lambda it: (it.person, it.model))


async def by_person(store: Store) -> dict[tuple[str, str], Sums]:
    return {(it.person, it.model): it.sums for it in await rows(store)}


async def test_a_turn_that_ends_twice_is_summed_once_by_person_and_model(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1), estimate=500)
    taken = await take(queue)

    for _ in range(3):
        await end(queue, taken, Bill({"large": Used(100, 20), "small": Used(7, 3)}))

    assert await by_person(store) == {
        ("console:u1", "large"): Sums(1, 100, 20, money=400),
        ("console:u1", "small"): Sums(0, 7, 3, unpriced=10),
    }
    assert {(it.day, it.server) for it in await rows(store)} == {
        (datetime.now(UTC).date(), "console:local")
    }
    for kind in ("usage", "usage_of"):
        (key,) = await store.command("KEYS", store.key(kind, "*"))
        assert 89 * DAY_MS < await store.command("PTTL", key) <= 90 * DAY_MS


async def test_answers_that_were_cut_or_failed_are_among_the_questions(store: Store) -> None:
    queue = make_queue(store)
    for number in (1, 2, 3):
        await queue.admit(make_turn(number), estimate=500)

    await end(queue, await take(queue), LARGE, cut=True)
    await end(queue, await take(queue), LARGE, outcome="failed")
    await end(queue, await take(queue), LARGE, outcome="dead")

    assert await by_person(store) == {
        ("console:u1", "large"): Sums(3, 300, 60, cut=1, failed=2, money=1200)
    }


async def test_what_a_dead_worker_has_saved_is_summed_with_the_answer_of_the_next(
    store: Store,
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1), estimate=500)
    first = await take(queue)
    half = Bill({"large": Used(50, 0)}, (("large", Used(0, 5)),))
    await queue.leases.save_used(first, used=half.tokens, bill=write_bill(half, PRICES))
    await expire_all(store)

    second = await take(queue)
    meter = Meter(second.bill)
    for delta in (Reading(0, "large", is_answered=False), Reading(40), "Hello", Used(30, 2)):
        meter.note(delta)
    await end(queue, second, meter.bill)

    # The request that was cut has read the same prompt.
    assert meter.bill == Bill({"large": Used(50 + 30 + 30, 5 + 2)})
    assert await by_person(store) == {("console:u1", "large"): Sums(1, 110, 7, money=290)}


async def test_a_question_that_is_deleted_after_a_worker_died_leaves_what_was_used(
    store: Store,
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1), estimate=500)
    taken = await take(queue)
    await queue.leases.release(
        taken, delay_seconds=0, counts=False, used=120, bill=write_bill(LARGE, PRICES)
    )

    for _ in range(2):
        await queue.changes.forget("console:1")

    assert await by_person(store) == {("console:u1", "large"): Sums(0, 100, 20, money=400)}


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ((Reading(9, "a"), "Hi", Used(8, 1)), Bill({"a": Used(8, 1)})),
        (
            (
                Reading(9, "a"),
                "Hi",
                Reading(0, "b", is_answered=False),
                Reading(5, "b"),
                Used(4, 2),
            ),
            Bill({"a": Used(9, estimate("Hi")), "b": Used(4, 2)}),
        ),
        # Nobody knows yet what it reads.
        ((Reading(0, "a", is_answered=False),), Bill({}, (("a", Used(0, 0)),))),
        ((Reading(9, "a"), "Hi"), Bill({}, (("a", Used(9, estimate("Hi"))),))),
        # What failed before its first word costs nothing.
        (
            (Reading(0, "a", is_answered=False), Retrying(ModelDenied("no"))),
            Bill(),
        ),
    ],
)
def test_a_meter_counts_each_model_by_itself(deltas: tuple[Delta, ...], expected: Bill) -> None:
    meter = Meter()

    for delta in deltas:
        meter.note(delta)

    assert meter.bill == expected


def test_a_bill_is_read_as_it_was_written_by_this_version_or_the_one_before() -> None:
    bill = Bill({"large": Used(100, 20), "small one": Used(1, 2)}, (("large", Used(7, 8)),))
    written = write_bill(bill, PRICES)

    assert written.splitlines() == ["100 20 400 large", "1 2 - small one", "~7 8 94 large"]
    assert read_bill({"used": str(bill.tokens), "bill": written}) == bill
    assert read_bill({"used": "120"}) == Bill({"": Used(120, 0)})
    # The version before went on with the turn, and changed the number alone.
    more = read_bill({"used": str(bill.tokens + 5), "bill": written})
    assert (more.tokens, more.counted[""]) == (bill.tokens + 5, Used(5, 0))
    assert read_bill({"used": "3", "bill": written}) == Bill({"": Used(3, 0)})
    assert read_bill({"bill": written}) == Bill()


async def test_an_answer_is_summed_for_the_model_that_gave_it(store: Store) -> None:
    deltas = (Reading(0, "large", is_answered=False), Reading(9, "large"), "Hi", Used(8, 1))
    await make_queue(store).admit(make_turn(1))

    await answer(store, FakePlatform(), FakeModel(deltas))

    (one, other) = (await by_person(store)).items()
    assert one[0][1] == "fake" or other[0][1] == "fake"
    total = one[1].plus(other[1])
    assert total[:3] == (1, 8, 1)


async def test_a_model_is_asked_while_the_platform_still_opens(store: Store) -> None:
    asked = list[bool]()

    @dataclass
    class Opening(FakePlatform):
        @asynccontextmanager
        async def surface(
            self, turn: Turn, purpose: Purpose = Purpose.ANSWER
        ) -> AsyncIterator[FakeSurface]:
            await until(lambda: asked)
            yield self.shown

    def is_asked() -> bool:
        asked.append(True)
        return True

    platform, early = Opening(), Reading(0, "large", is_answered=False)
    await make_queue(store).admit(make_turn(1))

    await answer(store, platform, FakeModel((early, is_asked, "Hi")))

    assert [text for _, text in await exchanges(store)] == ["Hi"]


async def test_what_a_forgotten_person_used_is_nobodys_and_counts_once(store: Store) -> None:
    queue = make_queue(store)
    for number, person in enumerate((ANN, BEN)):
        await queue.admit(make_turn(number, person=person))
        await end(queue, await take(queue), LARGE)
    who = named("person", "console", ANN.id)

    for _ in range(2):
        await queue.forgetting.begin(who)
        # A worker that dies in the middle leaves the job to another.
        killed = asyncio.create_task(queue.forgetting.carry_out(who))
        await asyncio.sleep(0)
        killed.cancel()
        with suppress(asyncio.CancelledError):
            await killed
        await queue.forgetting.carry_out(who)

    used = Sums(1, 100, 20, money=400)
    assert await by_person(store) == {("", "large"): used, ("console:u2", "large"): used}


async def test_the_sums_of_a_forgotten_server_go(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1), quota=Quota(server_tokens=600), estimate=500)
    await end(queue, await take(queue), LARGE)
    forgetting = Forgetting(queue.script, own_names={})

    await forgetting.begin(who := named("server", "console", "local"))
    await forgetting.carry_out(who)

    assert await rows(store) == []
    assert await store.command("ZRANGE", store.key("notices"), 0, -1) == []


async def test_a_damaged_notice_ends_no_forgetting(store: Store) -> None:
    queue = make_queue(store)
    await store.command("ZADD", store.key("notices"), 0, "damaged")
    await store.command("RPUSH", store.key("kept", "console:u1"), "damaged")

    await queue.forgetting.begin(who := named("server", "console", "local"))
    await queue.forgetting.carry_out(who)

    assert await queue.forgetting.is_done(who)


async def test_a_damaged_sum_is_left_out(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await end(queue, await take(queue), LARGE)
    for name in ("usage", "usage_of"):
        (key,) = await store.command("KEYS", store.key(name, "*"))
        for field in ("u1 m", "n"):
            await store.command("HSET", key, field, "1 2 x 4")

    assert await by_person(store) == {("console:u1", "large"): Sums(1, 100, 20, money=400)}


async def test_money_of_a_month_is_reserved_settled_and_refused(store: Store) -> None:
    queue, quota = make_queue(store), Quota(money=1000)
    for number in (1, 2):
        await queue.admit(make_turn(number), quota=quota, estimate=Estimate(50, 500))

    with pytest.raises(QuotaUsed) as caught:
        await queue.admit(make_turn(3), quota=quota, estimate=Estimate(50, 1))
    await end(queue, await take(queue), LARGE)
    await end(queue, await take(queue), LARGE)
    used = await queue.usage(KEY, ANN, quota)
    await queue.admit(make_turn(3), quota=quota, estimate=Estimate(50, 200))

    assert caught.value.kind == "money"
    assert 0 < caught.value.renews_in <= 31 * 24 * 3600
    assert "this month" in caught.value.apology
    assert (used.money, used.server_money) == (800, 800)
    keys = list(await store.command("KEYS", store.key("spent", "*-*")))
    assert len(keys) == 2
    assert [await store.command("PTTL", key) > 31 * DAY_MS for key in keys] == [True, True]


async def test_a_servers_money_is_exact_with_questions_at_once(store: Store) -> None:
    queue, quota = make_queue(store), Quota(server_money=1000)

    async def ask(number: int) -> bool:
        with suppress(QuotaUsed):
            person = Person(f"u{number}", "Ann")
            turn = make_turn(number, person=person)
            return await queue.admit(turn, quota=quota, estimate=Estimate(1, 100))
        return False

    admitted = await asyncio.gather(*map(ask, range(30)))

    assert sum(admitted) == 10
    assert (await queue.usage(KEY, ANN, quota)).server_money == 1000


async def test_a_model_without_a_price_is_refused_once_the_money_is_used(store: Store) -> None:
    queue, quota = make_queue(store), Quota(money=400)
    await queue.admit(make_turn(1), quota=quota)
    await end(queue, await take(queue), LARGE)

    with pytest.raises(QuotaUsed):
        await queue.admit(make_turn(2), quota=quota)


async def test_forgetting_a_person_renews_no_money(store: Store) -> None:
    queue, quota = make_queue(store), Quota(money=400)
    await queue.admit(make_turn(1), quota=quota)
    await end(queue, await take(queue), LARGE)

    await queue.forgetting.begin(who := named("person", "console", ANN.id))
    await queue.forgetting.carry_out(who)
    await store.command("DEL", store.key("spent", "salt"))

    with pytest.raises(QuotaUsed):
        await queue.admit(make_turn(2), quota=quota)


async def test_forgetting_renews_nothing_though_the_salts_of_earlier_ones_end(
    store: Store,
) -> None:
    queue, quota = make_queue(store), Quota(questions=1, money=400)
    somebody, ann = (named("person", "console", it) for it in ("somebody", ANN.id))
    await queue.forgetting.begin(somebody)
    await queue.forgetting.carry_out(somebody)
    earlier = await store.command("KEYS", store.key("spent", "salt*"))
    await queue.admit(make_turn(1), quota=quota)
    await end(queue, await take(queue), LARGE)

    await queue.forgetting.begin(ann)
    await queue.forgetting.carry_out(ann)
    await store.command("DEL", *earlier)

    for one in (Quota(questions=1), Quota(money=400)):
        with pytest.raises(QuotaUsed):
            await queue.admit(make_turn(2), quota=one)
    for salt in await store.command("KEYS", store.key("spent", "salt:*")):
        # Longer than the month, or the day, for which it hides.
        assert await store.command("PTTL", salt) > (31 if "-" in salt[-3:] else 1) * DAY_MS


async def test_a_server_that_removes_the_bot_renews_no_money(store: Store) -> None:
    queue, quota = make_queue(store), Quota(server_money=400)
    await queue.admit(make_turn(1), quota=quota)
    await end(queue, await take(queue), LARGE)

    for _ in range(2):
        await queue.forgetting.begin(who := named("server", "console", "local"))
        await queue.forgetting.carry_out(who)

    with pytest.raises(QuotaUsed):
        await queue.admit(make_turn(2), quota=quota)
    assert (await queue.usage(KEY, ANN, quota)).server_money == 400
    assert await store.command("KEYS", store.key("spent", "*local*")) == []


async def test_months_are_those_of_the_calendar(store: Store) -> None:
    prelude = source_of("usage").rpartition("\nreturn verbs.")[0]
    script = store.script(
        f"{prelude}\nlocal month, next_one = month_of(tonumber(ARGV[3]))\n"
        "return {month, next_one}"
    )
    epoch = date(1970, 1, 1)

    for day in (
        date(1970, 1, 1),
        date(2024, 2, 29),
        date(2026, 11, 30),
        date(2026, 12, 31),
        date(2027, 3, 1),
        date(2028, 2, 28),
        date(2096, 12, 1),
    ):
        following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        found = await script(keys=[store.key("")], args=["x", 1, (day - epoch).days])
        assert found == [f"{day:%Y-%m}", (following - epoch).days]
