"""What people do in Discord becomes turns, through the real discord.py."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Literal

import discord
import pytest

from adapters.discord.reply.channel import ChannelAddress
from bot.domain import Person, ThreadKey
from bot.errors import StoreUnavailable, ThreadBusy
from tests.emulators.discord import Call, DiscordEmulator
from tests.emulators.discord.objects import STAGE, VOICE
from tests.support.discord_platform import channel_turn, heard, listening, logged_in, page
from tests.support.fakes import FakeQueue
from tests.support.waiting import until


async def test_a_mention_in_a_channel_becomes_a_turn_whose_thread_is_still_to_be_opened() -> None:
    async with heard() as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
        await until(lambda: intake.turns)

        turn = intake.turns[0]
        assert turn.id == f"discord:{said}"
        assert turn.key == ThreadKey("discord", emulator.guild_id, emulator.channel_id, said)
        assert turn.person == Person(ada, "Ada")
        assert turn.text == "why?"
        assert turn.asked_at == discord.utils.snowflake_time(int(said)).timestamp()
        assert json.loads(json.dumps(turn.place)) == turn.place


async def test_bots_and_talk_among_people_are_not_for_us() -> None:
    async with heard() as (emulator, intake, ada):
        other = emulator.user("other", bot=True)

        await emulator.say(emulator.channel_id, other, f"{emulator.bot_mention} beep")
        await emulator.say(emulator.channel_id, emulator.bot_id, f"{emulator.bot_mention} me")
        await emulator.say(emulator.channel_id, ada, "talking about <@123456789012345678>")
        await emulator.say(emulator.channel_id, ada, f"hey {emulator.bot_mention}, you")
        await until(lambda: intake.turns)

        assert intake.texts == ["hey, you"]


async def test_what_discord_puts_at_the_begin_of_a_thread_is_not_for_us() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.turns[0]):
            thread = emulator.thread_of(said) or ""

        starter = emulator.event_of(said) | {"id": "99", "type": 21, "channel_id": thread}
        await emulator.tell("MESSAGE_CREATE", starter)
        await emulator.say(thread, ada, "two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]


async def test_a_message_delivered_twice_is_one_turn() -> None:
    async with heard() as (emulator, intake, ada):
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")

        await emulator.redeliver(said)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]


async def test_every_message_in_a_dm_is_for_us() -> None:
    async with heard(message_content=False) as (emulator, intake, ada):
        dm = emulator.dm(ada)

        await emulator.say(dm, ada, "hello")
        await until(lambda: intake.turns)

        assert intake.turns[0].key == ThreadKey("discord", "dm", dm, dm)
        assert intake.turns[0].place == ChannelAddress(int(dm), None, opens_thread=False).to_json()


async def test_in_a_thread_of_our_own_nobody_needs_to_mention_us() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.turns[0]):
            thread = emulator.thread_of(said) or ""

        await emulator.say(thread, ada, "two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.turns[1].key == intake.turns[0].key
        expected = ChannelAddress(int(thread), None, opens_thread=False)
        assert intake.turns[1].place == expected.to_json()


async def test_a_thread_that_the_gateway_has_not_shown_us_is_looked_up() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.turns[0]):
            thread = emulator.thread_of(said) or ""
        where = {"guild_id": emulator.guild_id, "parent_id": emulator.channel_id}
        gone: dict[str, object] = {"id": thread, "type": 11} | where

        await emulator.tell("THREAD_DELETE", gone)
        await emulator.say(thread, ada, "two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.turns[1].key == intake.turns[0].key


async def test_without_message_content_we_read_only_mentions_in_a_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator(message_content=False) as emulator,
        listening(emulator, intake) as platform,
    ):
        await until(lambda: emulator.sessions == 2)
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.turns[0]):
            thread = emulator.thread_of(said) or ""

        await emulator.say(thread, ada, "two")
        await emulator.say(thread, ada, f"{emulator.bot_mention} three")
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "three"]
        assert [one.levelno for one in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("threads", [True, False])
async def test_a_reply_to_us_in_a_channel_goes_on_with_its_thread(threads: bool) -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, threads=threads) as platform,
    ):
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, "one")
        turn = channel_turn(emulator, said, opens_thread=False)
        async with platform.surface(turn) as surface:
            answer = await surface.post(page("first", final=True))
        intake.threads[answer] = turn.key

        said = await emulator.say(emulator.channel_id, ada, "two", reply_to=answer)
        await until(lambda: intake.turns)

        assert intake.turns[0].key == turn.key
        expected = ChannelAddress(int(emulator.channel_id), int(said), opens_thread=False)
        assert intake.turns[0].place == expected.to_json()


async def test_a_reply_that_pings_nobody_is_a_question_and_goes_on_in_a_known_thread() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, "one")
        turn = channel_turn(emulator, said, opens_thread=False)
        async with logged_in(emulator) as platform, platform.surface(turn) as surface:
            answers = [
                await surface.post(page(f"{number}", number=number, final=True))
                for number in range(2)
            ]
        intake.threads[answers[1]] = turn.key
        replies = [
            emulator.event_of(await emulator.say(emulator.channel_id, ada, text, reply_to=answer))
            for text, answer in zip(("unknown", "known"), answers, strict=True)
        ]

        async with listening(emulator, intake):
            for reply in replies:
                await emulator.tell("MESSAGE_CREATE", reply | {"mentions": []})
            await until(lambda: len(intake.turns) == 2)

        unknown, known = intake.turns
        assert (unknown.text, unknown.key.thread) == ("unknown", replies[0]["id"])
        assert (known.text, known.key) == ("known", turn.key)


async def test_a_message_in_a_thread_of_other_people_is_no_question() -> None:
    async with heard() as (emulator, intake, ada):
        bob = emulator.user("Bob")
        said = await emulator.say(emulator.channel_id, ada, "among people")
        thread = await emulator.open_thread(said, bob, "ours")

        await emulator.say(thread, ada, "not for the bot")
        await emulator.say(thread, ada, f"{emulator.bot_mention} hello?")
        await until(lambda: intake.turns)

        assert intake.texts == ["hello?"]


async def test_without_threads_a_mention_is_answered_where_it_stands() -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, threads=False) as platform,
    ):
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
        await until(lambda: intake.turns)

        async with platform.surface(intake.turns[0]) as surface:
            await surface.post(page("because", final=True))

        assert intake.turns[0].key.thread == said
        assert emulator.screen(emulator.channel_id)[1].reply_to == said


@pytest.mark.parametrize("kind", [VOICE, STAGE])
async def test_in_the_chat_of_a_voice_channel_a_mention_asks_for_no_thread(
    kind: Literal[2, 13],
) -> None:
    async with heard() as (emulator, intake, ada):
        hall = emulator.channel("hall", kind=kind)

        said = await emulator.say(hall, ada, f"{emulator.bot_mention} why?")
        await until(lambda: intake.turns)

        expected = ChannelAddress(int(hall), int(said), opens_thread=False)
        assert intake.turns[0].place == expected.to_json()


async def test_other_mentions_read_as_names_and_a_role_is_not_us() -> None:
    async with heard() as (emulator, intake, ada):
        bob, role, channel = emulator.user("Bob"), emulator.role("helpers"), emulator.channel_id
        asked = f"{emulator.bot_mention} does <@{bob}> of <@&{role}> read <#{channel}>?"

        await emulator.say(channel, ada, f"<@&{role}> help")
        await emulator.say(channel, ada, asked)
        await until(lambda: intake.turns)

        assert intake.texts == ["does @Bob of @helpers read #general?"]


async def test_files_are_named_and_what_was_forwarded_is_read() -> None:
    async with heard() as (emulator, intake, ada):
        dm = emulator.dm(ada)
        original = await emulator.say(emulator.channel_id, ada, "this", files=("dog.png",))

        await emulator.say(dm, ada, "look", files=("cat.png",))
        await emulator.forward(dm, ada, original)
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["look\n[file: cat.png]", "[forwarded] this\n[file: dog.png]"]


def is_said(call: Call) -> bool:
    return call.method == "POST" and call.path.endswith("/messages") and call.status == 200


async def test_empty_mentions_without_end_get_one_line_of_help() -> None:
    async with heard() as (emulator, intake, ada):
        place = emulator.channel_id
        said = await emulator.say(place, ada, f" {emulator.bot_mention} ")
        await emulator.redeliver(said)
        for _ in range(20):
            await emulator.say(place, ada, emulator.bot_mention)
        await emulator.say(place, ada, f"{emulator.bot_mention} why?")
        await until(lambda: intake.turns)

        await until(lambda: any(is_said(one) for one in emulator.requests))
        await emulator.say(place, ada, f"{emulator.bot_mention} and how?")
        await until(lambda: len(intake.turns) == 2)

        assert len([one for one in emulator.requests if is_said(one)]) == 1
        (help_line,) = [one for one in emulator.screen(place) if one.reply_to == said]
        assert "question" in help_line.text


async def test_words_that_discord_is_slow_to_take_do_not_pile_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = FakeQueue()
    intake.refuses = ThreadBusy()
    caplog.set_level("INFO", "adapters.discord.gateway.client")
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        emulator.fail("POST .*/messages", "hang", times=1000)

        for number in range(120):
            person = emulator.user(f"P{number}")
            await emulator.say(emulator.dm(person), person, "why?")

        await until(lambda: len(caplog.records) == 20)


async def test_a_refused_turn_is_answered_with_its_apology() -> None:
    async with heard(refuses=ThreadBusy()) as (emulator, _, ada):
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} now")
        await until(lambda: len(emulator.screen(emulator.channel_id)) > 1)

        _, apology = emulator.screen(emulator.channel_id)
        assert (apology.text, apology.reply_to) == (ThreadBusy.apology, said)
        assert not emulator.pings
        assert not emulator.unguarded


async def test_who_has_just_read_an_apology_is_not_told_it_again() -> None:
    async with heard(refuses=ThreadBusy()) as (emulator, _, ada):
        for text in ("now", "now!", ""):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {text}")
        await until(lambda: len(emulator.screen(emulator.channel_id)) == 5)

        *_, apology, help_line = emulator.screen(emulator.channel_id)
        assert apology.text == ThreadBusy.apology
        assert "question" in help_line.text


async def test_messages_wait_for_the_store_and_keep_their_order() -> None:
    async with heard(refuses=StoreUnavailable("away")) as (emulator, intake, ada):
        dm = emulator.dm(ada)
        for text in ("one", "two"):
            await emulator.say(dm, ada, text)
        await until(lambda: intake.refusals)

        intake.refuses = None
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]


async def test_a_channel_that_the_library_does_not_know_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with heard() as (emulator, intake, ada):
        dm = emulator.dm(ada)
        said = await emulator.say(emulator.channel_id, ada, "hi")
        event = emulator.event_of(said) | {"id": "99", "channel_id": "98"}
        bot = {"id": emulator.bot_id, "username": "p", "discriminator": "0", "avatar": None}
        channel = {"id": "98", "type": 99, "guild_id": emulator.guild_id, "name": "new"}
        emulator.fail("GET /channels/98", status=200, body=channel, times=99)

        await emulator.tell("MESSAGE_CREATE", event | {"mentions": [bot]})
        await emulator.say(dm, ada, "hello?")
        await until(lambda: intake.turns)
        await until(lambda: caplog.records)

        assert intake.texts == ["hello?"]


async def test_a_deleted_question_is_forgotten_after_it_was_admitted() -> None:
    intake = FakeQueue()
    intake.open.clear()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} oh no")
        await until(lambda: intake.turns)

        await emulator.delete(said)
        # What is told behind the deletion does not wait for the admission.
        await emulator.slash(emulator.channel_id, ada, "ask", question="and you?")
        await until(lambda: len(intake.turns) > 1)
        early = list(intake.forgotten)
        intake.open.set()
        await until(lambda: intake.forgotten)

        assert (early, intake.forgotten) == ([], [f"discord:{said}"])


async def test_questions_that_a_moderator_sweeps_away_are_forgotten_in_one_call() -> None:
    async with heard() as (emulator, intake, ada):
        channel, asked = emulator.channel_id, f"{emulator.bot_mention} why?"
        said = [await emulator.say(channel, ada, asked) for _ in range(2)]
        await until(lambda: len(intake.turns) > 1)

        await emulator.sweep(*said)
        await until(lambda: len(intake.forgotten) > 1)

        assert intake.forgotten == [f"discord:{one}" for one in said]
        assert intake.forgets == 1


async def test_questions_that_are_swept_away_while_the_store_is_away_are_not_admitted() -> None:
    async with heard(refuses=StoreUnavailable("away")) as (emulator, intake, ada):
        channel, name = emulator.channel_id, emulator.bot_mention
        texts = [f"{name} {text}" for text in ("one", "two", "three")]
        said = [await emulator.say(channel, ada, text) for text in texts]
        await until(lambda: intake.refusals)

        await emulator.sweep(*said[:2])
        await emulator.say(channel, ada, f"{name} four")
        await until(lambda: intake.refusals > 1)
        intake.refuses = None
        await until(lambda: len(intake.turns) > 1 and intake.forgotten)

        assert intake.texts == ["three", "four"]
        assert intake.forgotten == [f"discord:{one}" for one in said[:2]]


async def test_an_event_that_fails_does_not_stop_those_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeQueue):
        async def forget(self, *turn_ids: str, **_: Any) -> None:
            raise RuntimeError("a mistake of ours")

    intake = Broken()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        await emulator.delete(await emulator.say(dm, ada, "one"))

        await emulator.say(dm, ada, "two")
        await until(lambda: "two" in intake.texts)

        assert [one.levelno for one in caplog.records] == [logging.ERROR]


async def test_a_notice_that_discord_refuses_is_no_mistake_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with DiscordEmulator() as emulator, listening(emulator, FakeQueue()):
        missing = {"code": 50013, "message": "Missing Permissions"}
        emulator.fail("POST /channels/.*/messages", status=403, body=missing)

        await emulator.say(emulator.channel_id, emulator.user("Ada"), emulator.bot_mention)
        await until(lambda: caplog.records)

    assert [(one.levelno, one.exc_info) for one in caplog.records] == [(logging.WARNING, None)]


class Ending(FakeQueue):
    """Admits the last question when the process ends, while the signs of the others end."""

    shown = 0

    async def waits(self, turn_id: str, *, first_in: ThreadKey | None = None) -> bool:
        self.shown += 1
        self.open.clear()
        try:
            await asyncio.Event().wait()
        finally:
            self.open.set()
            for _ in range(10):
                await asyncio.sleep(0)
        return False


async def test_a_process_that_ends_leaves_no_task_behind() -> None:
    intake, before = Ending(), asyncio.all_tasks()
    async with DiscordEmulator() as emulator:
        person = emulator.user("Ada")
        async with listening(emulator, intake):
            await emulator.say(emulator.dm(person), person, "one")
            await until(lambda: intake.shown)
            await emulator.say(emulator.dm(person), person, "two")
            await until(lambda: len(intake.turns) > 1)

    # The library leaves tasks of its own, which end soon.
    assert not [one for one in asyncio.all_tasks() - before if "adapters" in repr(one)]
