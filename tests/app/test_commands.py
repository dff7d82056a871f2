"""The commands on both platforms, and what they change for the answers that follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.slack.manifest import ASK_ABOUT_ID, SUMMARISE_ID
from bot.reply.draft import STOPPED
from bot.store import Store
from bot.text.context import BEGIN, END
from bot.turns.desk import COMMANDS, FORGET_QUESTION, SUMMARY_QUESTION
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.support.process import remembered, speak_slowly
from tests.support.rooms import (
    PLATFORMS,
    Platform,
    Room,
    asked,
    last_word,
    served,
    system,
    until_open,
)
from tests.support.waiting import until


@asynccontextmanager
async def running(
    kind: type[Platform], store: Store, model: ModelEmulator, **variables: str
) -> AsyncIterator[Platform]:
    model.answer = last_word
    async with kind() as platform, served(platform, store, model, variables=variables):
        yield platform


async def answered(room: Room, store: Store, *texts: str) -> None:
    """Wait until these are the answers in a room, and nothing is under way."""
    await until(lambda: room.answers() == list(texts), why=room.answers)
    await until_open(store, 0)


async def until_remembered(store: Store, *questions: str) -> None:
    async with asyncio.timeout(60):
        while [one.question for one in await remembered(store)] != list(questions):
            await asyncio.sleep(0.01)


@PLATFORMS
async def test_model_and_persona_hold_for_a_thread_and_settings_show_them(
    kind: type[Platform], own_store: Store, model: ModelEmulator
) -> None:
    model.models = ("small", "large")
    async with running(kind, own_store, model, MODELS="small,Big=large") as platform:
        room, other = Room(platform), Room(platform)
        await room.begin()
        await room.call("one")
        await answered(room, own_store, "one")

        told = [
            await room.command("model", name="large"),
            await room.command("persona", text="Speak like a pirate."),
        ]
        await room.call("two")
        await answered(room, own_store, "one", "two")
        by, persona = model.requests[-1].body["model"], system(model)
        settings = await room.command("settings")
        await other.begin()
        await other.call("three")
        await answered(other, own_store, "three")

        assert told == [
            "From now on Big answers in this thread.",
            "From now on I answer so in this thread.",
        ]
        assert (by, "Speak like a pirate." in persona) == ("large", True)
        assert "Big" in settings
        assert "Speak like a pirate." in settings
        assert model.requests[-1].body["model"] == "small"
        assert "pirate" not in system(model)


@PLATFORMS
async def test_quiet_and_follow_say_what_is_answered_in_a_thread(
    kind: type[Platform], own_store: Store, model: ModelEmulator
) -> None:
    async with running(kind, own_store, model) as platform:
        room = Room(platform)
        await room.begin()
        await room.call("one")
        await answered(room, own_store, "one")

        await room.command("quiet")
        await room.say("unanswered")
        await room.call("two")
        await answered(room, own_store, "one", "two")
        await room.command("follow")
        await room.say("three", person="Bob")
        await until(lambda: len(room.answers()) == 3)
        await room.say("four")
        await until(lambda: len(room.answers()) == 4)

        await until_open(own_store, 0)
        questions = [one.question for one in await remembered(own_store)]
        assert questions == ["one", "two", "three", "four"]


@PLATFORMS
async def test_reset_stop_usage_and_help_in_a_thread(
    kind: type[Platform], own_store: Store, model: ModelEmulator
) -> None:
    async with running(kind, own_store, model, QUESTIONS_PER_DAY="9") as platform:
        room = Room(platform)
        await room.begin()
        await room.call("one")
        await answered(room, own_store, "one")

        usage, helps = await room.command("usage"), await room.command("help")
        refused = await room.command("reset", person="Bob")
        kept = await remembered(own_store)
        reset = await room.command("reset")
        gone = await remembered(own_store)
        speak_slowly(model, seconds=60)
        await room.call("two")
        await until(lambda: len(room.answers()) == 2)
        idle = await room.command("stop", person="Bob")
        stop = await room.command("stop")
        await until(lambda: room.answers()[1].endswith(STOPPED))

        assert "Questions of today: 1 of 9" in usage
        assert all(name in helps for name in COMMANDS)
        assert "began this conversation" in refused
        assert "I have forgotten this conversation." in reset
        assert (len(kept), gone) == (1, [])
        assert asked(model) == ["two"]
        assert (idle, stop) == ("No answer of yours is running here.", "I stop.")


@PLATFORMS
async def test_forget_me_takes_a_person_out_of_every_later_prompt(
    kind: type[Platform], own_store: Store, model: ModelEmulator
) -> None:
    async with running(kind, own_store, model, THREAD_CONTEXT="0") as platform:
        room = Room(platform)
        await room.begin()
        await room.call("secret")
        await answered(room, own_store, "secret")
        await room.call("his", person="Bob")
        await answered(room, own_store, "secret", "his")

        question = await room.command("forget-me")
        await room.press("forget")
        await until_remembered(own_store, "his")
        await room.call("now", person="Bob")
        await until(lambda: len(model.requests) == 3)

        assert question == FORGET_QUESTION
        assert asked(model) == ["his", "now"]


@PLATFORMS
async def test_the_menu_of_a_message_asks_about_it_and_summarises(
    kind: type[Platform], own_store: Store, model: ModelEmulator
) -> None:
    async with running(kind, own_store, model) as platform:
        ann, bob, place = platform.user("Ann"), platform.user("Bob"), platform.channel_id
        await platform.say(place, bob, "Unread.")
        about = await platform.say(place, bob, "We deploy.")
        await platform.say(place, ann, "On Monday.")
        start = await platform.say(place, bob, "Who comes?")
        await platform.say(place, ann, "I do.")

        if isinstance(platform, DiscordEmulator):
            opened = await platform.choose(about, ann, "Ask about this")
            await until(lambda: platform.modal(opened))
            await platform.submit(opened, question="When?")
        else:
            await platform.choose(place, about, ann, ASK_ABOUT_ID)
            await platform.submit(ann, question="When?")
        await until(lambda: model.requests)
        await until_open(own_store, 0)
        question = asked(model)
        if isinstance(platform, DiscordEmulator):
            await platform.choose(start, ann, "Summarise from here")
        else:
            await platform.choose(place, start, ann, SUMMARISE_ID)
        await until(lambda: len(model.requests) == 2)
        await until_open(own_store, 0)

        # In Slack nobody waits for long for a name.
        question, summary = (
            [one.replace(bob, "Bob").replace(ann, "Ann") for one in texts]
            for texts in (question, asked(model))
        )
        assert question == [f"{BEGIN}\n| In reply to Bob: We deploy.\n{END}\nAnn: When?"]
        assert SUMMARY_QUESTION in summary[-1]
        assert "Bob: Who comes?" in summary[-1]
        assert "Ann: I do." in summary[-1]
        assert "On Monday." not in str(summary)
