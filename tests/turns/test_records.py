"""Records that another version wrote, or nobody can read, hold up nobody."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.domain import Exchange, Person, Place, Shown, ThreadKey, Turn
from bot.errors import ThreadBusy
from bot.store import Store
from bot.turns.queue import Token
from bot.turns.records import History
from tests.support.at_work import (
    KEY,
    LEASE,
    LIMITS,
    POLICY,
    due_repair,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    ready,
    remembered,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform
from tests.support.waiting import until

# What this version writes. Later versions have to read it: add to it, and change nothing.
HEAD = (
    '{"id": "console:1", "key": {"platform": "console", "workspace": "local", "channel": "ann",'
    ' "thread": "t1"}, "person": {"id": "u1", "name": "Ann"}, "place": {"channel": "7"},'
    ' "asked_at": 1000.5, "left_out": 3, "where": "#general", "zone": "UTC",'
    ' "person_workspace": ""'
)
BODY = HEAD + ', "text": "question 1"}'
EXCHANGE = (
    '{"turn_id": "console:0", "person": {"id": "u2", "name": "Bob"}, "asked_at": 900.5,'
    ' "question": "What is it?", "answer": "A thing."}'
)
RECORD = {
    "state": "queued",
    "fence": "1",
    "tries": "1",
    "place": "1763818000000000",
    "thread": "console:local:ann:t1",
    "person": "console:::u1",
    "body": BODY,
    "head_size": str(len(HEAD)),
    "pressed_at": '{"press": "p"}',
    "pages": '["m1", "m2"]',
    "shown": "Half a thought",
    "furthest": "14",
    "former": "An older thought",
    "worker": "w0",
    "rest": '{"outcome": "done", "said": 4, "below": "By another."}',
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

# What an older version did not write, and a newer one may.
OLDER = json.dumps({"id": "console:1", "key": {}, "person": {"id": "u1"}, "text": "question 1"})
NEWER = json.dumps(
    {
        **json.loads(BODY),
        "key": {"platform": "console", "more": 1},
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
    await store.command("ZADD", store.key("line", "console"), 1, str(KEY))
    await store.command("XADD", store.key("ready", "console"), "*", "platform", "console")


async def test_a_record_of_this_version_is_read_whole(store: Store) -> None:
    # An older version tells where pages were ended early.
    await stored(store, RECORD | {"cuts": "[4]"})

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
    same = ("body", "head_size", "pages", "shown", "rest", "furthest", "thread", "person")
    assert {one: written[one] for one in same} == {one: RECORD[one] for one in same}


@pytest.mark.parametrize("body", [OLDER, NEWER])
async def test_a_turn_of_another_version_is_answered(store: Store, body: str) -> None:
    record = {"state": "queued", "body": body, "written_by": "another version"}

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

    await queue.forget("console:1")

    assert await store.command("LRANGE", store.key("history", str(KEY)), 0, -1) == ["garbage", "[]"]


EXCHANGED = (Person("u1", "Ann"), 1000.0, "question 1", "Hi")

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
GARBAGE = (
    _JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=8)
    | st.sampled_from([b"", b"[" * 5000, b"9" * 400, b"1e400", b"nan", b"inf", b"-1", b"0x10"])
)
FIELDS = (
    *("state", "fence", "tries", "thread", "person", "body", "place", "entry", "worker"),
    *("pressed_at", "pages", "shown", "cuts", "rest", "furthest", "late", "former", "stop"),
    *("after", "forget", "looks", "head_size", "kept"),
)
TYPES = {
    "string": ("SET", "text"),
    "list": ("RPUSH", "one"),
    "set": ("SADD", "one"),
    "hash": ("HSET", "one", "two"),
    "zset": ("ZADD", "1", "one"),
    "stream": ("XADD", "*", "one", "two"),
}
KEYS = {
    "open": "zset",
    "dead": "stream",
    "open:console:::u1": "set",
    "running:console:::u1": "set",
    "waiting:console:::u1": "zset",
    "kept:console:::u1": "list",
    f"history:{KEY}": "list",
    f"names:{KEY}": "hash",
    f"mailbox:{KEY}": "list",
    "line:console": "zset",
    "later:console": "zset",
    "mend:console": "zset",
    "ready:console": "stream",
    "held:console": "hash",
    "turn:console:1": "hash",
}


async def until_idle(store: Store, key: ThreadKey = KEY) -> None:
    queue = make_queue(store, "watcher")
    async with asyncio.timeout(30):
        while not await queue.is_idle(key):
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
    ended = await make_queue(store, "watcher").result(turn.id)
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


@SAME_STORE
@given(
    garbled=st.lists(
        st.tuples(st.sampled_from(FIELDS), GARBAGE), min_size=GARBLED, max_size=GARBLED
    )
)
async def test_a_threads_next_turn_is_answered_whatever_stands_in_a_field_of_the_first(
    store: Store, garbled: Sequence[tuple[str, bytes]]
) -> None:
    threads = [await in_a_new_thread(store) for _ in garbled]
    for (first, _), (field, garbage) in zip(threads, garbled, strict=True):
        name = store.key("turn", first.id)
        await store.redis.execute_command("HSET", name, field, garbage)  # type: ignore[no-untyped-call]

    await all_go_on(store, threads)


PATHS = [
    *[(one,) for one in ("id", "key", "person", "text", "place", "asked_at", "left_out")],
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


async def test_threads_go_on_whatever_becomes_of_a_record_while_its_turn_is_answered(
    store: Store,
) -> None:
    platform, model = FakePlatform(), FakeModel(["word "] * 20, pause=0.05)
    pairs = [(field, *await in_a_new_thread(store)) for field in FIELDS]

    # On a busy machine, leases expire many times.
    policy = replace(POLICY, max_attempts=1000)
    async with working(make_worker(store, platform, model, capacity=50, policy=policy)):
        for field, first, _ in pairs:
            await until_taken(store, first)
            await store.command("HSET", store.key("turn", first.id), field, "garbage")
        model.pause = 0.0
        for _, first, _ in pairs:
            await until_idle(store, first.key)

    assert [field for field, _, second in pairs if not await is_answered(store, second)] == []


async def until_taken(store: Store, turn: Turn) -> None:
    name = store.key("turn", turn.id)
    async with asyncio.timeout(30):
        while await store.command("HGET", name, "state") != "running":
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("name", "wrong"),
    # All wrong types take the same path: each key meets two of them.
    [
        (name, wrong)
        for number, (name, right) in enumerate(KEYS.items())
        for wrong in ([one for one in TYPES if one != right] * 2)[number % 5 :][:2]
    ],
)
async def test_a_key_of_another_type_is_moved_away_and_the_thread_goes_on(
    store: Store, name: str, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    command, *words = TYPES[wrong]
    kind, key = name.split(":")[0], store.key(name)
    queue = make_queue(store, "intake")
    await queue.admit(make_turn(1))
    await store.command("DEL", key)
    await store.command(command, key, *words)

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        await queue.admit(make_turn(2))
        async with asyncio.timeout(30):
            while not await is_answered(store, make_turn(2)):
                await asyncio.sleep(0.01)

    moved = [one for one in caplog.records if f":{kind}" in one.getMessage()]
    assert len(moved) <= 1
    assert await store.command("TTL", f"{key}:unreadable") != -1


@pytest.mark.parametrize("garbage", ["", "one", "9" * 400, "12 console:0", "-1 console:0"])
async def test_a_turn_ends_whatever_stands_among_what_is_kept_of_its_person(
    store: Store, garbage: str
) -> None:
    await store.command("RPUSH", store.key("kept:console:::u1"), garbage, garbage)
    queue = make_queue(store, "intake", limits=replace(LIMITS, person_bytes=1))
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await queue.leases.finish(taken, Shown(("m1",), "Hi", "Hi", outcome="done"), None)

    assert await queue.is_idle(KEY)


async def test_an_entry_that_names_no_platform_leads_to_the_first_in_line(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    await store.command("XTRIM", store.key("ready", "console"), "MAXLEN", 0)
    await store.command("XADD", store.key("ready", "console"), "*", "another", "field")

    taken = await take(queue)

    assert taken.turn == make_turn()


async def test_an_entry_without_work_is_taken_out_of_the_stream(store: Store) -> None:
    queue = make_queue(store)
    entry = await store.command(
        "XADD", store.key("ready", "console"), "*", "x", b"\xff".decode("latin")
    )

    (token,) = await ready(queue)
    assert await queue.leases.take(token) is None

    assert token == Token("console", entry)
    assert await store.command("XLEN", store.key("ready", "console")) == 0


async def test_threads_in_line_and_turns_at_work_outlive_the_stream(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["word "] * 10, pause=0.05)
    first, second = await in_a_new_thread(store)

    async with working(make_worker(store, platform, model)):
        await until_taken(store, first)
        waiting = [await in_a_new_thread(store) for _ in range(3)]
        await store.command("DEL", store.key("ready", "console"))
        for one, _ in ((first, second), *waiting):
            await until_idle(store, one.key)

    answered = [await is_answered(store, other) for _, other in ((first, second), *waiting)]
    assert all(answered)


async def test_turns_that_are_gone_do_not_count_against_their_person(store: Store) -> None:
    queue = make_queue(store, "intake")
    gone = [f"console:gone {number}" for number in range(100)]
    for name in ("open:console:::u1", "running:console:::u1"):
        await store.command("SADD", store.key(name), *gone)

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        await queue.admit(make_turn())
        await until_idle(store)

    assert await outcome(store) == "done"


async def test_a_thread_waits_for_no_turn_that_is_gone(store: Store) -> None:
    queue = make_queue(store, limits=replace(LIMITS, running_per_person=1))
    for number, thread in ((1, "t1"), (2, "t2")):
        await queue.admit(make_turn(number, thread=thread))
    await take(queue)
    (token,) = await ready(queue)
    assert await queue.leases.take(token) is None
    await store.command("DEL", store.key("turn", "console:1"))

    await queue.leases.reclaim(["console"], count=1)

    async with asyncio.timeout(60):
        assert (await take(queue)).turn.id == "console:2"


@pytest.mark.parametrize("becomes_of_it", [("DEL",), ("LSET", 0, "another")])
async def test_turns_that_their_threads_do_not_know_keep_their_person_from_nothing(
    store: Store, becomes_of_it: tuple[str, ...]
) -> None:
    queue = make_queue(store, limits=replace(LIMITS, running_per_person=1))
    await queue.admit(make_turn(1))
    await take(queue)
    verb, *words = becomes_of_it
    await store.command(verb, store.key("mailbox", str(KEY)), *words)

    await queue.admit(make_turn(2, thread="t2"))

    async with asyncio.timeout(60):
        assert (await take(queue)).turn.id == "console:2"


@pytest.mark.parametrize("at", ["9e15", "inf", "1e300"])
async def test_a_turn_is_tried_again_however_late_its_record_says(store: Store, at: str) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    await queue.leases.release(await take(queue), delay_seconds=60, counts=True)
    await store.command("ZADD", store.key("later", "console"), at, str(KEY))

    await queue.leases.reclaim(["console"], count=1)

    async with asyncio.timeout(60):
        assert (await take(queue)).attempts == 2


@pytest.mark.parametrize(("seconds", "kept"), [(60.0, 60.0), (1e300, 86400.0)])
async def test_a_pause_is_kept_and_lasts_a_day_at_most(
    store: Store, seconds: float, kept: float
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    await queue.leases.release(await take(queue), delay_seconds=seconds, counts=True)

    await queue.leases.reclaim(["console"], count=1)

    ends = await store.command("ZSCORE", store.key("later", "console"), str(KEY))
    assert float(ends) / 1000 - time.time() == pytest.approx(kept, abs=10)


async def test_threads_go_on_whose_tokens_nobody_is_given_any_more(store: Store) -> None:
    gone, turns = (
        make_queue(store, "gone"),
        [make_turn(each, thread=f"t{each}") for each in (1, 2, 3)],
    )
    stream = store.key("ready", "console")
    for turn in turns:
        await gone.admit(turn)
    await take(gone)  # the first one; the second one's token is read, the third one's is not
    await ready(gone)

    await store.command("XGROUP", "DELCONSUMER", stream, "workers", "gone")
    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        for turn in turns:
            await until_idle(store, turn.key)

    assert all([await is_answered(store, turn) for turn in turns])
    assert await store.command("XLEN", stream) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("XGROUP", "SETID", "ready:console", "workers", "9999999999999-0"),
        ("XADD", "ready:console", f"{2**64 - 1}-{2**64 - 1}", "one", "two"),
    ],
)
async def test_threads_go_on_whose_stream_gives_out_no_more(
    store: Store, words: tuple[str, ...]
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))
    await take(queue)
    command = [store.key(one) if one == "ready:console" else one for one in words]
    await store.command(*command)

    await queue.admit(make_turn(2, thread="t2"))

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]), name="w2")):
        await until_idle(store, make_turn(2, thread="t2").key)
    assert await is_answered(store, make_turn(2))


async def test_a_full_thread_whose_keys_were_lost_is_picked_up_again(store: Store) -> None:
    queue = make_queue(store, limits=replace(LIMITS, waiting_per_thread=1))
    await queue.admit(make_turn(1))
    await store.command("DEL", *map(store.key, ("open", "line:console", "ready:console")))

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        with suppress(ThreadBusy):
            await queue.admit(make_turn(2))
        await until_idle(store)


async def test_turns_that_are_gone_take_no_room_from_their_person(store: Store) -> None:
    queue, turn = make_queue(store, "intake"), make_turn()
    gone = [f"console:gone {number}" for number in range(100)]
    await store.command("SADD", store.key("open:console:::u1"), *gone)

    await queue.check_room(turn)


async def test_room_is_told_where_a_key_of_another_type_stands(store: Store) -> None:
    queue, turn = make_queue(store, "intake"), make_turn()
    for name in ("open:console:::u1", "open"):
        await store.command("SET", store.key(name), "text")

    await queue.check_room(turn)


async def test_turns_that_are_gone_do_not_fill_the_queue_for_good(store: Store) -> None:
    queue = make_queue(store, "intake")
    for number in range(LIMITS.waiting):
        await store.command("ZADD", store.key("open"), 1, f"console:gone {number}")

    assert await queue.admit(make_turn())


@pytest.mark.parametrize("late", ["garbage", "{}", "[1]", '"m1"'])
async def test_what_was_noted_of_late_writes_ends_no_worker(store: Store, late: str) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    taken = await take(queue)
    await queue.leases.finish(taken, Shown(("m1",), "Hi", "Hi", outcome="done"), None)
    await queue.repairs.report_late_writes(make_turn(), ["m2"])
    await store.command("HSET", store.key("turn", "console:1"), "late", late)

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        await queue.admit(make_turn(2, thread="t2"))
        async with asyncio.timeout(30):
            while await store.command("ZCARD", store.key("mend", "console")):
                await asyncio.sleep(LEASE / 3)
        await until_idle(store, replace(KEY, thread="t2"))

    assert await outcome(store, 2) == "done"


async def test_late_writes_that_a_record_cannot_tell_are_noted_from_then_on(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    taken = await take(queue)
    await queue.leases.finish(taken, Shown(("m1",), "Hi", "Hi", outcome="done"), None)
    await store.command("HSET", store.key("turn", "console:1"), "late", "garbage")

    await queue.repairs.report_late_writes(make_turn(), ["m2"])

    assert (await due_repair(queue)).late_writes == ("m2",)


@pytest.mark.parametrize("thread", ["garbage", "a:b:c:d:e", "slack:T:C:1", ""])
async def test_a_message_whose_thread_cannot_be_read_has_none(store: Store, thread: str) -> None:
    await store.command("SET", store.key("posted", "console", "m1"), thread)

    assert await make_queue(store).thread_of("console", "m1") is None


@pytest.mark.parametrize("thread", ["garbage", "a:b:c:d:e", "slack:T:C:1", ""])
async def test_a_turn_whose_thread_cannot_be_read_has_none(store: Store, thread: str) -> None:
    await store.command("HSET", store.key("turn", "console:1"), "thread", thread, "state", "done")

    assert await make_queue(store).thread_of_turn("console:1") is None


async def test_every_key_expires(store: Store) -> None:
    platform = FakePlatform()
    queue, history = make_queue(store), History(store=store, keep_seconds=60)

    async with working(make_worker(store, platform, FakeModel(["Hi"]))):
        # The stream is there before anything is asked.
        async with asyncio.timeout(30):
            while not await store.command("EXISTS", store.key("ready", "console")):
                await asyncio.sleep(0.01)
        unasked = await lasting(store)
        for number in (1, 2, 3):
            await queue.admit(make_turn(number))
        await history.save_name(KEY, Person("u3", "Cy"))
        await queue.forget("console:never")
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


@pytest.mark.parametrize("name", ["turn:console:1", f"mailbox:{KEY}"])
async def test_the_next_turn_is_answered_if_a_key_of_a_running_one_is_lost(
    store: Store, name: str
) -> None:
    queue, platform = make_queue(store, "intake"), FakePlatform()

    async with working(make_worker(store, platform, FakeModel(["word "] * 20, pause=0.05))):
        await queue.admit(make_turn(1))
        await until(lambda: platform.shown.screen)
        await store.command("DEL", store.key(name))
        await queue.admit(make_turn(2))
        await until_idle(store)
        while not (ended := await queue.result("console:2")):
            await asyncio.sleep(0.05)

    assert ended.outcome == "done"
