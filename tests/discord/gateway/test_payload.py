"""Events that discord.py cannot parse cost neither the session nor what is asked beside them."""

from __future__ import annotations

import json
import logging

import pytest

from bot.access.rules import AccessRules
from bot.store import Store
from tests.emulators.clock import Clock
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.objects import Payload
from tests.support.discord_platform import (
    FAST,
    after_a_session,
    heard,
    listening,
    running_process,
    until_heard,
)
from tests.support.fakes import FakeQueue
from tests.support.waiting import until

SECRET = "nobody else may read this"
USER: Payload = {"id": "700", "username": "Bob", "discriminator": "0", "avatar": None}
OLD_MEMBER: Payload = {"user": USER, "roles": [], "joined_at": None, "deaf": False, "mute": False}
POLL: Payload = {
    "question": {"text": "Tea or coffee?"},
    "answers": [
        {"answer_id": 1, "poll_media": {"text": "tea"}},
        {"answer_id": 2, "poll_media": {"text": "coffee"}},
    ],
    "expiry": None,
    "allow_multiselect": False,
    "layout_type": 1,
}
VOICE: Payload = {
    "id": "800",
    "filename": "voice-message.ogg",
    "size": 1,
    "url": "https://cdn.discordapp.com/a/voice-message.ogg",
    "proxy_url": "https://cdn.discordapp.com/a/voice-message.ogg",
    "duration_secs": 1.5,
    "waveform": "no base64 at all",
}
ROLE_OBJECTS: Payload = {"roles": [{"id": "900", "name": "helpers"}], "joined_at": None, "flags": 0}


def reaction(emulator: DiscordEmulator) -> Payload:
    """Return MESSAGE_REACTION_ADD as it was before members had flags, and reactions a type."""
    return {
        "user_id": "700",
        "message_id": "600",
        "channel_id": emulator.channel_id,
        "guild_id": emulator.guild_id,
        "member": OLD_MEMBER,
        "emoji": {"id": None, "name": SECRET},
    }


def unreadable(emulator: DiscordEmulator) -> list[tuple[str, Payload]]:
    """Return events of which the library can make nothing."""
    here: Payload = {"channel_id": emulator.channel_id, "guild_id": emulator.guild_id}
    return [
        ("MESSAGE_REACTION_ADD", reaction(emulator)),
        ("MESSAGE_CREATE", here | {"id": "601", "content": SECRET}),
        ("MESSAGE_CREATE", here | {"id": SECRET, "author": USER}),
        ("MESSAGE_UPDATE", here | {"id": "602", "poll": POLL}),
        ("MESSAGE_DELETE", {"of": SECRET}),
        ("INTERACTION_CREATE", here | {"id": "603", "type": 3, "data": {"values": [SECRET]}}),
        ("GUILD_CREATE", {"id": emulator.guild_id, "name": SECRET, "channels": [{"id": "604"}]}),
        ("RESUMED", {}),
        ("MESSAGE_DELETE_BULK", {}),
    ]


async def test_events_that_cannot_be_parsed_are_skipped_one_by_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with heard() as (emulator, intake, ada):
        events = unreadable(emulator)

        for name, data in events:
            await emulator.tell(name, data)
        await emulator.say(emulator.dm(ada), ada, "hello?")
        await until(lambda: intake.turns)

        assert intake.texts == ["hello?"]
        assert (emulator.sessions, emulator.resumes) == (1, 0)
    warned = [one.args for one in caplog.records if one.levelno >= logging.WARNING]
    named = [name for name, _ in events if name != "RESUMED"]
    assert [args[0] for args in warned if isinstance(args, tuple)] == named
    assert SECRET not in caplog.text
    assert "600" in str(warned[0])


async def test_null_for_a_server_is_a_dm() -> None:
    async with heard() as (emulator, intake, ada):
        dm = emulator.dm(ada)
        event = emulator.event_of(await emulator.say(dm, ada, "one")) | {"guild_id": None}
        await until(lambda: intake.turns)

        answered = {"message_reference": {"message_id": event["id"], "channel_id": dm}}
        reply = answered | {"id": "99", "content": "two", "type": 19, "referenced_message": event}
        await emulator.tell("MESSAGE_CREATE", event | reply)
        await until(lambda: len(intake.turns) > 1)
        gone: Payload = {"id": "99", "channel_id": dm, "guild_id": None}
        await emulator.tell("MESSAGE_DELETE", gone)
        await until(lambda: intake.forgotten)

        assert (intake.texts, intake.forgotten) == (["one", "two"], ["discord:99"])
        assert intake.turns[1].quote


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"poll": POLL}, ["[poll] Tea or coffee? tea / coffee"]),
        ({"attachments": [VOICE]}, ["[voice message: voice-message.ogg]"]),
        ({"member": ROLE_OBJECTS}, []),
        ({"reactions": [{"count": "many"}]}, []),
        (
            {"embeds": None, "components": [{"kind": "new"}], "sticker_items": [{}]},
            ["[component]", "[sticker]"],
        ),
        (
            {"mentions": None, "message_snapshots": [{}], "poll": "?", "attachments": "?"},
            ["[forwarded]"],
        ),
    ],
    ids=["poll", "voice", "member", "reactions", "parts", "mentions"],
)
async def test_a_question_whose_message_cannot_be_parsed_is_read_without_what_is_odd(
    odd: Payload, said: list[str]
) -> None:
    async with heard() as (emulator, intake, ada):
        thread = emulator.dm(ada)
        asked = await emulator.say(thread, ada, "zero")
        await until(lambda: intake.turns)

        event = emulator.event_of(asked) | {"id": "99", "content": "why?"} | odd
        await emulator.tell("MESSAGE_CREATE", event)
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts[1].splitlines() == ["why?", *said]
        assert intake.turns[1].person.name == "Ada"


async def test_roles_that_come_as_objects_count_for_access() -> None:
    async with heard() as (emulator, intake, ada):
        asked = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
        await until(lambda: intake.turns)
        intake.intake.access.rules = AccessRules(roles=frozenset({"900"}))

        event = emulator.event_of(asked) | {"id": "99", "member": ROLE_OBJECTS}
        await emulator.tell("MESSAGE_CREATE", event)
        await until(lambda: len(intake.turns) > 1)

        assert intake.turns[1].id == "discord:99"


async def test_a_reply_to_a_message_that_cannot_be_parsed_is_read() -> None:
    async with heard() as (emulator, intake, ada):
        first = await emulator.say(emulator.channel_id, ada, "a poll")
        asked = await emulator.say(
            emulator.channel_id, ada, f"{emulator.bot_mention} what is this?", reply_to=first
        )
        await until(lambda: intake.turns)

        event = emulator.event_of(asked)
        answered = emulator.event_of(first) | {"poll": POLL, "attachments": [VOICE]}
        await emulator.tell("MESSAGE_CREATE", event | {"id": "99", "referenced_message": answered})
        await emulator.tell("MESSAGE_CREATE", event | {"id": "98", "referenced_message": {}})
        await until(lambda: len(intake.turns) > 2)

        assert intake.texts == ["what is this?"] * 3


async def test_a_press_as_discord_told_it_in_older_days_is_answered() -> None:
    async with heard() as (emulator, intake, ada):
        await emulator.interact(
            emulator.channel_id,
            ada,
            3,
            {"custom_id": "stop:discord:1", "component_type": 2},
            attachment_size_limit=None,
            member=OLD_MEMBER | {"roles": ROLE_OBJECTS["roles"]},
            message={"id": "99", "channel_id": emulator.channel_id, "poll": POLL},
        )
        await until(lambda: intake.stopped)

        assert intake.stopped == ["discord:1"]


async def test_a_session_whose_greeting_cannot_be_parsed_is_heard_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        emulator.greet(guilds=[{"id": None}])
        async with listening(emulator, intake):
            ada = emulator.user("Ada")

            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
            await until(lambda: intake.turns)

            assert intake.texts == ["why?"]
            assert emulator.sessions == 1
    assert any(one.args and "READY" in one.args for one in caplog.records)


async def test_an_event_that_cannot_be_handled_ends_no_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with heard() as (emulator, intake, ada):
        # Its time is beyond the calendar.
        far: Payload = {"id": "9" * 24, "channel_id": emulator.channel_id}
        await emulator.tell("MESSAGE_DELETE", far)
        await emulator.say(emulator.dm(ada), ada, "hello?")
        await until(lambda: intake.turns)

        assert (emulator.sessions, emulator.resumes) == (1, 0)
    assert [one.levelno for one in caplog.records] == [logging.ERROR]


async def test_a_server_that_can_be_parsed_in_part_only_is_known() -> None:
    async with heard() as (emulator, intake, ada):
        guild = emulator.guild() | {"unavailable": False, "voice_states": [{}], "emojis": [{}]}
        guild["members"] = [OLD_MEMBER | {"roles": ROLE_OBJECTS["roles"]}]
        renamed = json.loads(json.dumps(guild).replace("general", "hall"))

        await emulator.tell("GUILD_CREATE", renamed)
        await emulator.say(
            emulator.channel_id, ada, f"{emulator.bot_mention} what is <#{emulator.channel_id}>?"
        )
        await until(lambda: intake.turns)

        assert intake.texts == ["what is #hall?"]


async def test_a_message_that_cannot_be_parsed_hides_no_other_that_was_missed(store: Store) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        asked = [
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {text}")
            for text in ("one", "two", "three", "four")
        ]
        history = [emulator.event_of(one) for one in reversed(asked)]
        del history[1]["author"]
        history[2] |= {"poll": POLL}
        other = await emulator.say(emulator.channel("other"), ada, f"{emulator.bot_mention} five")
        path = f"GET /channels/{emulator.channel_id}/messages"
        emulator.fail(path, status=200, body=history)

        async with running_process(emulator, new, store):
            await until(lambda: f"discord:{other}" in [one.id for one in new.turns])
            await until(lambda: len(new.turns) > 3)

        assert sorted(one.partition("\n")[0] for one in new.texts) == ["five", "four", "one", "two"]


async def test_a_message_with_a_partial_author_hides_no_other_that_was_missed(
    store: Store,
) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        channels = [emulator.channel_id, emulator.channel("other"), emulator.channel("third")]
        asked = [
            emulator.event_of(await emulator.say(one, ada, f"{emulator.bot_mention} {text}"))
            for one, text in zip(channels, ("one", "two", "three"), strict=True)
        ]
        partial: Payload = asked[0] | {
            "id": str(int(str(asked[0]["id"])) + 1),
            "author": {"id": ada},
        }
        path = "GET /channels/{}/messages"
        emulator.fail(path.format(channels[0]), status=200, body=[partial, asked[0]])
        emulator.fail(path.format(channels[1]), status=200, body=[{"id": "no number"}])

        async with running_process(emulator, new, store):
            await until(lambda: len(new.turns) > 2)

        assert sorted(new.texts) == ["one", "one", "three"]


async def test_a_dm_that_cannot_be_parsed_hides_no_other_place_in_the_search(store: Store) -> None:
    old, new, clock = FakeQueue(), FakeQueue(), Clock()
    async with DiscordEmulator(clock=clock, gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, old, store):
            await until_heard(store, await emulator.say(dm, ada, "hello"))
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        clock.advance(3600)
        emulator.fail(f"GET /channels/{dm}", status=200, body={"type": 1})

        async with running_process(emulator, new, store):
            await until(lambda: "one" in new.texts)
            await emulator.say(dm, ada, "two")
            await until(lambda: "two" in new.texts)

        assert new.texts == ["one", "two"]
