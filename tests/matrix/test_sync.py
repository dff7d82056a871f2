"""What is heard, once and in order, on a real homeserver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

from adapters.matrix.client import Event, MatrixClient
from adapters.matrix.events import turn_id
from adapters.matrix.platform import IsOwed
from bot.access.rules import AccessRules
from bot.errors import (
    CannotStart,
    LeaseLost,
    StoreUnavailable,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.store import Store
from tests.support.matrix_hearing import Ear, Hearing, hearing_of
from tests.support.synapse import Synapse, eventually
from tests.support.waiting import until

Ask = Callable[[], Awaitable[Event]]


def changing(change: Callable[[str, Ask], Awaitable[Event]]) -> Callable[[MatrixClient], None]:
    """Return what hands the requests of a client, by their paths, to `change`."""

    def prepare(client: MatrixClient) -> None:
        call = client.call

        async def changed(method: str, path: str, **options: Any) -> Event:
            return await change(path, partial(call, method, path, **options))

        client.call = changed  # type: ignore[method-assign]

    return prepare


@pytest.fixture
async def there(synapse: Synapse, store: Store) -> Hearing:
    """A room with a person and a bot, which hears nothing before `ear`."""
    return await hearing_of(synapse, store)


class Stumbling:
    """Handles events after some failures of each kind; `came` are the bodies of all."""

    def __init__(self, ear: Ear, *failures: Exception) -> None:
        self._real, self._failures = ear.inbound.on_event, list(failures)
        self.came: list[str] = []
        ear.inbound.on_event = self.on_event  # type: ignore[method-assign]

    async def on_event(self, room: str, event: Event) -> None:
        if event["type"] == "m.room.message":
            self.came.append(event["content"]["body"])
            if self._failures:
                raise self._failures.pop(0)
        await self._real(room, event)


async def test_a_question_after_the_first_start_is_heard_and_none_before(there: Hearing) -> None:
    await there.call("too early")

    async with there.ear():
        asked = await there.call("why?")

        (turn,) = await there.heard("why?")
        assert turn.id == f"matrix:{asked}"
        assert turn.person.name == "ann"
        assert turn.where == "Garden"


async def test_an_invited_bot_hears_what_was_asked_with_the_invitation(there: Hearing) -> None:
    before = await there.ann.create_room(name="Old")
    await there.ann.say(before, "before it was invited", to=[there.bot])
    await there.ann.invite(before, there.bot)
    await there.ann.say(before, "in the old room?", to=[there.bot])
    direct = await there.ann.create_room(there.bot, direct=True)
    for number in range(60):  # more than /sync gives
        await there.ann.say(before, f"{number}")
    await there.ann.say(direct, "hello")

    async with there.ear():
        await until(lambda: set(there.texts) == {"in the old room?", "hello"})

        turn = next(one for one in there.turns if one.text == "hello")
        assert turn.asker.direct
        assert turn.key.thread == direct


async def test_what_was_said_while_nobody_heard_comes_whole_and_in_order(there: Hearing) -> None:
    async with there.ear():
        await there.call("first")
        await there.heard("first")
    wanted = ["first"]
    for number in range(170):
        if number % 40 == 0:
            await there.call(f"question {number}")
            wanted.append(f"question {number}")
        else:
            await there.ann.say(there.room, f"{number}")

    async with there.ear():
        await there.heard(*wanted)


async def test_after_a_failure_the_same_events_come_again(there: Hearing) -> None:
    async with there.ear() as ear:
        stumbling = Stumbling(ear, StoreUnavailable("away"), WriteFailed("slow"))
        await there.call("why?")

        await there.heard("why?")
        assert len(stumbling.came) == 3


async def test_a_place_is_saved_only_behind_what_was_handed_over(there: Hearing) -> None:
    async with there.ear() as ear:
        Stumbling(ear, *[StoreUnavailable("away")] * 50)
        await there.call("why?")
        await until(lambda: ear.platform.downtime.seconds())
    assert there.texts == []

    async with there.ear():
        await there.heard("why?")


async def test_what_was_handed_over_does_not_come_again(there: Hearing) -> None:
    async with there.ear() as ear:
        began = await ear.lease.since()
        await there.call("first")
        await there.heard("first")

        async def is_saved() -> bool:
            return await ear.lease.since() != began

        await eventually(is_saved)


async def test_an_event_that_cannot_be_handled_holds_up_no_other(there: Hearing) -> None:
    async with there.ear() as ear:
        Stumbling(ear, RuntimeError("a bug"))
        await there.call("poison")
        await there.call("why?")

        await there.heard("why?")


async def test_a_room_that_cannot_be_read_holds_up_no_other(there: Hearing) -> None:
    broken = await there.ann.create_room(there.bot)
    await there.bot.join(broken)
    async with there.ear():
        await there.call("first")
        await there.heard("first")
    for number in range(60):  # more than /sync gives
        await there.ann.say(broken, f"{number}")

    async def refuse(path: str, ask: Ask) -> Event:
        if path.endswith("/messages"):
            raise WriteRefused("the room is broken")
        return await ask()

    async with there.ear(prepare=changing(refuse)):
        await there.call("why?")

        await there.heard("first", "why?")


async def test_one_of_several_processes_hears_and_the_next_goes_on(there: Hearing) -> None:
    async with AsyncExitStack() as stack:
        # A busy machine may lose a shorter lease.
        async with there.ear(lease=60.0) as ear:
            first = Stumbling(ear)
            await there.call("first")
            await there.heard("first")
            second = Stumbling(await stack.enter_async_context(there.ear()))
            await there.call("second")
            await there.heard("first", "second")
            assert (len(first.came), len(second.came)) == (2, 0)

        # The lease ends.
        await there.store.command("DEL", there.store.key("matrix", there.bot.user_id, "holder"))
        await there.call("third")

        await there.heard("first", "second", "third")
        assert len(second.came) == 1


async def test_a_process_without_the_lease_saves_no_place(there: Hearing) -> None:
    async with there.ear(lease=30.0) as one, there.ear(lease=30.0) as other:
        holder, waiting = (one, other) if await one.lease.claim() else (other, one)

        with pytest.raises(LeaseLost):
            await waiting.lease.save("elsewhere")

        assert (await holder.lease.since()).startswith("s")


async def test_a_place_that_the_homeserver_does_not_know_is_left(there: Hearing) -> None:
    async with there.ear() as ear:
        assert await ear.lease.claim()
        await ear.lease.save("of another database")

    async with there.ear():
        await eventually(lambda: _is_new(there))
        await there.call("why?")
        await there.heard("why?")


async def _is_new(there: Hearing) -> bool:
    return (await there.ears[-1].lease.since()).startswith("s")


async def test_a_revoked_token_ends_the_hearing(there: Hearing) -> None:
    async with there.ear() as ear:
        await there.bot.call("POST", "logout", {})

        with pytest.raises(CannotStart, match="MATRIX_TOKEN is refused"):
            async with asyncio.timeout(60):
                await ear.hearing


async def test_a_killed_homeserver_is_heard_again(there: Hearing) -> None:
    async with there.ear() as ear:
        await there.call("first")
        await there.heard("first")

        await there.synapse.kill()
        await until(lambda: ear.platform.downtime.seconds())
        await there.synapse.start()
        await there.call("second")

        await there.heard("first", "second")


async def test_only_invitations_of_people_with_access_are_accepted(
    synapse: Synapse, store: Store
) -> None:
    there = await hearing_of(synapse, store, joins=False)
    ben = await synapse.person("ben")
    there.intake = type(there.intake)(
        store, access=AccessRules(people=frozenset({there.ann.user_id}))
    )
    of_ben = await ben.create_room(there.bot, name="Ben's")

    async with there.ear():

        async def is_refused() -> bool:
            return (await ben.members(of_ben))[there.bot.user_id] == "leave"

        await eventually(is_refused)
        await eventually(lambda: _bot_is(there, "join", there.room))


async def test_an_encrypted_room_gets_one_sentence_and_is_left(there: Hearing) -> None:
    secret = await there.ann.create_room(there.bot, encrypted=True)

    async with there.ear():
        await eventually(lambda: _bot_is(there, "leave", secret))

        (said,) = await there.ann.screen(secret)
        assert "cannot read encrypted messages" in said.text


async def _bot_is(there: Hearing, membership: str, room: str) -> bool:
    return (await there.ann.members(room))[there.bot.user_id] == membership


async def test_a_room_that_becomes_encrypted_is_left(there: Hearing) -> None:
    async with there.ear():
        await there.call("why?")
        await there.heard("why?")
        path = f"rooms/{there.room}/state/m.room.encryption/"
        await there.ann.call("PUT", path, {"algorithm": "m.megolm.v1.aes-sha2"})

        await eventually(lambda: _bot_is(there, "leave", there.room))
        said = [one for one in await there.ann.screen(there.room) if one.kind == "m.notice"]
        assert len(said) == 1


async def test_a_third_member_makes_a_direct_room_another_one(there: Hearing) -> None:
    ben = await there.synapse.person("ben")
    there.room = await there.ann.create_room(there.bot, direct=True)
    async with there.ear():
        await there.ann.say(there.room, "for the bot")
        await there.heard("for the bot")

        await there.ann.invite(there.room, ben)
        await there.ann.say(there.room, "for ben")
        await there.call("why?")

        turns = await there.heard("for the bot", "why?")
        assert not turns[1].asker.direct
        assert turns[1].key.thread == str(turns[1].place["question"])


async def test_the_bot_goes_where_its_room_has_gone(synapse: Synapse, store: Store) -> None:
    there = await hearing_of(synapse, store)
    ann, bot, old = there.ann, there.bot, await there.ann.create_room(preset="public_chat")
    mallory = await synapse.person("mallory")
    elsewhere = await mallory.create_room(preset="public_chat")
    for one in (bot, mallory):
        await one.join(old)
    async with there.ear() as ear:
        gone = {"type": "m.room.tombstone", "sender": mallory.user_id, "event_id": "$gone"}
        await ear.inbound.on_event(old, {**gone, "content": {"replacement_room": elsewhere}})
        upgraded = await ann.call("POST", f"rooms/{quote(old)}/upgrade", {"new_version": "12"})
        there.room = upgraded["replacement_room"]

        async def is_there() -> bool:
            return (await ann.members(there.room)).get(bot.user_id) == "join"

        await eventually(is_there)
        await there.call("why?")
        await there.heard("why?")

    assert bot.user_id not in await mallory.members(elsewhere)


async def test_what_belongs_to_a_deleted_question_is_withdrawn_by_the_next_process(
    there: Hearing,
) -> None:
    asked = await there.ann.say(there.room, "why?")
    mark = {"dev.parley.reply": {"turn": f"matrix:{asked}", "page": 0}}
    answer = await there.bot.send(there.room, {"msgtype": "m.text", "body": "canary", **mark})
    async with there.ear():
        await there.call("first")
        await there.heard("first")
        await there.ann.redact(there.room, asked)
        owed = there.store.key("removals", "matrix")
        await there.store.command("SADD", owed, f"{there.room} {asked}")

    async with there.ear() as ear:
        await eventually(lambda: _is_gone(ear, there.room, answer))
        await eventually(lambda: _owes_nothing(there))


async def _is_gone(ear: Ear, room: str, event: str) -> bool:
    return not (await ear.client.event(room, event))["content"]


async def _owes_nothing(there: Hearing) -> bool:
    key = there.store.key("removals", "matrix")
    return not await there.store.command("EXISTS", key)


async def test_a_redacted_question_takes_its_answer_along(there: Hearing) -> None:
    async with there.ear() as ear:
        asked = await there.call("why?")
        await there.heard("why?")
        mark = {"dev.parley.reply": {"turn": f"matrix:{asked}", "page": 0}}
        answer = await there.bot.send(there.room, {"msgtype": "m.text", "body": "canary", **mark})

        await there.ann.redact(there.room, asked)

        await eventually(lambda: _is_gone(ear, there.room, answer))
        await eventually(lambda: _owes_nothing(there))


async def test_answers_to_the_forgotten_go_and_no_others(there: Hearing, store: Store) -> None:
    async with there.ear():
        known = f"matrix:{await there.call('why?')}"
        await there.heard("why?")
        ann, ben, now = there.ann.user_id, "@ben:synapse.test", int(time.time() * 1000)
        for text, turn, person, asked in (
            ("goes", "matrix:$1", ann, now - 1),
            ("to Ben", "matrix:$2", ben, now - 1),
            ("later", "matrix:$3", ann, now + 1),
            ("known", known, ann, now - 1),
        ):
            mark = {"turn": turn, "for": person, "asked": asked}
            content = {"msgtype": "m.notice", "body": text, "dev.parley.reply": mark}
            await there.bot.send(there.room, content)
        await store.command("SADD", store.key("removals", "matrix"), f"{ann} {now}")
        await there.call("and?")

        await eventually(partial(_owes_nothing, there))

    shown = await there.ann.screen(there.room)
    assert [it.text for it in shown if it.kind == "m.notice"] == ["to Ben", "later", "known"]


async def test_an_answer_to_a_command_goes_also_if_it_comes_after_the_forgetting(
    there: Hearing, store: Store
) -> None:
    async with there.ear(late_writes=0.0) as ear:
        send, withdraw_all = ear.client.send, ear.platform.withdraw_all
        limit, order = asyncio.Event(), list[str]()

        async def late(room: str, txn: str, content: Mapping[str, Any]) -> str:
            await limit.wait()
            order.append(await send(room, txn, content))
            return order[-1]

        async def removed(is_owed: IsOwed) -> None:
            order.append("removal")
            await withdraw_all(is_owed)
            limit.set()

        ear.client.send, ear.platform.withdraw_all = late, removed  # type: ignore[method-assign]
        command = turn_id(await there.ann.say(there.room, "!parley help"))
        await eventually(partial(there.intake.lookup.is_handled, command))
        owed = f"{there.ann.user_id} {int(time.time() * 1000)}"
        await store.command("SADD", store.key("removals", "matrix"), owed)
        await eventually(partial(_owes_nothing, there))

        first, answer, second = order
        assert (first, second) == ("removal", "removal")
        assert await _is_gone(ear, there.room, answer)


async def test_the_answers_to_a_person_are_removed_once_at_a_time(
    there: Hearing, store: Store
) -> None:
    running, most, works = 0, 0, 0

    async with there.ear() as ear:

        async def withdraw_all(is_owed: IsOwed) -> None:
            nonlocal running, most, works
            works += 1
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.1)
            running -= 1

        ear.platform.withdraw_all = withdraw_all  # type: ignore[method-assign]
        owed = "@ann:a 1", "@ann:a 2", "@ben:a 3"
        await store.command("SADD", store.key("removals", "matrix"), *owed)

        async def owes_nothing() -> bool:
            await ear.inbound.withdraw_owed()
            return await _owes_nothing(there)

        await eventually(owes_nothing)

    assert most == 2
    assert works == 4  # each twice, for late writes


async def test_an_event_that_only_looks_encrypted_drives_the_bot_out_of_no_room(
    there: Hearing,
) -> None:
    mallory = await there.ann.bring(there.room, "mallory")
    async with there.ear():
        odd = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgA"}
        await mallory.send(there.room, odd, kind="m.room.encrypted")
        await there.call("why?")
        await there.heard("why?")
    # What the process had begun has ended.
    assert (await there.ann.members(there.room))[there.bot.user_id] == "join"
    assert [one for one in await there.ann.screen(there.room) if one.kind == "m.notice"] == []


async def test_what_a_server_writes_beside_an_invitation_names_no_inviter(there: Hearing) -> None:
    ben = await there.synapse.person("ben")
    there.intake = type(there.intake)(
        there.store, access=AccessRules(people=frozenset({there.ann.user_id}))
    )
    asked = list[str]()

    async def note(path: str, ask: Ask) -> Event:
        asked.append(path.rpartition("/")[2])
        return await ask()

    async with there.ear(prepare=changing(note)) as ear:
        of_ben = await ben.create_room(name="Ben's")
        invite: Event = {"type": "m.room.member", "state_key": there.bot.user_id}
        invite["content"] = {"membership": "invite"}
        forged, own = {**invite, "sender": there.ann.user_id}, {**invite, "sender": ben.user_id}
        long = {**invite, "sender": f"@{'x' * 240}:evil.test"}

        ear.inbound.on_invite(of_ben, [forged, long])
        ear.inbound.on_invite(of_ben, [forged, own])

        await until(lambda: "leave" in asked)
        assert "join" not in asked


async def test_rooms_of_a_silent_server_hold_up_no_invitation_of_the_own(there: Hearing) -> None:

    async def be_silent(path: str, ask: Ask) -> Event:
        if "evil" in path:
            await asyncio.sleep(3600)
        return await ask()

    async with there.ear(prepare=changing(be_silent)) as ear:
        for number in range(20):
            invite: Event = {"type": "m.room.member", "state_key": there.bot.user_id}
            event = {**invite, "sender": "@m:evil.test", "content": {"membership": "invite"}}
            ear.inbound.on_invite(f"!{number}:evil.test", [event])
        room = await there.ann.create_room(there.bot)

        await eventually(lambda: _bot_is(there, "join", room), seconds=20)


async def test_a_429_of_the_hearing_is_obeyed(there: Hearing) -> None:
    async with there.ear() as ear:
        tried = 0

        async def refusing(*_: Any, **__: Any) -> Event:
            nonlocal tried
            tried += 1
            raise WriteDelayed("too many", retry_after=60.0)

        ear.client.call = refusing  # type: ignore[method-assign]
        await there.call("why?")  # ends the request that waits
        await until(lambda: tried)
        await asyncio.sleep(2.0)

        assert tried == 1


async def test_what_came_late_from_another_server_hides_nothing_in_a_gap(there: Hearing) -> None:
    async with there.ear():
        await there.call("first")
        await there.heard("first")
    for number in range(5):
        await there.call(f"{number}")

    async def come_late(path: str, ask: Ask) -> Event:
        found = await ask()
        room = found.get("rooms", {}).get("join", {}).get(there.room, {})
        if path.endswith("/sync") and len(room.get("timeline", {}).get("events", ())) > 2:
            events = room["timeline"]["events"]
            # In its room this one stands before those of the gap.
            room["timeline"] |= {"limited": True, "events": [events[0], events[-1]]}
        return found

    async with there.ear(prepare=changing(come_late)):
        await until(lambda: "4" in there.texts)

        assert {*there.texts} == {"first", *map(str, range(5))}
