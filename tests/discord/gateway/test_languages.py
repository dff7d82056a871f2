"""People read the bot in Discord in their own language, and else in that of their server."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from bot.languages import say
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.support.discord_platform import listening
from tests.support.fakes import FakeQueue
from tests.support.process import discord_variables
from tests.support.service import serving
from tests.support.waiting import until

ASKS = "Ask me something: write your question after my name."


@pytest.mark.parametrize(
    ("locale", "guild_locale", "language"),
    [("de", "en-US", "de"), ("es-ES", "ja", "es"), ("pt-BR", "fr", "fr"), ("pt-BR", "tr", "en")],
)
async def test_a_command_is_answered_in_the_language_of_the_person_or_of_the_server(
    locale: str, guild_locale: str, language: str
) -> None:
    async with (
        DiscordEmulator(guild_locale=guild_locale) as emulator,
        listening(emulator, FakeQueue()),
    ):
        ada = emulator.user("Ada", locale=locale)
        asked = await emulator.slash(emulator.channel_id, ada, "ask", question="\u200b")
        await until(lambda: emulator.original(asked))
        shown = emulator.original(asked)

    assert shown
    assert shown.text == say(ASKS, language=language)


async def test_a_message_is_answered_in_the_language_of_the_server() -> None:
    async with (
        DiscordEmulator(guild_locale="de") as emulator,
        listening(emulator, FakeQueue()),
    ):
        ada, bob = emulator.user("Ada"), emulator.user("Bob", locale="ja")
        mention = f"<@{emulator.bot_id}>"
        await emulator.say(emulator.channel_id, ada, mention)
        await until(lambda: len(emulator.screen(emulator.channel_id)) == 2)
        # A command tells the language of its person, also for what they write afterwards.
        asked = await emulator.slash(emulator.channel_id, bob, "ask", question="\u200b")
        await until(lambda: emulator.original(asked))
        await emulator.say(emulator.channel_id, bob, mention)
        await until(lambda: say(ASKS, language="ja") in texts(emulator))

        assert texts(emulator).count(say(ASKS, language="de")) == 1


def texts(emulator: DiscordEmulator) -> list[str]:
    return [one.text for one in emulator.screen(emulator.channel_id) if not one.ephemeral]


async def test_a_reply_and_its_buttons_are_in_the_language_of_its_person(
    own_store: Store, model: ModelEmulator
) -> None:
    async with AsyncExitStack() as stack:
        discord = await stack.enter_async_context(DiscordEmulator(guild_locale="de"))
        variables = discord_variables(discord, model) | {"DISCORD_THREADS": "off"}
        service = await stack.enter_async_context(serving(own_store, variables=variables))
        await until(discord.connected.is_set, why=service.text)
        ada, channel = discord.user("Ada"), discord.channel_id
        model.fail_as("bad request")
        await discord.say(channel, ada, f"<@{discord.bot_id}> why?")

        def reply() -> tuple[str, tuple[str, ...]]:
            last = discord.screen(channel)[-1]
            return last.text, last.labels

        refused = "The language model does not accept this question. Please ask in other words."
        expected = say(refused, language="de"), (say("Retry", language="de"),)
        await until(lambda: reply() == expected, why=service.text)


async def test_descriptions_of_commands_are_in_all_languages_and_their_names_in_english() -> None:
    async with DiscordEmulator() as emulator, listening(emulator, FakeQueue()):
        await until(lambda: emulator.commands)
        found = {one["name"]: one for one in emulator.commands}

    described = found["ask"]["description_localizations"]
    assert described == {
        locale: say("Ask me something", language=locale[:2])
        for locale in ("de", "fr", "es-ES", "es-419", "ja")
    }
    assert "name_localizations" not in found["parley"]
    assert found["Ask about this"]["name_localizations"] == {
        locale: say("Ask about this", language=locale[:2])
        for locale in ("de", "fr", "es-ES", "es-419", "ja")
    }
