"""Who has spoken in a thread is known to all processes; a person's stop ends their own answer."""

from __future__ import annotations

import pytest

from bot.domain import Exchange, Follow, Person, Shown, ThreadKey, Turn
from bot.errors import PersonBusy, StoreUnavailable
from bot.intake.addressed import Facts
from bot.intake.intake import Intake
from bot.store import Store
from bot.turns.queue import Taken, TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits
from tests.support.fakes import RefusingStore, is_for_bot

KEY = ThreadKey("slack", "T1", "C1", "1.0")
ELSEWHERE = ThreadKey("slack", "T1", "C1", "2.0")
ANN, BOB = Person("ann", "Ann", "T1"), Person("bob", "Bob", "T1")
PLAIN, CALL = Facts(), Facts(calls_bot=True)


def make_queue(store: Store, *, waiting: int = 9) -> TurnQueue:
    limits = Limits(9, waiting, 99, 9)
    return TurnQueue(store=store, worker="w", limits=limits, lease_seconds=9, keep_seconds=60)


class Process:
    """The intake of one process."""

    def __init__(self, store: Store, *, follow: Follow = "auto", waiting: int = 9) -> None:
        self.queue = make_queue(store, waiting=waiting)
        history = History(store=store, keep_seconds=60)
        self.intake = Intake(queue=self.queue, history=history, follow=follow)

    async def hears(self, person: Person, facts: Facts = PLAIN, key: ThreadKey = KEY) -> bool:
        return await is_for_bot(self.intake, facts, key, person)

    async def asks(self, number: int, person: Person = ANN, key: ThreadKey = KEY) -> str:
        turn = Turn(f"slack:{number}", key, person, "why?", {}, 1000.0)
        await self.intake.ask(turn)
        return turn.id

    async def takes(self) -> Taken:
        taken = await self.queue.leases.take(["slack"])
        assert isinstance(taken, Taken)
        return taken

    async def stops(
        self, number: int, person: Person = ANN, *, channel: str = "", manages: bool = False
    ) -> bool:
        async def may_stop() -> bool:
            return manages

        return await self.intake.answers.stop_own(
            f"slack:{number}", KEY, person, channel=channel, manages=may_stop
        )


async def test_a_thread_of_one_person_is_followed_until_another_speaks(store: Store) -> None:
    one, other = Process(store), Process(store)
    await one.asks(1)

    heard = [await other.hears(ANN), await one.hears(ANN)]
    heard += [await other.hears(BOB), await one.hears(ANN), await one.hears(BOB, CALL)]

    assert heard == [True, True, False, False, True]


@pytest.mark.parametrize(("follow", "answered"), [("all", [True, True]), ("mention", [False] * 2)])
async def test_follow_chooses_what_is_for_the_bot(
    store: Store, follow: Follow, answered: list[bool]
) -> None:
    process = Process(store, follow=follow)
    await process.asks(1)

    assert [await process.hears(ANN), await process.hears(BOB)] == answered
    assert await process.hears(BOB, CALL)


@pytest.mark.parametrize("asks", [True, False])
async def test_a_question_and_words_to_somebody_else_count_as_spoken(
    store: Store, asks: bool
) -> None:
    process = Process(store)
    await process.asks(1)

    if asks:
        await process.asks(2, BOB)
    else:
        assert not await process.hears(BOB, Facts(calls_other=True))

    assert not await process.hears(ANN)


async def test_a_person_whose_question_is_refused_has_spoken(store: Store) -> None:
    process = Process(store, waiting=1)
    await process.asks(1)
    await process.asks(2, BOB, ELSEWHERE)

    with pytest.raises(PersonBusy):
        await process.asks(3, BOB)

    assert not await process.hears(ANN)


async def test_speakers_expire_with_the_history(store: Store) -> None:
    process, name = Process(store), store.key("speakers", str(KEY))
    await process.asks(1)
    await store.redis.pexpire(name, 30_000)

    await process.hears(BOB)

    assert 0 < await store.redis.pttl(name) <= 30_000


async def test_an_answer_renews_the_speakers_of_its_thread(store: Store) -> None:
    process, name = Process(store), store.key("speakers", str(KEY))
    await process.asks(1)
    taken = await process.takes()
    await store.redis.pexpire(name, 30_000)

    exchange = Exchange(taken.turn.id, ANN, 1000.0, "why?", "Because")
    shown = Shown(("m1",), "Because", "Because", outcome="done")
    await process.queue.leases.finish(taken, shown, exchange)

    assert await store.redis.pttl(name) > 30_000


async def test_a_crowd_is_counted_up_to_a_few(store: Store) -> None:
    process = Process(store)
    await process.asks(1)

    for number in range(50):
        await process.hears(Person(f"p{number}", "P", "T1"))

    assert await store.redis.scard(store.key("speakers", str(KEY))) <= 10


async def test_without_the_store_only_what_is_known_as_ours_waits(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    process = Process(store)
    await process.asks(1)
    assert await process.hears(ANN)
    store.refused.add(store.key(""))

    with pytest.raises(StoreUnavailable):
        await process.hears(ANN)
    with pytest.raises(StoreUnavailable):
        await process.hears(ANN, CALL, ELSEWHERE)
    assert not await process.hears(ANN, key=ELSEWHERE)
    assert store.is_away

    store.refused.clear()
    assert await process.hears(ANN)


async def test_a_stop_ends_the_answer_of_the_person_alone(store: Store) -> None:
    process = Process(store)
    await process.asks(1)
    taken = await process.takes()

    assert not await process.stops(8, BOB)
    assert not await process.queue.leases.renew(taken)
    assert await process.stops(9)
    assert await process.queue.leases.renew(taken)


async def test_a_stop_where_nothing_runs_is_none(store: Store) -> None:
    process = Process(store)
    await process.asks(1, BOB)
    await process.asks(2)
    await process.asks(3, key=ELSEWHERE)

    # Ann's waits behind Bob's, and another one in another thread.
    assert not await process.stops(9)
    assert await process.stops(9, channel="C1")


async def test_a_stop_that_comes_again_is_no_question(store: Store) -> None:
    process, other = Process(store), Process(store)
    await process.asks(1)
    assert await process.stops(9)

    again = await other.stops(9)
    admitted = await other.intake.ask(Turn("slack:9", KEY, ANN, "stop", {}, 1.0))

    assert again
    assert not admitted


async def test_a_managers_stop_of_another_answer_that_comes_again_is_no_question(
    store: Store,
) -> None:
    process = Process(store)
    await process.asks(1)
    await process.takes()
    assert await process.stops(9, BOB, manages=True)

    again = await process.stops(9, BOB, manages=True)
    admitted = await process.intake.ask(Turn("slack:9", KEY, BOB, "stop", {}, 1.0))

    assert again
    assert not admitted


async def test_a_question_that_says_stop_and_comes_again_stops_nothing(store: Store) -> None:
    process = Process(store)
    assert not await process.stops(9)
    await process.asks(9)
    taken = await process.takes()

    assert not await process.stops(9)
    assert not await process.queue.leases.renew(taken)


async def test_a_call_that_is_refused_makes_no_thread_the_bots(store: Store) -> None:
    one, other = Process(store, waiting=1), Process(store)
    await one.asks(1, ANN, ELSEWHERE)

    assert await one.hears(ANN, CALL)
    with pytest.raises(PersonBusy):
        await one.asks(2)

    assert [await one.hears(ANN), await other.hears(ANN)] == [False, False]


async def test_a_thread_is_the_bots_as_soon_as_a_call_is_admitted(store: Store) -> None:
    process = Process(store)
    foreign = await process.hears(ANN)
    await process.hears(ANN, CALL)
    await process.asks(1)

    assert not foreign
    assert await process.hears(ANN)
