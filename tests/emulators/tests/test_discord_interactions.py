"""The emulated Discord's commands and buttons, through the real discord.py."""

from __future__ import annotations

import asyncio

import pytest

from tests.emulators.discord import DiscordEmulator
from tests.support.discord_bot import ask_and_defer, bot_of, http_of, raises, register, stop_button


async def test_a_command_is_deferred_and_streams_into_its_original() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        thinking = emulator.original(str(interaction.id))
        await interaction.edit_original_response(content="one")
        await interaction.edit_original_response(content="one two")
        await interaction.followup.send("three")

    assert emulator.commands[0]["name"] == "ask"
    assert interaction.data == {
        "id": emulator.commands[0]["id"],
        "name": "ask",
        "type": 1,
        "options": [{"name": "prompt", "type": 3, "value": "why"}],
    }
    assert thinking is not None
    assert thinking.text == ""
    original = emulator.original(str(interaction.id))
    assert original is not None
    assert emulator.states(original.id) == ["one", "one two"]
    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one two", "three"]


async def test_the_first_follow_up_takes_the_place_of_thinking() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        await interaction.followup.send("one")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]


async def test_a_command_waits_until_it_is_registered() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        used = asyncio.create_task(emulator.slash(emulator.dm(ann), ann, "ask", prompt="why"))
        await register(bot)
        interaction = await bot.next_interaction()

    assert await used == str(interaction.id)
    assert interaction.guild is None
    assert str(interaction.user.id) == ann


async def test_a_command_takes_only_its_options() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        await register(bot)
        with pytest.raises(AssertionError, match="prompt"):
            await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", question="why")


async def test_an_interaction_is_answered_once() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        answered = f"interactions/{interaction.id}/{interaction.token}/callback"
        async with http_of(emulator) as http, http.post(answered, json={"type": 5}) as again:
            error = await again.json()

    assert (again.status, error["code"]) == (400, 40060)


async def test_an_interaction_is_answered_in_time_or_never() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        emulator.clock.advance(3.1)
        with raises(10062):
            await interaction.response.defer(thinking=True)


@pytest.mark.parametrize("asked", [True, False])
async def test_an_answer_is_shown_to_the_bot_where_it_asks(asked: bool) -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        path = f"interactions/{interaction.id}/{interaction.token}/callback"
        query = {"with_response": "true"} if asked else {}
        answer = await http.post(path, params=query, json={"type": 4, "data": {"content": "x"}})
        seen = await answer.json() if asked else {}

    original = emulator.original(str(interaction.id))
    assert original is not None
    assert answer.status == (200 if asked else 204)
    if asked:
        assert seen["interaction"]["response_message_id"] == original.id
        assert seen["resource"]["message"]["content"] == "x"


async def test_a_deferred_answer_is_told_to_be_loading() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        response = await interaction.response.defer(thinking=True)

    assert response is not None
    assert response.is_thinking()
    original = emulator.original(str(interaction.id))
    assert original is not None
    assert str(response.message_id) == original.id


async def test_an_unanswered_interaction_has_no_webhook() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        with raises(10015):
            await interaction.edit_original_response(content="one")

    assert emulator.original(str(interaction.id)) is None


async def test_the_token_of_an_interaction_dies() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        emulator.clock.advance(899)
        await interaction.edit_original_response(content="one")
        emulator.clock.advance(1)
        with raises(50027) as refused:
            await interaction.edit_original_response(content="two")

    assert refused.value.status == 401
    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]


async def test_both_lives_of_an_interaction_can_be_set() -> None:
    emulator = DiscordEmulator(callback_seconds=10.0, token_seconds=20.0)
    async with emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        emulator.clock.advance(9)
        await interaction.response.defer(thinking=True)
        emulator.clock.advance(11)
        with raises(50027):
            await interaction.edit_original_response(content="two")


async def test_an_answer_calls_only_users_by_default() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        await interaction.edit_original_response(content="@everyone <@&8> <@7>")

    assert emulator.pings == ["<@7>"]
    assert emulator.unguarded == ["@everyone <@&8> <@7>"]


async def test_an_ephemeral_answer_is_nothing_for_the_channel() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        await interaction.response.send_message("psst", ephemeral=True)
        original = emulator.original(str(interaction.id))
        assert original is not None
        with raises(10008):
            await bot.place(emulator.channel_id).fetch_message(int(original.id))

    assert original.ephemeral
    assert "MESSAGE_CREATE" not in bot.heard


async def test_a_button_is_answered_in_its_message() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        message = await bot.place(emulator.channel_id).send("one", view=stop_button())
        await emulator.click(str(message.id), ann, "stop")
        interaction = await bot.next_interaction()
        await interaction.response.edit_message(content="one, stopped", view=None)

        with pytest.raises(AssertionError, match="only the buttons"):
            await emulator.click(str(message.id), ann, "stop")

    assert interaction.message is not None
    assert interaction.message.id == message.id
    assert emulator.screen(emulator.channel_id)[0].text == "one, stopped"


async def test_a_button_is_answered_silently() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        message = await bot.place(emulator.channel_id).send("one", view=stop_button())
        await emulator.click(str(message.id), emulator.user("ann"), "stop")
        interaction = await bot.next_interaction()
        await interaction.response.defer()
        await interaction.edit_original_response(content="two")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["two"]


async def test_a_command_has_no_message_to_update() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        path = f"interactions/{interaction.id}/{interaction.token}/callback"
        async with http_of(emulator) as http, http.post(path, json={"type": 6}) as answer:
            error = await answer.json()

    assert error["code"] == 50035
