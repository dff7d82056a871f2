"""What a thread remembers is kept while it is used, and can be forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bot.domain import ContextMessage, Exchange, FileRef, FileText, Person, Shown, Turn
from bot.store import Store
from bot.turns.queue import TurnQueue
from bot.turns.records import History, read_exchange, write_context, write_exchange, write_turn
from bot.turns.script import Limits
from tests.support.at_work import KEY, make_turn, take
from tests.support.stored import stored
from tests.turns.test_queue import finish, make_queue

DAY = 24 * 3600.0  # seconds
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


DAYS = {"T7": 7, "T0": 0, "T90": 90}


async def test_each_server_has_days_of_its_own(store: Store) -> None:
    how: dict[str, Any] = {"keep_seconds": 30 * DAY, "server_days": DAYS}
    limits = Limits(waiting_per_thread=9, waiting_per_person=9, waiting=99, running_per_person=9)
    queue = TurnQueue(store=store, worker="w", limits=limits, lease_seconds=9, **how)
    history, turns = History(store=store, **how), dict[str, str]()
    for number, server in enumerate((*DAYS, "T30", ""), start=1):
        key = replace(KEY, workspace=server, thread=f"t{number}")
        for question in (number * 10, number * 10 + 1):
            said = ContextMessage(f"console:{question + 500}", Person("u3", "Cy"), "We deploy.")
            turn = replace(make_turn(question, key=key), context=(said,), person=Person("u1", "u1"))
            turns |= {turn.id: server, said.id: server}
            await queue.admit(turn)
            taken = await take(queue)
            await queue.leases.save_file(taken, turn.id, "console:f", FileText("text"))
            await queue.leases.save_step(taken, "asked:c1", "1 d name", effect="e", counts=False)
            exchange = Exchange(turn.id, turn.person, 1000.0, turn.text, "walrus")
            shown = Shown((f"m{question}",), "walrus", "walrus", outcome="done")
            turns[f"console:m{question}"] = server
            await queue.leases.finish(taken, shown, exchange)
            if history.remembers_in(key):
                await queue.changes.rate(turn.id, person_id="u4", rating="good")
        await history.read(key)
        await history.save_name(key, Person("u1", "Ann"))
        await history.claim_truncation_notice(key, turn.id)
    for number, server in enumerate((*DAYS, "T30", ""), start=1):
        key = replace(KEY, workspace=server, thread=f"t{number}")
        turns[f"console:waits{number}"] = server
        await queue.admit(replace(make_turn(1, key=key), id=f"console:waits{number}"))

    found = await stored(store)

    of_server = dict[str, set[str]]()
    for one in found:
        kind, _, rest = one.name.partition(":")
        parts = rest.split(":")
        of_turn = turns.get(rest) if len(parts) == 2 else None
        place = parts[1] if len(parts) == 4 and parts[3].startswith("t") else of_turn
        if place is not None:
            of_server.setdefault(place, set()).add(kind)
            most = (DAYS.get(place, 30) or 1) * DAY * 1000
            # Without a history, texts expire soon.
            has_ended = place == "T0" and kind in ("turn", "context", "files", "effects")
            soon = has_ended and "waits" not in rest
            assert one.expires_ms < 120_000 if soon else most / 2 < one.expires_ms <= most, one
        elif kind in ("kept", "of", "repairs"):
            # Others are kept as long as any server needs them.
            assert one.expires_ms > 89 * DAY * 1000
    kinds = {"turn", "context", "files", "effects", "posted", "newest", "names", "told"}
    assert kinds | {"history", "ratings", "heard", "turns"} <= of_server["T7"]
    assert of_server["T7"] == of_server["T30"] == of_server[""] == of_server["T90"]
    assert of_server["T0"] >= {"turn", "answered"}
    assert not of_server["T0"] & {"history", "ratings"}


async def test_a_server_may_be_remembered_where_others_are_not(store: Store) -> None:
    how: dict[str, Any] = {"keep_seconds": DAY, "remembers": False, "server_days": {"T7": 7}}
    limits = Limits(waiting_per_thread=9, waiting_per_person=9, waiting=99, running_per_person=9)
    queue = TurnQueue(store=store, worker="w", limits=limits, lease_seconds=9, **how)
    read = list[int]()
    for number, server in enumerate(("T7", "T30")):
        key = replace(KEY, workspace=server)
        await queue.admit(make_turn(number, key=key))
        await finish(queue, await take(queue))
        read.append(len(await History(store=store, **how).read(key)))

    assert read == [1, 0]


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
