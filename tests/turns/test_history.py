"""What a thread remembers is kept while it is used, and can be forgotten."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bot.domain import ContextMessage, Exchange, FileRef, Person, Shown, Turn
from bot.store import Store
from bot.turns.records import History, read_exchange, write_context, write_exchange, write_turn
from tests.support.at_work import KEY, make_turn, take
from tests.turns.test_queue import finish, make_queue

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3))
def test_an_exchange_is_read_back_as_it_was_written(
    name: str, question: str, answer: str, others: list[str]
) -> None:
    context = tuple(ContextMessage("console:9", Person("u2", name), one) for one in others)
    person = Person("u1", name or "u1")
    turn = Turn("console:1", KEY, person, "as it was edited", {}, 1000.5, context=context)
    files = (FileRef("console:7", "console:1", name, 3, {"at": "here"}),)
    exchange = Exchange(
        "console:1", person, 1000.5, question or "?", answer, context=context, files=files
    )
    record = {**json.loads(write_turn(turn)), **json.loads(write_exchange(exchange))}
    names = ("asker", "name", "asked_at", "text", "question", "answer", "model", "files")

    lines = json.loads(write_context(None, context))
    fields = [record.get(one) for one in (*names, "question_files")]
    read = read_exchange("console:1", fields, lines)

    assert read == exchange


async def remember(store: Store, number: int, person: Person) -> Exchange:
    """Answer a question of a person."""
    queue, turn = make_queue(store), replace(make_turn(number), person=person)
    await queue.admit(turn)
    exchange = Exchange(turn.id, person, turn.asked_at, turn.text, "answer")
    shown = Shown((f"m{number}",), "answer", "answer", outcome="done")
    await queue.leases.finish(await take(queue), shown, exchange)
    return exchange


async def test_an_answer_keeps_all_that_its_thread_remembers(store: Store) -> None:
    context = (ContextMessage("console:9", Person("u3", "Cy"), "We deploy."),)
    queue, first = make_queue(store), replace(make_turn(1), context=context)
    await queue.admit(first)
    await finish(queue, await take(queue))
    await queue.changes.rate(first.id, person_id="u4", rating="good")
    names = [("history", str(KEY)), ("heard", "console:9"), ("of", "console", "u3")]
    names += [(kind, first.id) for kind in ("turn", "context", "ratings")]
    for name in names:
        await store.command("EXPIRE", store.key(*name), 5)

    await remember(store, 2, Person("u1", "Ann"))

    kept = [await store.command("TTL", store.key(*name)) for name in names]
    assert min(kept) > 50, dict(zip(names, kept, strict=True))


async def test_a_late_name_is_that_of_the_person_without_one(store: Store) -> None:
    history = History(store=store, keep_seconds=60)
    unnamed, bob, rob = [
        await remember(store, number, person)
        for number, person in enumerate(
            (Person("u1", "u1"), Person("u2", "Bob"), Person("u2", "Rob")), start=1
        )
    ]

    await history.save_name(KEY, Person("u1", "Ann"))
    await history.save_name(KEY, Person("u2", "Bobby"))
    await store.command("EXPIRE", store.key("names", str(KEY)), 5)

    assert await history.read(KEY) == [replace(unnamed, person=Person("u1", "Ann")), bob, rob]
    assert await store.command("TTL", store.key("names", str(KEY))) > 50


async def test_where_nothing_is_remembered_what_was_said_before_goes(store: Store) -> None:
    context = (ContextMessage("console:9", Person("u3", "Cy"), "We deploy."),)
    queue, turn = make_queue(store), replace(make_turn(1), text="Which walrus?", context=context)
    await queue.admit(turn)
    await finish(queue, await take(queue), answer="The big one")
    await queue.changes.rate(turn.id, person_id="u4", rating="good")
    again = replace(make_turn(2), text="Which ocean?")
    await queue.admit(again)
    await finish(queue, await take(queue), answer="All of them")
    await queue.changes.regenerate("console:2", person_id="u1", press_id="p1")

    read = await History(store=store, keep_seconds=60, remembers=False).read(KEY)

    record = await store.command("HGETALL", store.key("turn", turn.id))
    assert (read, [one for one in record.values() if "walrus" in one or "big" in one]) == ([], [])
    assert (await take(queue)).turn.text == again.text
    for kind, name in (("history", str(KEY)), ("context", turn.id), ("ratings", turn.id)):
        assert not await store.command("EXISTS", store.key(kind, name))


async def test_a_message_is_kept_until_a_question_about_it_is_written(store: Store) -> None:
    history = History(store=store, keep_seconds=60)
    message = ContextMessage("discord:1", Person("u1", "Ann"), "We deploy.")

    await history.keep_message("discord:9", message)

    assert await history.kept_message("discord:9") == message
    assert await history.kept_message("discord:8") is None
    assert 0 < await store.command("TTL", store.key("message", "discord:9")) <= 3600


async def test_a_reset_thread_knows_nobody_and_remembers_nothing(store: Store) -> None:
    history = History(store=store, keep_seconds=60)
    await remember(store, 1, Person("u1", "u1"))
    await history.save_name(KEY, Person("u1", "Ann"))

    await history.claim_truncation_notice(KEY, "console:1")

    await make_queue(store).changes.reset(KEY)

    assert await history.read(KEY) == []
    assert await history.claim_truncation_notice(KEY, "console:2")


async def test_a_question_that_waits_quotes_nothing_after_a_reset(store: Store) -> None:
    queue = make_queue(store)
    quote = ContextMessage("console:9", Person("u3", "Cy"), "We deploy.")
    await queue.admit(replace(make_turn(1), quote=quote))

    await queue.changes.reset(KEY)

    assert (await take(queue)).turn.quote is None
    assert not await store.command("EXISTS", store.key("names", str(KEY)))
