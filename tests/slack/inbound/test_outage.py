"""Which places are looked through for what nobody heard in Slack, and by whom."""

from __future__ import annotations

import asyncio

import pytest

from adapters.slack.inbound.outage import MOST_CONVERSATIONS
from bot.errors import StoreUnavailable
from bot.store import Store
from tests.support.fakes import FakeQueue, RefusingStore
from tests.support.slack_platform import (
    TEAM,
    listening,
    make_record,
    passed,
    quiet,
    reads,
    silence,
    until_heard,
    used,
)


async def test_fifty_conversations_are_read_once_and_no_more(store: Store) -> None:
    for number in range(MOST_CONVERSATIONS + 5):
        await used(store, (f"D{number:03d}", ""), (f"C{number:03d}", "1700000000.000100"))
    await passed(store, 60)

    async with quiet() as slack, listening(slack, FakeQueue(), store):
        await until_heard(store)
        await passed(store, 60)
        await asyncio.sleep(0.1)

        counts = [reads(slack).count(method) for method in sorted(set(reads(slack)))]
        assert counts == [MOST_CONVERSATIONS, MOST_CONVERSATIONS]
    assert 2 * MOST_CONVERSATIONS == 50


async def test_the_latest_conversations_come_first_and_old_ones_are_dropped(store: Store) -> None:
    record = make_record(store)
    for number in range(MOST_CONVERSATIONS + 5):
        await used(store, (f"D{number:03d}", ""))
    await used(store, ("D007", ""))

    dms, threads = await record.conversations()

    newest = [f"D{number:03d}" for number in (7, *range(MOST_CONVERSATIONS + 4, 7, -1))]
    assert [channel for channel, _ in dms][:5] == newest[:5]
    assert (len(dms), threads) == (MOST_CONVERSATIONS, [])


async def test_no_record_outlives_its_use(store: Store) -> None:
    await used(store, ("D1", ""), ("C1", "1700000000.000100"))

    keys = [store.key("slack", TEAM, word) for word in ("heard", "dms", "threads")]
    left = [await store.command("TTL", key) for key in keys]

    assert [0 < seconds <= 7 * 24 * 3600 for seconds in left] == [True] * 3


async def test_a_conversation_that_goes_on_during_a_save_is_saved_again(store: Store) -> None:
    record = make_record(store)
    for channel in ("D1", "D2"):
        record.note(channel, "")
    saving = asyncio.create_task(record.heartbeat())
    await asyncio.sleep(0)

    record.note("D1", "")
    await saving
    await record.heartbeat()

    dms, _ = await record.conversations()
    assert dms == [("D1", ""), ("D2", "")]


async def test_a_conversation_that_could_not_be_saved_is_saved_later(store: Store) -> None:
    record = make_record(store)
    record.note("D1", "")
    assert isinstance(store, RefusingStore)
    store.refused = {store.key("slack", TEAM, "dms")}
    with pytest.raises(StoreUnavailable):
        await record.heartbeat()

    store.refused = set()
    await record.heartbeat()

    assert await record.conversations() == [[("D1", "")], []]


async def test_a_process_does_not_overwrite_later_conversations_of_another(store: Store) -> None:
    one, other = make_record(store), make_record(store)
    one.note("D1", "")
    await one.heartbeat()
    for channel in ("D2", "D1"):
        other.note(channel, "")
    await other.heartbeat()

    await one.heartbeat()

    assert await one.conversations() == [[("D1", ""), ("D2", "")], []]


async def test_one_of_several_processes_catches_up(store: Store) -> None:
    several = [make_record(store) for _ in range(5)]
    await several[0].heartbeat()
    await passed(store, 60)

    outages = await asyncio.gather(*(one.heartbeat() for one in several))
    again = await asyncio.gather(*(one.heartbeat() for one in several))
    reader = outages.index(max(outages))
    for one in several:
        if one is not several[reader]:
            await one.heartbeat(caught_up=True)
    meanwhile = await silence(store)
    await several[reader].heartbeat(caught_up=True)
    then = await asyncio.gather(*(one.heartbeat() for one in several))
    await passed(store, 60)
    later = await several[reader - 1].heartbeat()

    assert sorted(outages)[:4] == sorted(again)[:4] == [0, 0, 0, 0]
    assert 60 <= outages[reader] <= again[reader]
    assert meanwhile >= 60
    assert then == [0] * 5
    # The next outage may be read by any process.
    assert later >= 60
