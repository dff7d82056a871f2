"""Which places are looked through for what nobody heard in Slack, and by whom."""

from __future__ import annotations

import asyncio

import pytest

from adapters.slack.inbound.catch_up import _TOGETHER
from adapters.slack.inbound.outage import _LOOK_SECONDS, PLACES, Listening
from bot.errors import StoreUnavailable
from bot.store import Store
from tests.support.fakes import FakeIntake, RefusingStore
from tests.support.slack_outage import (
    TEAM,
    a_process,
    passed,
    quiet,
    reads,
    silence,
    until_heard,
    used,
)

pytestmark = pytest.mark.usefixtures("short_beats")


async def test_fifty_places_are_read_once_and_no_more(store: Store) -> None:
    for number in range(PLACES + 5):
        await used(store, (f"D{number:03d}", ""), (f"C{number:03d}", "1700000000.000100"))
    await passed(store, 60)

    async with quiet() as slack, a_process(slack, FakeIntake(), store):
        await until_heard(store)
        await passed(store, 60)
        await asyncio.sleep(0.1)

        counts = [reads(slack).count(method) for method in sorted(set(reads(slack)))]
        assert counts == [PLACES, PLACES]
    assert 2 * PLACES == 50


async def test_the_latest_places_come_first_and_old_ones_are_forgotten(store: Store) -> None:
    listening = Listening(store, team=TEAM)
    for number in range(PLACES + 5):
        await used(store, (f"D{number:03d}", ""))
    await used(store, ("D007", ""))

    dms, threads = await listening.places()

    newest = [f"D{number:03d}" for number in (7, *range(PLACES + 4, 7, -1))]
    assert [channel for channel, _ in dms][:5] == newest[:5]
    assert (len(dms), threads) == (PLACES, [])


async def test_no_record_outlives_its_use(store: Store) -> None:
    await used(store, ("D1", ""), ("C1", "1700000000.000100"))

    keys = [store.key("slack", TEAM, word) for word in ("heard", "dms", "threads")]
    left = [await store.command("TTL", key) for key in keys]

    assert [0 < seconds <= 7 * 24 * 3600 for seconds in left] == [True] * 3


async def test_places_that_nobody_saves_do_not_pile_up(store: Store) -> None:
    listening = Listening(store, team=TEAM)

    for number in range(10_000):
        listening.note(f"D{number}", "")

    assert len(listening._noted) == 2 * PLACES


async def test_a_place_that_is_used_again_is_dropped_after_those_that_are_not(
    store: Store,
) -> None:
    listening, last = Listening(store, team=TEAM), 2 * PLACES
    for number in (*range(last - 1), 0, last - 1, last):
        listening.note(f"D{number}", "")

    await listening.beat()

    dms, _ = await listening.places()
    assert dms[:3] == [(f"D{number}", "") for number in (last, last - 1, 0)]


async def test_a_place_that_is_used_while_it_is_saved_is_saved_once_more(store: Store) -> None:
    listening = Listening(store, team=TEAM)
    for channel in ("D1", "D2"):
        listening.note(channel, "")
    saving = asyncio.create_task(listening.beat())
    await asyncio.sleep(0)

    listening.note("D1", "")
    await saving
    await listening.beat()

    dms, _ = await listening.places()
    assert dms == [("D1", ""), ("D2", "")]


async def test_a_place_that_could_not_be_saved_is_saved_later(store: Store) -> None:
    listening = Listening(store, team=TEAM)
    listening.note("D1", "")
    assert isinstance(store, RefusingStore)
    store.refused = {store.key("slack", TEAM, "dms")}
    with pytest.raises(StoreUnavailable):
        await listening.beat()

    store.refused = set()
    await listening.beat()

    assert await listening.places() == ([("D1", "")], [])


async def test_what_was_saved_does_not_hide_what_another_process_saves(store: Store) -> None:
    one, other = Listening(store, team=TEAM), Listening(store, team=TEAM)
    one.note("D1", "")
    await one.beat()
    for channel in ("D2", "D1"):
        other.note(channel, "")
    await other.beat()

    await one.beat()

    assert await one.places() == ([("D1", ""), ("D2", "")], [])


async def test_one_of_several_processes_looks(store: Store) -> None:
    several = [Listening(store, team=TEAM) for _ in range(5)]
    await several[0].beat()
    await passed(store, 60)

    told = await asyncio.gather(*(one.beat() for one in several))
    again = await asyncio.gather(*(one.beat() for one in several))
    looks = told.index(max(told))
    for one in several:
        if one is not several[looks]:
            await one.begin()
    meanwhile = await silence(store)
    await several[looks].begin()
    then = await asyncio.gather(*(one.beat() for one in several))
    await passed(store, 60)
    later = await several[looks - 1].beat()

    assert sorted(told)[:4] == sorted(again)[:4] == [0, 0, 0, 0]
    assert 60 <= told[looks] <= again[looks] <= 62
    assert meanwhile >= 60
    assert then == [0] * 5
    # Whose look is over leaves the next to anybody.
    assert later >= 60


def test_a_pass_ends_before_another_process_may_look() -> None:
    assert _TOGETHER < _LOOK_SECONDS


@pytest.mark.parametrize("wrong", ["garbage", "", "nan"])
async def test_a_beat_that_cannot_be_read_is_written_anew(store: Store, wrong: str) -> None:
    listening = Listening(store, team=TEAM)
    await store.command("SET", store.key("slack", TEAM, "heard"), wrong)

    await listening.beat()

    assert int(await store.command("GET", store.key("slack", TEAM, "heard"))) > 0


async def test_records_of_another_type_are_written_anew(store: Store) -> None:
    listening = Listening(store, team=TEAM)
    for name in ("heard", "looking", "dms", "threads"):
        await store.command("HSET", store.key("slack", TEAM, name), "a", "b")
    listening.note("D1", "")
    listening.note("C1", "1.0")

    await listening.beat()

    assert await listening.places() == ([("D1", "")], [("C1", "1.0")])
