"""What is read before a question, on a real homeserver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from adapters.matrix.client import connected
from adapters.matrix.context import earlier, read_context
from adapters.matrix.rooms import Rooms
from bot.domain import ContextMessage, Person, ThreadKey, Turn
from tests.support.synapse import Member, Synapse


@dataclass
class Room:
    ann: Member
    ben: Member
    bot: Member
    id: str
    rooms: Rooms

    async def turn(self, text: str, *, thread: str = "", by: Member | None = None) -> Turn:
        """Ask, and return the turn as a worker has it."""
        who = by or self.ann
        asked = await who.say(self.id, text, to=[self.bot], thread=thread)
        event = await self.rooms.client.event(self.id, asked)
        return Turn(
            id=f"matrix:{asked}",
            key=ThreadKey("matrix", "synapse.test", self.id, thread or asked),
            person=Person(who.user_id, who.name),
            text=text,
            place={"room": self.id, "thread": thread or asked, "question": asked},
            asked_at=event["origin_server_ts"] / 1000,
        )


@pytest.fixture
async def room(synapse: Synapse) -> AsyncIterator[Room]:
    ann, ben, bot = [await synapse.person(name) for name in ("ann", "ben", "parley")]
    id_ = await ann.create_room(ben, bot)
    await ben.join(id_)
    await bot.join(id_)
    async with connected(synapse.url, bot.token) as client:
        yield Room(ann, ben, bot, id_, Rooms(client))


def shown(messages: Sequence[ContextMessage]) -> list[tuple[str, str]]:
    return [(one.person.name if one.person else "", one.text) for one in messages]


async def test_a_thread_is_read_with_its_root_and_its_edits(room: Room) -> None:
    root = await room.ann.say(room.id, "Lunch?")
    said = await room.ben.say(room.id, "Pizzza", thread=root)
    await room.ben.say(room.id, "Pizza", edit_of=said)
    gone = await room.ben.say(room.id, "never mind", thread=root)
    await room.ben.redact(room.id, gone)
    await room.ann.react(room.id, said, "👍")
    await room.bot.say(room.id, "Soup", thread=root)
    await room.ann.say(room.id, "beside the thread")
    turn = await room.turn("Which?", thread=root)
    await room.ben.say(room.id, "too late", thread=root)

    found = await read_context(room.rooms, turn, since="", most=50)
    last = await read_context(room.rooms, turn, since="", most=1)

    assert shown(found) == [("ann", "Lunch?"), ("ben", "Pizza"), ("", "Soup")]
    assert [one.in_thread for one in found] == [True, True, False]
    assert shown(last) == [("ann", "Lunch?"), ("", "Soup")]


async def test_later_only_what_came_since_the_last_answer_is_read(room: Room) -> None:
    root = await room.ann.say(room.id, "Lunch?")
    first = await room.turn("Which?", thread=root)
    await room.ben.say(room.id, "Pizza", thread=root)
    turn = await room.turn("And now?", thread=root)

    found = await read_context(room.rooms, turn, since=first.id, most=50)

    assert shown(found) == [("ben", "Pizza")]


async def test_a_question_that_begins_a_thread_has_nothing_before_it(room: Room) -> None:
    await room.ben.say(room.id, "beside it")
    turn = await room.turn("why?")

    assert not await read_context(room.rooms, turn, since="", most=50)


async def test_where_history_is_hidden_nothing_is_read(room: Room) -> None:
    root = await room.ann.say(room.id, "Lunch?")
    path = f"rooms/{room.id}/state/m.room.history_visibility/"
    await room.ann.call("PUT", path, {"history_visibility": "invited"})
    turn = await room.turn("Which?", thread=root)

    found = await read_context(room.rooms, turn, since="", most=50)
    read = earlier(room.rooms, turn)

    assert not found
    assert read
    assert not (await read(turn.asked_at, 30)).messages


async def test_a_room_is_read_back_page_by_page(room: Room) -> None:
    root = await room.ann.say(room.id, "0")
    for number in range(1, 25):
        await room.ann.say(room.id, f"{number}")
    await room.ben.say(room.id, "in a thread", thread=root)
    turn = await room.turn("What was said?")
    await room.ann.say(room.id, "later")
    read = earlier(room.rooms, turn)
    assert read

    texts, before = list[str](), turn.asked_at
    for _ in range(9):
        page = await read(before, 10)
        texts[:0] = [one.text for _, one in page.messages]
        if not page.unread_before:
            break
        # As the tool gives it back.
        before = float(f"{page.unread_before:.6f}")

    assert texts == [f"{number}" for number in range(25)]


async def test_a_thread_is_read_back_alone(room: Room) -> None:
    root = await room.ann.say(room.id, "root")
    for number in range(5):
        await room.ben.say(room.id, f"{number}", thread=root)
    await room.ann.say(room.id, "beside it")
    turn = await room.turn("What was said?", thread=root)
    read = earlier(room.rooms, turn)
    assert read

    page = await read(turn.asked_at, 30)

    assert shown([one for _, one in page.messages]) == [("ben", f"{n}") for n in range(5)]


async def test_a_direct_room_has_no_more_than_its_history(room: Room) -> None:
    turn = Turn(
        *("matrix:$a", ThreadKey("matrix", "s", room.id, room.id), Person("@a:s", "a"), "x"),
        *({"room": room.id, "thread": "", "question": "$a"}, 0.0),
    )

    assert earlier(room.rooms, turn) is None
    assert not await read_context(room.rooms, turn, since="", most=50)
