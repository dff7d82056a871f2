"""What a thread remembers is kept while it is used, and can be forgotten."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bot.domain import ContextMessage, Exchange, Person, ThreadKey
from bot.store import Store
from bot.turns.records import History, read_exchange, write_exchange
from tests.turns.test_queue import make_queue

KEY = ThreadKey("console", "local", "ann", "t1")
EXCHANGE = Exchange("console:1", Person("u1", "Ann"), 1000.5, "question", "answer")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, TEXT, TEXT)
def test_an_exchange_is_read_back_as_it_was_written(name: str, question: str, answer: str) -> None:
    exchange = Exchange("console:1", Person("u1", name), 1000.5, question, answer)

    assert read_exchange(write_exchange(exchange)) == exchange


async def test_reading_keeps_a_history_for_another_while(store: Store) -> None:
    name = store.key("history", str(KEY))
    await store.command("RPUSH", name, write_exchange(EXCHANGE))
    await store.command("EXPIRE", name, 5)

    read = await History(store=store, keep_seconds=60).read(KEY)

    assert read == [EXCHANGE]
    assert await store.command("TTL", name) > 50


async def test_a_late_name_is_that_of_the_person_without_one(store: Store) -> None:
    history = History(store=store, keep_seconds=60)
    bob, rob = (replace(EXCHANGE, person=Person("u2", name)) for name in ("Bob", "Rob"))
    for exchange in (replace(EXCHANGE, person=Person("u1", "u1")), bob, rob):
        await store.command("RPUSH", store.key("history", str(KEY)), write_exchange(exchange))

    await history.save_name(KEY, Person("u1", "Ann"))
    await history.save_name(KEY, Person("u2", "Bobby"))

    assert await history.read(KEY) == [EXCHANGE, bob, rob]
    assert await store.command("TTL", store.key("names", str(KEY))) > 50


async def test_a_message_is_kept_until_a_question_about_it_is_written(store: Store) -> None:
    history = History(store=store, keep_seconds=60)
    message = ContextMessage("discord:1", Person("u1", "Ann"), "We deploy.")

    await history.keep_message("discord:9", message)

    assert await history.kept_message("discord:9") == message
    assert await history.kept_message("discord:8") is None
    assert 0 < await store.command("TTL", store.key("message", "discord:9")) <= 3600


async def test_a_reset_thread_knows_nobody_and_remembers_nothing(store: Store) -> None:
    history = History(store=store, keep_seconds=60)
    await store.command("RPUSH", store.key("history", str(KEY)), write_exchange(EXCHANGE))
    await history.save_name(KEY, Person("u1", "Ann"))

    await make_queue(store).changes.reset(KEY)

    assert await history.read(KEY) == []
    assert not await store.command("EXISTS", store.key("names", str(KEY)))
