"""Records that another version wrote, or nobody can read, hold up nobody."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.domain import Exchange, Person, Place, Shown, ThreadKey, Turn
from bot.store import Store
from bot.turns.queue import Taken
from bot.turns.records import History
from tests.support.at_work import (
    KEY,
    LIMITS,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    remembered,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform
from tests.support.waiting import until

# What this version writes. Later versions have to read it: add to it, and change nothing.
BODY = (
    '{"person": {"id": "u1", "name": "Ann", "workspace": ""}, "place": {"channel": "7"},'
    ' "zone": "UTC"}'
)
EXCHANGE = (
    '{"turn_id": "console:0", "person": {"id": "u2", "name": "Bob"}, "asked_at": 900.5,'
    ' "question": "What is it?", "answer": "A thing."}'
)
RECORD = {
    "state": "queued",
    "fence": "1",
    "attempts": "1",
    "position": "1763818000000000",
    "thread": "console:local:ann:t1",
    "person": "console:::u1",
    "body": BODY,
    "asker": "u1",
    "asked_at": "1000.5",
    "text": "question 1",
    "left_out": "3",
    "where": "#general",
    "place_changes": '{"press": "p"}',
    "message_ids": '["m1", "m2"]',
    "shown": "Half a thought",
    "max_progress": "14",
    "previous_answer": "An older thought",
    "worker": "w0",
    "more": '{"outcome": "done", "said": 4, "below": "By another."}',
}
READ = Turn(
    "console:1",
    KEY,
    Person("u1", "Ann"),
    "question 1",
    {"channel": "7", "press": "p"},
    1000.5,
    left_out=3,
    where="#general",
    zone="UTC",
)
LEFT = Shown(("m1", "m2"), "Half a thought", "Half", "By another.", "done")

# What a newer version may write.
NEWER = json.dumps(
    {
        **json.loads(BODY),
        "person": {"id": "u1", "name": "Ann", "zone": "UTC"},
        "files": [{"name": "a.txt"}],
    }
)

fresh = itertools.count(1)


async def stored(store: Store, record: dict[str, str], *, turn_id: str = "console:1") -> None:
    """Write a turn that waits, key by key, as a version did."""
    await store.command("HSET", store.key("turn", turn_id), *itertools.chain(*record.items()))
    await store.command("RPUSH", store.key("mailbox", str(KEY)), turn_id)
    await store.command("ZADD", store.key("open"), 1, turn_id)
    await store.command("ZADD", store.key("ready", "console"), 1, str(KEY))


async def test_a_record_of_this_version_is_read_whole(store: Store) -> None:
    await stored(store, RECORD)

    taken = await take(make_queue(store))

    assert (taken.turn, taken.shown, taken.previous_answer) == (READ, LEFT, "An older thought")
    assert (taken.fence, taken.attempts) == (2, 2)


async def test_an_exchange_of_this_version_is_read_whole(store: Store) -> None:
    await store.command("RPUSH", store.key("history", str(KEY)), EXCHANGE)

    (exchange,) = await History(store=store, keep_seconds=60).read(KEY)

    assert exchange == Exchange("console:0", Person("u2", "Bob"), 900.5, "What is it?", "A thing.")


async def test_this_version_writes_what_is_kept_here_for_later_ones(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(replace(READ, place={"channel": "7"}))

    taken = await take(queue)
    await queue.leases.save(taken, LEFT)

    written = await store.command("HGETALL", store.key("turn", "console:1"))
    same = (
        "body",
        "asker",
        "asked_at",
        "text",
        "left_out",
        "where",
        "message_ids",
        "shown",
        "more",
        "max_progress",
        "thread",
        "person",
    )
    assert {one: written[one] for one in same} == {one: RECORD[one] for one in same}


async def test_a_turn_of_a_newer_version_is_answered(store: Store) -> None:
    known = {one: RECORD[one] for one in ("thread", "person", "asker", "text")}
    record = {"state": "queued", "body": NEWER, "written_by": "another version", **known}

    async with working(make_worker(store, platform := FakePlatform(), FakeModel(["Hi"]))):
        await stored(store, record)
        await until(lambda: platform.shown.text.startswith("Hi"))
        await until_idle(store)

    assert await remembered(store) == [("question 1", "Hi")]


async def test_exchanges_of_other_versions_are_read(store: Store) -> None:
    newer = json.dumps(
        {**json.loads(EXCHANGE), "person": {"id": "u2", "name": "Bob", "zone": "x"}, "files": []}
    )
    older = json.dumps(
        {"turn_id": "console:0", "person": {"id": "u2"}, "question": "Why?", "answer": "So."}
    )
    await store.command("RPUSH", store.key("history", str(KEY)), older, newer)

    read = await remembered(store)

    assert read == [("Why?", "So."), ("What is it?", "A thing.")]


async def test_exchanges_that_cannot_be_read_are_left_out_with_one_line(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["garbage", "[]", '"text"', "7", "[" * 5000, "{}", b"\xff\xfe", '{"turn_id": {}}']
    history = store.key("history", str(KEY))
    await store.redis.execute_command("RPUSH", history, *lines, EXCHANGE, *lines)  # type: ignore[no-untyped-call]

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        await make_queue(store).admit(make_turn())
        await until_idle(store)

    assert await outcome(store) == "done"
    assert [one.levelname for one in caplog.records if str(KEY) in one.getMessage()] == ["WARNING"]
    assert await remembered(store) == [("What is it?", "A thing."), ("question 1", "Hi")]


async def test_a_deleted_question_is_forgotten_among_exchanges_that_cannot_be_read(
    store: Store,
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    taken = await take(queue)
    await queue.leases.finish(
        taken, Shown(("m1",), "Hi", "Hi", outcome="done"), Exchange("console:1", *EXCHANGED)
    )
    await store.command("LPUSH", store.key("history", str(KEY)), "garbage")
    await store.command("RPUSH", store.key("history", str(KEY)), "[]")

    await queue.changes.forget("console:1")

    assert await store.command("LRANGE", store.key("history", str(KEY)), 0, -1) == ["garbage", "[]"]


EXCHANGED = (Person("u1", "Ann"), 1000.0, "question 1", "Hi")

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


async def until_idle(store: Store, key: ThreadKey = KEY) -> None:
    queue = make_queue(store, "watcher")
    async with asyncio.timeout(30):
        while not await queue.lookup.is_idle(key):
            await asyncio.sleep(0.005)


async def in_a_new_thread(store: Store, *, place: Place | None = None) -> tuple[Turn, Turn]:
    """Admit two turns of one thread."""
    number = next(fresh)
    key, queue = replace(KEY, thread=f"new {number}"), make_queue(store, "intake")
    turns = [
        replace(make_turn(), id=f"console:{number}/{each}", key=key, place=place or {})
        for each in (1, 2)
    ]
    for turn in turns:
        assert await queue.admit(turn)
    return turns[0], turns[1]


async def is_answered(store: Store, turn: Turn) -> bool:
    ended = await make_queue(store, "watcher").lookup.result(turn.id)
    return ended is not None and ended.outcome == "done"


GARBLED = 8  # threads in each example
SAME_STORE = settings(
    max_examples=max(3, settings().max_examples // 8),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)


async def all_go_on(store: Store, threads: Sequence[tuple[Turn, Turn]]) -> None:
    """Let a worker answer two turns of each thread, of which the first may be unreadable."""
    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]), capacity=50)):
        for first, _ in threads:
            await until_idle(store, first.key)

    assert [second.id for _, second in threads if not await is_answered(store, second)] == []


PATHS = [
    *[(one,) for one in ("person", "place", "zone")],
    *[("person", "id"), ("person", "name"), ("place", "channel")],
]


@SAME_STORE
@given(
    garbled=st.lists(st.tuples(st.sampled_from(PATHS), _JSON), min_size=GARBLED, max_size=GARBLED)
)
async def test_a_threads_next_turn_is_answered_whatever_stands_in_the_body_of_the_first(
    store: Store, garbled: Sequence[tuple[tuple[str, ...], Any]]
) -> None:
    threads = [await in_a_new_thread(store) for _ in garbled]
    for (first, _), (path, garbage) in zip(threads, garbled, strict=True):
        name = store.key("turn", first.id)
        body = json.loads(await store.command("HGET", name, "body"))
        inner = body[path[0]] if len(path) > 1 else body
        inner[path[-1]] = garbage
        await store.command("HSET", name, "body", json.dumps(body))

    await all_go_on(store, threads)


async def test_turns_that_are_gone_do_not_count_against_their_person(store: Store) -> None:
    queue = make_queue(store, "intake")
    gone = [f"console:gone {number}" for number in range(100)]
    for name in ("open:console:::u1", "running:console:::u1"):
        await store.command("SADD", store.key(name), *gone)

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        await queue.admit(make_turn())
        await until_idle(store)

    assert await outcome(store) == "done"


@pytest.mark.parametrize(("seconds", "kept"), [(60.0, 60.0), (1e300, 86400.0)])
async def test_a_pause_is_kept_and_lasts_a_day_at_most(
    store: Store, seconds: float, kept: float
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    await queue.leases.release(await take(queue), delay_seconds=seconds, counts=True)

    assert not isinstance(await queue.leases.take(["console"]), Taken)

    ends = await store.command("ZSCORE", store.key("due", "console"), str(KEY))
    assert float(ends) / 1000 - time.time() == pytest.approx(kept, abs=10)


async def test_turns_that_are_gone_take_no_room_from_their_person(store: Store) -> None:
    queue, turn = make_queue(store, "intake"), make_turn()
    gone = [f"console:gone {number}" for number in range(100)]
    await store.command("SADD", store.key("open:console:::u1"), *gone)

    await queue.check_room(turn)


async def test_turns_that_are_gone_do_not_fill_the_queue_for_good(store: Store) -> None:
    queue = make_queue(store, "intake")
    for number in range(LIMITS.waiting):
        await store.command("ZADD", store.key("open"), 1, f"console:gone {number}")

    assert await queue.admit(make_turn())


@pytest.mark.parametrize("thread", ["garbage", "a:b:c:d:e", "slack:T:C:1", ""])
async def test_a_message_whose_thread_cannot_be_read_has_none(store: Store, thread: str) -> None:
    await store.command("SET", store.key("posted", "console", "m1"), thread)

    assert await make_queue(store).lookup.thread_of("console", "m1") is None


@pytest.mark.parametrize("thread", ["garbage", "a:b:c:d:e", "slack:T:C:1", ""])
async def test_a_turn_whose_thread_cannot_be_read_has_none(store: Store, thread: str) -> None:
    await store.command("HSET", store.key("turn", "console:1"), "thread", thread, "state", "done")

    assert await make_queue(store).lookup.thread_of_turn("console:1") is None


async def test_every_key_expires(store: Store) -> None:
    platform = FakePlatform()
    queue, history = make_queue(store), History(store=store, keep_seconds=60)

    async with working(make_worker(store, platform, FakeModel(["Hi"]))):
        unasked = await lasting(store)
        for number in (1, 2, 3):
            await queue.admit(make_turn(number))
        await history.save_name(KEY, Person("u3", "Cy"))
        await queue.changes.forget("console:never")
        await until_idle(store)
        await queue.repairs.report_late_writes(make_turn(), ["m9"])
        at_work = await lasting(store)
    await in_a_new_thread(store)
    taken = await take(queue)
    await queue.leases.release(taken, delay_seconds=60, counts=True)

    assert (unasked, at_work, await lasting(store)) == ([], [], [])


async def lasting(store: Store) -> list[str]:
    keys = await store.command("KEYS", store.key("*"))
    return [key for key in keys if await store.command("TTL", key) == -1]


async def test_a_reply_whose_record_is_lost_goes_on_to_its_end(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["word "] * 20, pause=0.05)
    first, second = await in_a_new_thread(store)

    async with working(make_worker(store, platform, model)):
        await until(lambda: platform.shown.screen)
        await store.command("DEL", store.key("turn", first.id))
        await until(lambda: any(page.last for page in platform.shown.screen.values()))
        await until_idle(store, first.key)

    assert "word " * 19 in platform.shown.screen["m1"].text
    assert await is_answered(store, second)


async def test_the_next_turn_is_answered_if_the_record_of_a_running_one_is_lost(
    store: Store,
) -> None:
    queue, platform = make_queue(store, "intake"), FakePlatform()

    async with working(make_worker(store, platform, FakeModel(["word "] * 20, pause=0.05))):
        await queue.admit(make_turn(1))
        await until(lambda: platform.shown.screen)
        await store.command("DEL", store.key("turn", "console:1"))
        await queue.admit(make_turn(2))
        await until_idle(store)
        while not (ended := await queue.lookup.result("console:2")):
            await asyncio.sleep(0.05)

    assert ended.outcome == "done"
