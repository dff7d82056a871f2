"""The commands on both platforms, and what they change for the answers that follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from adapters.slack.manifest import ASK_ABOUT_ID, SUMMARISE_ID
from bot.commands.handlers import COMMANDS, FORGET_QUESTION, SUMMARY_QUESTION
from bot.reply.draft import STOPPED
from bot.store import Store
from bot.text.context import BEGIN, END, INSTRUCTIONS
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import ANSWER, remembered, speak_slowly
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
from tests.support.stored import stored
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
            "From now on I use this persona in this thread.",
        ]
        assert (by, "Speak like a pirate." in persona) == ("large", True)
        assert "Big" in settings
        assert "Speak like a pirate." in settings
        assert model.requests[-1].body["model"] == "small"
        assert "pirate" not in system(model)


@PLATFORMS
async def test_personas_have_names_and_what_a_person_wants_holds_for_them_alone(
    kind: type[Platform], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    (tmp_path / "Pirate.md").write_text("Speak like a pirate.")
    (tmp_path / "Poet.md").write_text("Speak in rhymes.")
    async with running(kind, own_store, model, PERSONAS=str(tmp_path)) as platform:
        room = Room(platform)
        await room.begin()
        told = [
            await room.command("me", text="I am new here."),
            await room.command("me"),
        ]
        await room.call("one")
        await answered(room, own_store, "one")
        anns = system(model)
        told += [
            await room.command("persona", text="Pirat"),
            await room.command("persona", text="pirate"),
            await room.command("me", person="Bob"),
        ]
        await room.call("two", person="Bob")
        await answered(room, own_store, "one", "two")
        bobs = system(model)
        told.append(await room.command("me", text="clear"))
        await room.call("three")
        await answered(room, own_store, "one", "two", "three")

        assert told[0] == (
            "From now on I keep this in mind in all my answers to you, and to nobody else."
        )
        assert told[1].startswith("In all my answers to you I keep in mind:\nI am new here.\n")
        assert told[2].startswith("There is no persona of that name. You can choose Pirate, Poet,")
        assert told[3] == "From now on I use the persona Pirate in this thread."
        assert told[4].startswith("You have told me nothing")
        assert told[5].startswith("I have forgotten")
        assert anns.endswith(f"{INSTRUCTIONS}\n> I am new here.")
        assert bobs.endswith("> Speak like a pirate.")
        assert system(model).endswith("> Speak like a pirate.")


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

        assert "Your questions today: 1 of 9" in usage
        assert all(name in helps for name in COMMANDS)
        assert "started this conversation" in refused
        assert "I have forgotten this conversation." in reset
        assert (len(kept), gone) == (1, [])
        assert asked(model) == ["two"]
        assert (idle, stop) == ("I am not answering you here right now.", "Stopped.")


async def left(store: Store, *words: str) -> list[str]:
    """Return the keys that have one of these words."""
    return [one.name for one in await stored(store) if any(word in one for word in words)]


async def until_nothing_is_left(store: Store, *words: str) -> None:
    async with asyncio.timeout(60):
        while await left(store, *words):
            await asyncio.sleep(0.01)


@PLATFORMS
async def test_a_reset_leaves_no_word_of_a_thread_and_no_button(
    kind: type[Platform], own_store: Store, model: ModelEmulator
) -> None:
    words = "zebra", "walrus", "penguin", ANSWER[:20]
    async with running(kind, own_store, model, LEASE_SECONDS="1") as platform:
        room = Room(platform)
        await room.begin()
        await room.say("zebra", person="Bob")
        await room.call("walrus penguin")
        await answered(room, own_store, "penguin")
        speak_slowly(model, seconds=60)
        await room.call("zebra")
        await until(lambda: len(room.answers()) == 2)
        kept = await left(own_store, *words)

        await room.command("reset")
        await until(lambda: room.answers()[1].endswith(STOPPED))
        await until(lambda: room.labels() == [(), ()], why=room.labels)
        await until_nothing_is_left(own_store, *words)
        model.answer = last_word
        await room.call("owl")
        await until(lambda: len(room.answers()) == 3)
        await until_open(own_store, 0)

        assert len(kept) > 2
        assert room.answers()[0] == "penguin"
        assert asked(model) == ["owl"]
        assert await left(own_store, *words) == []


async def test_a_thread_that_is_named_by_a_question_is_not_named_in_prompts(
    own_store: Store, model: ModelEmulator
) -> None:
    async with running(DiscordEmulator, own_store, model) as discord:
        assert isinstance(discord, DiscordEmulator)
        ann, bob = discord.user("Ann"), discord.user("Bob")
        thread = await discord.say(discord.channel_id, ann, f"{discord.bot_mention} walrus")
        await until(lambda: discord.thread_of(thread) and discord.screen(thread))
        await discord.say(thread, bob, f"{discord.bot_mention} owl")
        await until(lambda: len(model.requests) == 2)
        await until_open(own_store, 0)
        place = system(model)
        asking = await discord.slash(thread, ann, "parley forget-me")
        await until(lambda: discord.original(asking))
        question = discord.original(asking)
        assert question
        await discord.click(question.id, ann, question.buttons[0])
        await until_nothing_is_left(own_store, "walrus")

        await discord.say(thread, bob, f"{discord.bot_mention} hen")
        await until(lambda: len(model.requests) == 3)

        assert "#general" in place
        assert "walrus" not in place
        assert all("walrus" not in str(one) for one in model.requests[-1].messages)
        assert await left(own_store, "walrus") == []


async def test_who_manages_messages_in_slack_ends_an_answer_of_another(
    own_store: Store, model: ModelEmulator
) -> None:
    async with SlackEmulator() as slack, served(slack, own_store, model):
        room = Room(slack)
        speak_slowly(model, seconds=60)
        slack.set_role(room.people["Bob"], "admin")
        await room.begin()

        def shows(number: int) -> bool:
            return len(room.answers()) == number

        for number, word in enumerate(("stop", "/parley stop"), 1):
            await room.call("Count.")
            await until(partial(shows, number))
            await room.call(word, person="Bob")
            await until(lambda: room.answers()[-1].endswith(STOPPED))
            await until_open(own_store, 0)
        assert len(model.requests) == 2


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
