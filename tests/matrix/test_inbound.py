"""What people do in rooms, as the intake hears it, on a real homeserver."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adapters.matrix.client import Event
from bot.domain import ThreadKey
from bot.intake.addressed import Facts
from bot.store import Store
from tests.support.matrix_hearing import Hearing, hearing_of
from tests.support.synapse import Synapse, eventually
from tests.support.waiting import until


@pytest.fixture
async def there(synapse: Synapse, store: Store) -> AsyncIterator[Hearing]:
    """A room with a person, and a bot that hears it."""
    hearing = await hearing_of(synapse, store)
    async with hearing.ear():
        yield hearing


async def _after(there: Hearing, *texts: str) -> None:
    """Return when all that was done before has been heard."""
    await there.call("the end")
    await there.heard(*texts, "the end")


async def test_a_mention_opens_a_thread_below_the_question(there: Hearing) -> None:
    asked = await there.call("why?")

    (turn,) = await there.heard("why?")
    server = there.bot.user_id.partition(":")[2]
    assert turn.key == ThreadKey("matrix", server, there.room, asked)
    assert turn.place == {"room": there.room, "thread": asked, "question": asked}
    assert not turn.asker.direct
    assert turn.asker.home == ""


async def test_words_without_a_mention_are_for_others(there: Hearing) -> None:
    await there.ann.say(there.room, f"I have seen {there.bot.user_id}")
    await there.ann.say(there.room, "stop")

    await _after(there)


async def test_a_thread_of_the_bot_is_followed_while_one_person_speaks(there: Hearing) -> None:
    ben = await there.ann.bring(there.room, "ben")
    asked = await there.call("why?")
    await there.heard("why?")
    await there.ann.say(there.room, "and then?", thread=asked)
    await there.heard("why?", "and then?")

    await ben.say(there.room, "I know it", thread=asked)
    await there.ann.say(there.room, "do you, Ben?", thread=asked)
    await there.call("or you?", thread=asked)

    turns = await there.heard("why?", "and then?", "or you?")
    assert {one.key for one in turns} == {turns[0].key}


async def test_a_reply_to_the_bot_is_for_it_without_a_mention(there: Hearing) -> None:
    asked = await there.call("why?")
    answer = await there.bot.say(there.room, "Because.", thread=asked)

    # A client that knows no threads replies beside it.
    await there.ann.say(there.room, "> <@parley> Because.\n\nWhat of?", reply_to=answer)

    first, reply = await there.heard("why?", "What of?")
    assert reply.key == first.key
    assert reply.quote
    assert (reply.quote.person, reply.quote.text) == (None, "Because.")


async def test_a_reply_to_somebody_else_is_quoted_and_not_for_the_bot(there: Hearing) -> None:
    ben = await there.ann.bring(there.room, "ben")
    said = await ben.say(there.room, "The sky is grene")
    await ben.say(there.room, "The sky is green", edit_of=said)
    await there.ann.say(there.room, "It is blue", reply_to=said)

    await there.call("is that so?", reply_to=said)

    (turn,) = await there.heard("is that so?")
    assert turn.quote
    assert turn.quote.person
    assert (turn.quote.person.name, turn.quote.text) == ("ben", "The sky is green")
    assert there.intake.judged == [Facts(calls_bot=True, calls_other=True)]


async def test_what_a_member_may_not_have_read_is_not_quoted(there: Hearing) -> None:
    said = await there.ann.say(there.room, "a secret of before")
    state = f"rooms/{there.room}/state/m.room.history_visibility/"
    await there.ann.call("PUT", state, {"history_visibility": "joined"})
    ben = await there.ann.bring(there.room, "ben")

    await there.call("what is it?", by=ben, reply_to=said)

    (turn,) = await there.heard("what is it?")
    assert turn.quote is None


async def test_a_fallback_of_a_thread_is_no_reply(there: Hearing) -> None:
    root = await there.ann.say(there.room, "About lunch")

    await there.call("what do you think?", thread=root)

    (turn,) = await there.heard("what do you think?")
    assert turn.quote is None
    assert turn.key.thread == root


async def test_an_edit_changes_a_question(there: Hearing) -> None:
    asked = await there.call("wyh?")
    await there.heard("wyh?")

    await there.call("why?", edit_of=asked)

    async def is_changed() -> bool:
        found = await there.intake.lookup.turn(f"matrix:{asked}")
        return found is not None and found.text == "why?"

    await eventually(is_changed)


async def test_an_edit_that_adds_the_mention_is_a_question(there: Hearing) -> None:
    asked = await there.ann.say(there.room, "why?")
    await there.call("why?", edit_of=asked)

    (turn,) = await there.heard("why?")
    assert turn.id == f"matrix:{asked}"


async def test_nobody_edits_the_question_of_another_person(there: Hearing) -> None:
    ben = await there.ann.bring(there.room, "ben")
    asked = await there.call("why?")
    await there.heard("why?")

    await there.call("forged", by=ben, edit_of=asked)

    await _after(there, "why?")
    found = await there.intake.lookup.turn(f"matrix:{asked}")
    assert found
    assert found.text == "why?"


async def test_a_redacted_question_is_forgotten(there: Hearing) -> None:
    asked = await there.call("why?")
    await there.heard("why?")
    assert await there.intake.lookup.waits(f"matrix:{asked}")

    await there.ann.redact(there.room, asked)

    async def waits() -> bool:
        return await there.intake.lookup.waits(f"matrix:{asked}")

    async def is_gone() -> bool:
        return not await waits()

    await eventually(is_gone)


async def test_files_come_with_the_question(there: Hearing) -> None:
    address = await there.ann.upload("plan.txt", b"a plan", "text/plain")

    await there.call(
        "what is this?", msgtype="m.file", url=address, filename="plan.txt", info={"size": 6}
    )

    (turn,) = await there.heard("what is this?\n[file: plan.txt]")
    (file,) = turn.files
    assert (file.name, file.size, file.message) == ("plan.txt", 6, turn.id)
    assert file.place == {"room": there.room, "mxc": address}


async def test_a_command_is_answered_once_though_it_comes_twice(there: Hearing) -> None:
    asked = await there.ann.say(there.room, "!parley help")
    shown = await there.ann.sees(there.room, len, of=there.bot)
    (ear,) = there.ears
    event = await ear.client.event(there.room, asked)

    await ear.inbound.on_event(there.room, event)

    assert await there.ann.sees(there.room, len, of=there.bot) == shown
    assert not there.texts


async def test_stop_alone_ends_the_answer_and_is_no_question(there: Hearing) -> None:
    asked = await there.call("why?")
    await there.heard("why?")

    stop = await there.ann.say(there.room, "Stop.", thread=asked)
    await until(lambda: there.intake.stopped == [f"matrix:{stop}"])
    await there.call("and now?")
    await there.heard("why?", "and now?")
    # Beside the threads, it is for all of the room.
    other = await there.call("stop")

    await until(lambda: there.intake.stopped == [f"matrix:{stop}", f"matrix:{other}"])
    assert there.texts == ["why?", "and now?"]


async def test_notices_of_other_bots_are_no_questions(there: Hearing) -> None:
    await there.call("I am a bot", msgtype="m.notice")

    await _after(there)


async def test_events_of_every_shape_are_survived(there: Hearing) -> None:
    bot, (ear,) = there.bot.user_id, there.ears
    # Synapse refuses some of them from its own people, but not from other servers.
    for number, content in enumerate(
        (
            {"msgtype": "m.text", "body": 7, "m.mentions": {"user_ids": [bot, 7, None]}},
            {"msgtype": "m.text", "body": "a", "m.mentions": [bot]},
            {"msgtype": "m.text", "body": "b", "m.relates_to": "x", "m.mentions": {"user_ids": 7}},
            {"msgtype": ["m.text"], "body": {"a": 1}},
            {"msgtype": "m.image", "body": "i", "url": 7, "info": [], "filename": {}},
            {"msgtype": "m.text", "body": "c", "m.relates_to": {"m.in_reply_to": {"event_id": 7}}},
            {"msgtype": "m.text", "body": "d", "m.relates_to": _reply("$of/../nothing")},
            [],
        )
    ):
        event: Event = {"type": "m.room.message", "sender": there.ann.user_id}
        event["content"] = content
        for id_ in (f"$odd{number}", 7, None):
            await ear.inbound.on_event(there.room, {**event, "event_id": id_})
    for event in ({}, {"type": 7, "sender": []}, {"type": "m.room.message", "sender": "@a:b"}):
        await ear.inbound.on_event(there.room, event)

    await _after(there)


def _reply(event: str) -> dict[str, object]:
    return {"m.in_reply_to": {"event_id": event}}


async def test_what_was_said_long_ago_is_not_answered_after_an_outage(there: Hearing) -> None:
    (ear,), asked = there.ears, await there.ann.say(there.room, "why?")
    event = await ear.client.event(there.room, asked)
    event["content"]["m.mentions"] = {"user_ids": [there.bot.user_id]}

    await ear.inbound.on_event(there.room, {**event, "origin_server_ts": 1_000_000_000})
    assert not there.texts
    await ear.inbound.on_event(there.room, event)

    assert there.texts == ["why?"]


async def test_no_thread_begins_with_what_relates_to_another_message(there: Hearing) -> None:
    (ear,), bot = there.ears, there.bot.user_id
    relation = {"rel_type": "m.reference", "event_id": await there.ann.say(there.room, "that")}
    content = {"msgtype": "m.text", "body": "this?", "m.mentions": {"user_ids": [bot]}}
    event = {"type": "m.room.message", "sender": there.ann.user_id, "event_id": "$related"}

    await ear.inbound.on_event(
        there.room, {**event, "content": {**content, "m.relates_to": relation}}
    )

    (turn,) = await there.heard("this?")
    assert (turn.key.thread, turn.place["thread"]) == ("$related", "")


async def test_a_direct_room_that_is_handed_on_keeps_what_its_members_may_not_read(
    there: Hearing,
) -> None:
    hidden = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    there.room = await there.ann.create_room(
        there.bot, direct=True, initial_state=[{**hidden, "state_key": ""}]
    )
    await there.bot.join(there.room)
    await there.ann.say(there.room, "a secret")
    await there.heard("a secret")
    ben = await there.ann.bring(there.room, "ben")
    await there.ann.leave(there.room)

    await ben.say(there.room, "what was said?")
    await ben.say(there.room, "tell me")

    first, other, same = await there.heard("a secret", "what was said?", "tell me")
    assert first.key != other.key
    assert other.key == same.key
    assert other.asker.direct
