"""Records that another version wrote, or nobody can read, hold up nobody."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.domain import ContextMessage, Exchange, Person, Place, Shown, ThreadKey, Turn
from bot.store import Store
from bot.turns.forgetting import named
from bot.turns.queue import Taken, TurnLeases
from bot.turns.records import History
from bot.turns.script import QueueScript
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

CONTEXT_OF_BOB = (ContextMessage("console:9", Person("u2", "Bob"), "We deploy."),)
# What this version writes. Later versions have to read it: add to it, and change nothing.
RECORD = {
    "state": "queued",
    "fence": "1",
    "attempts": "1",
    "position": "1763818000000000",
    "thread": "console:local:ann:t1",
    "person": "console:::u1",
    "asker": "u1",
    "name": "Ann",
    "workspace": "",
    "zone": "UTC",
    "asked_at": "1000.5",
    "text": "question 1",
    "left_out": "3",
    "where": "#general",
    "place": '{"channel": "7"}',
    "pressed_place": '{"press": "p"}',
    "context_read": "1",
    "message_ids": "m1\nm2",
    "shown": "Half a thought",
    "said": "4",
    "below": "By another.",
    "outcome": "done",
    "ended": "cut",
    "by": "small",
    "removed": "m0",
    "used": "7",
    "max_progress": "14",
    "previous_answer": "An older thought",
    "worker": "w0",
}
CONTEXT = (
    'quote\nconsole:8\n\n{"id": "console:8", "person": null, "text": "I said so."}',
    "message\nconsole:9\nu2\n"
    '{"id": "console:9", "person": {"id": "u2", "name": "Bob"}, "text": "We deploy."}',
)
ANSWERED = {
    "state": "done",
    "thread": "console:local:ann:t1",
    "asker": "u2",
    "name": "Bob",
    "asked_at": "900.5",
    "text": "What is it now?",
    "question": "What is it?",
    "answer": "A thing.",
    "model": "small",
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
    quote=ContextMessage("console:8", None, "I said so."),
    context=(ContextMessage("console:9", Person("u2", "Bob"), "We deploy."),),
)
LEFT = Shown(
    ("m1", "m2"), "Half a thought", "Half", "By another.", "done", "cut", "small", removed=("m0",)
)

fresh = itertools.count(1)


async def stored(store: Store, record: dict[str, str], *, turn_id: str = "console:1") -> None:
    """Write a turn that waits, key by key, as a version did."""
    await store.command("HSET", store.key("turn", turn_id), *itertools.chain(*record.items()))
    await store.command("RPUSH", store.key("context", turn_id), *CONTEXT)
    await store.command("RPUSH", store.key("mailbox", str(KEY)), turn_id)
    await store.command("ZADD", store.key("open"), 1, turn_id)
    await store.command("ZADD", store.key("ready", "console"), 1, str(KEY))


async def test_a_record_of_this_version_is_read_whole(store: Store) -> None:
    await stored(store, RECORD)

    taken = await take(make_queue(store))

    assert (taken.turn, taken.shown, taken.previous_answer) == (READ, LEFT, "An older thought")
    assert (taken.fence, taken.attempts) == (2, 2)


async def remember(store: Store, turn_id: str, record: dict[str, str]) -> None:
    await store.command("HSET", store.key("turn", turn_id), *itertools.chain(*record.items()))
    await store.command("RPUSH", store.key("history", str(KEY)), turn_id)


async def test_an_exchange_of_this_version_is_read_whole(store: Store) -> None:
    await remember(store, "console:0", ANSWERED)
    await store.command("RPUSH", store.key("context", "console:0"), *CONTEXT)

    (exchange,) = await History(store=store, keep_seconds=60).read(KEY)

    assert exchange == Exchange(
        "console:0",
        Person("u2", "Bob"),
        900.5,
        "What is it?",
        "A thing.",
        quote=READ.quote,
        context=READ.context or (),
        model="small",
    )


async def test_this_version_writes_what_is_kept_here_for_later_ones(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(replace(READ, place={"channel": "7"}))

    taken = await take(queue)
    await queue.leases.save(taken, LEFT, used=7)

    written = await store.command("HGETALL", store.key("turn", "console:1"))
    others = [
        "state",
        "fence",
        "attempts",
        "position",
        "pressed_place",
        "previous_answer",
        "worker",
    ]
    same = RECORD.keys() - others - {"pressed_place", "previous_answer"}
    assert {one: written[one] for one in same} == {one: RECORD[one] for one in same}
    lines = await store.command("LRANGE", store.key("context", "console:1"), 0, -1)
    assert lines == list(CONTEXT)


async def test_a_turn_of_a_newer_version_is_answered(store: Store) -> None:
    known = {one: RECORD[one] for one in ("thread", "person", "asker", "text", "place")}
    record = {"state": "queued", "files": "a.txt", "written_by": "another version", **known}

    async with working(make_worker(store, platform := FakePlatform(), FakeModel(["Hi"]))):
        await stored(store, record)
        await until(lambda: platform.shown.text.startswith("Hi"))
        await until_idle(store)

    assert await remembered(store) == [("question 1", "Hi")]


async def test_exchanges_that_cannot_be_read_are_left_out_with_one_line_each(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await remember(store, "console:7", {**ANSWERED, "asked_at": "garbage"})
    await remember(store, "console:0", ANSWERED)
    await store.command("RPUSH", store.key("context", "console:0"), "message\n1\n2\n[")
    await store.command("RPUSH", store.key("history", str(KEY)), "console:expired")

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        await make_queue(store).admit(make_turn())
        await until_idle(store)

    assert await outcome(store) == "done"
    levels = [one.levelname for one in caplog.records if "read" in one.getMessage()]
    assert levels == ["WARNING", "WARNING"]
    assert await remembered(store) == [("What is it?", "A thing."), ("question 1", "Hi")]


@pytest.mark.parametrize("line", ["", "message", "message\n1\n2", "later\n1\n2\n{}"])
async def test_a_context_that_cannot_be_read_holds_up_nobody(store: Store, line: str) -> None:
    queue = make_queue(store)
    await queue.admit(replace(make_turn(), context=CONTEXT_OF_BOB))
    await store.command("RPUSH", store.key("context", "console:1"), line)

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]))):
        await until_idle(store)

    (exchange,) = await History(store=store, keep_seconds=60).read(KEY)
    assert (exchange.answer, exchange.context) == ("Hi", CONTEXT_OF_BOB)
    await queue.forgetting.begin(named("person", "console", "u2"))
    await queue.forgetting.carry_out(named("person", "console", "u2"))
    (exchange,) = await History(store=store, keep_seconds=60).read(KEY)
    assert exchange.context == ()


class Twice(QueueScript):
    """Sends a verb again, as after a broken connection."""

    async def run(self, verb: str, *arguments: str | int) -> Any:
        answer = await super().run(verb, *arguments)
        if verb != "give_up":
            return answer
        # Meanwhile somebody takes the next turn.
        await take(make_queue(self.store, "another"))
        return await super().run(verb, *arguments)


async def test_a_turn_is_given_up_once_and_the_next_one_is_not(store: Store) -> None:
    script, queue = Twice(store, keep_seconds=60), make_queue(store)
    leases = TurnLeases(
        script, worker="w1", limits=LIMITS, lease_seconds=30.0, late_write_seconds=0.0
    )
    await queue.admit(make_turn(1))
    await queue.admit(make_turn(2))
    await store.command("HSET", store.key("turn", "console:1"), "place", "[]")

    await leases.take(["console"])

    assert await outcome(store, 1) == "dead"
    assert await queue.lookup.result("console:2") is None


async def until_idle(store: Store, key: ThreadKey = KEY) -> None:
    queue = make_queue(store, "watcher")
    async with asyncio.timeout(30):
        while await queue.lookup.first_open(key):
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


GARBAGE = st.text(max_size=9) | st.sampled_from(("[]", "nan", "-1"))
FIELDS = ("name", "workspace", "zone", "asked_at", "left_out", "place", "pressed_place", "used")


@SAME_STORE
@given(
    garbled=st.lists(
        st.tuples(st.sampled_from(FIELDS), GARBAGE),
        min_size=GARBLED,
        max_size=GARBLED,
    )
)
async def test_a_threads_next_turn_is_answered_whatever_stands_in_the_record_of_the_first(
    store: Store, garbled: Sequence[tuple[str, str]]
) -> None:
    threads = [await in_a_new_thread(store) for _ in garbled]
    for (first, _), (field, garbage) in zip(threads, garbled, strict=True):
        written = garbage.encode(errors="replace").decode()
        await store.command("HSET", store.key("turn", first.id), field, written)

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
