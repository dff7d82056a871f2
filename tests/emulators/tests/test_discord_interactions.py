"""The emulated Discord's commands, menus, forms and buttons, through the real discord.py."""

from __future__ import annotations

import asyncio
from typing import Any

import discord
import pytest
from discord import app_commands

from tests.emulators.discord import DiscordEmulator
from tests.support.discord_bot import (
    BLIND,
    DiscordBot,
    ask_and_defer,
    bot_of,
    http_of,
    raises,
    register,
    stop_button,
)
from tests.support.waiting import until


class Details(discord.ui.Modal, title="Details"):
    """A form of a text and a choice."""

    text: discord.ui.Label[discord.ui.Modal] = discord.ui.Label(
        text="Text", component=discord.ui.TextInput(custom_id="text", default="as it was")
    )
    kind: discord.ui.Label[discord.ui.Modal] = discord.ui.Label(
        text="Kind",
        component=discord.ui.Select(
            custom_id="kind",
            options=[
                discord.SelectOption(label="A", value="a", default=True),
                discord.SelectOption(label="B", value="b"),
            ],
        ),
    )


@app_commands.allowed_installs(guilds=True, users=True)
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=True)
class Box(app_commands.Group):
    """A group of one command."""

    @app_commands.command()
    async def put(
        self,
        interaction: discord.Interaction,
        thing: str,
        loud: bool = False,
        file: discord.Attachment | None = None,
    ) -> None:
        """Put something in."""
        kind = file.content_type if file else None
        await interaction.response.send_message(f"{thing} {loud} {kind}")


async def open_details(interaction: discord.Interaction) -> None:
    await interaction.response.send_modal(Details())


async def quote(interaction: discord.Interaction, message: discord.Message) -> None:
    await interaction.response.send_message(f"> {message.content}", ephemeral=True)


async def registered(bot: DiscordBot) -> None:
    bot.tree.add_command(Box(name="box", description="A box"))
    bot.tree.add_command(app_commands.ContextMenu(name="Quote", callback=quote))
    bot.tree.command(name="details", description="A form")(open_details)
    await bot.tree.sync()


async def asked(emulator: DiscordEmulator, bot: DiscordBot) -> discord.Interaction[DiscordBot]:
    """Return an interaction of /ask that nobody answered yet."""
    await register(bot)
    await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
    return await bot.next_interaction()


async def test_a_command_is_deferred_and_streams_into_its_original() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await asked(emulator, bot)
        response = await interaction.response.defer(thinking=True)
        thinking = emulator.original(str(interaction.id))
        await interaction.edit_original_response(content="one")
        await interaction.edit_original_response(content="one two @everyone <@&8> <@7>")
        await interaction.followup.send("three")

    assert interaction.data == {
        "id": emulator.commands[0]["id"],
        "name": "ask",
        "type": 1,
        "options": [{"name": "prompt", "type": 3, "value": "why"}],
    }
    assert thinking is not None
    assert response is not None
    assert (thinking.text, thinking.id) == ("", str(response.message_id))
    assert response.is_thinking()
    texts = ["one", "one two @everyone <@&8> <@7>"]
    assert emulator.states(thinking.id) == texts
    assert [one.text for one in emulator.screen(emulator.channel_id)] == [texts[1], "three"]
    # By default an answer calls only users.
    assert emulator.pings == ["<@7>"]


async def test_the_first_follow_up_takes_the_place_of_thinking() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        await interaction.followup.send("one")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]


@pytest.mark.parametrize("wants", [True, False])
async def test_an_answer_is_shown_to_the_bot_where_it_asks(*, wants: bool) -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        interaction = await asked(emulator, bot)
        path = f"interactions/{interaction.id}/{interaction.token}/callback"
        query = {"with_response": "true"} if wants else {}
        answer = await http.post(path, params=query, json={"type": 4, "data": {"content": "x"}})
        seen = await answer.json() if wants else {}

    original = emulator.original(str(interaction.id))
    assert original is not None
    assert answer.status == (200 if wants else 204)
    if wants:
        assert seen["interaction"]["response_message_id"] == original.id
        assert seen["resource"]["message"]["content"] == "x"


@pytest.mark.parametrize(
    ("callback_seconds", "token_seconds"), [(3.0, 900.0), (10.0, 20.0)], ids=["own", "set"]
)
async def test_an_interaction_is_answered_in_time_and_its_token_dies(
    callback_seconds: float, token_seconds: float
) -> None:
    seconds = {"callback_seconds": callback_seconds, "token_seconds": token_seconds}
    async with DiscordEmulator(**seconds) as emulator, bot_of(emulator, listens=True) as bot:  # type: ignore[arg-type]
        late = await asked(emulator, bot)
        with raises(10015):
            await late.edit_original_response(content="nothing stands there")
        emulator.clock.advance(callback_seconds + 0.1)
        with raises(10062):
            await late.response.defer(thinking=True)

        interaction = await ask_and_defer(emulator, bot)
        emulator.clock.advance(token_seconds - 1)
        await interaction.edit_original_response(content="one")
        emulator.clock.advance(1)
        with raises(50027) as refused:
            await interaction.edit_original_response(content="two")

    assert refused.value.status == 401
    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]


async def test_an_ephemeral_answer_is_nothing_for_the_channel() -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        interaction = await asked(emulator, bot)
        await interaction.response.send_message("psst", ephemeral=True)
        path = f"webhooks/{emulator.application_id}/{interaction.token}"
        await http.post(path, json={"content": "psst again", "flags": 64})
        original = emulator.original(str(interaction.id))
        assert original is not None
        with raises(10008):
            await bot.place(emulator.channel_id).fetch_message(int(original.id))
        listed = [one async for one in bot.place(emulator.channel_id).history()]

    assert [one.ephemeral for one in emulator.screen(emulator.channel_id)] == [True, True]
    assert listed == []
    assert "MESSAGE_CREATE" not in bot.heard


@pytest.mark.parametrize("silent", [True, False])
async def test_a_button_is_answered_in_its_message_or_silently(*, silent: bool) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        message = await bot.place(emulator.channel_id).send("one", view=stop_button())
        await emulator.click(str(message.id), ann, "stop")
        interaction = await bot.next_interaction()
        if silent:
            await interaction.response.defer()
            await interaction.edit_original_response(content="two", view=None)
        else:
            await interaction.response.edit_message(content="two", view=None)

        with pytest.raises(AssertionError, match="only the buttons"):
            await emulator.click(str(message.id), ann, "stop")

    assert interaction.message is not None
    assert interaction.message.id == message.id
    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["two"]


async def test_a_disabled_button_cannot_be_pressed() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        view = stop_button()
        view.children[0].disabled = True  # type: ignore[attr-defined]
        message = await bot.place(emulator.channel_id).send("one", view=view)

        with pytest.raises(AssertionError, match="only the buttons"):
            await emulator.click(str(message.id), emulator.user("ann"), "stop")


async def test_a_command_has_no_message_to_update_and_a_form_opens_no_form() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await asked(emulator, bot)
        path = f"interactions/{interaction.id}/{interaction.token}/callback"
        async with http_of(emulator) as http, http.post(path, json={"type": 6}) as answer:
            error = await answer.json()
        await registered(bot)
        used = await emulator.slash(emulator.channel_id, emulator.user("ann"), "details")
        await bot.next_interaction()
        await until(lambda: emulator.modal(used))
        await emulator.submit(used)
        interaction = await bot.next_interaction()
        with raises(50035):
            await interaction.response.send_modal(Details())

    assert error["code"] == 50035


async def test_a_subcommand_gets_its_options_with_their_types() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        ann, channel = emulator.user("ann"), emulator.channel_id

        used = await emulator.slash(
            channel, ann, "box put", thing="ball", loud=True, file="cat.png"
        )
        await until(lambda: (shown := emulator.original(used)) and shown.text)

        shown = emulator.original(used)
        assert shown
        assert shown.text == "ball True image/png"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("box", {}),
        ("box take", {}),
        ("box put", {}),
        ("box put", {"thing": "ball", "loud": "yes"}),
        ("box put", {"thing": "ball", "big": "yes"}),
        ("details now", {}),
    ],
)
async def test_a_command_is_used_only_as_it_is_defined(name: str, options: dict[str, str]) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)

        with pytest.raises(AssertionError):
            await emulator.slash(emulator.channel_id, emulator.user("ann"), name, **options)


async def test_a_menu_hands_over_the_whole_message_even_if_the_bot_may_not_read() -> None:
    async with (
        DiscordEmulator(message_content=False) as emulator,
        bot_of(emulator, intents=BLIND, listens=True) as bot,
    ):
        await registered(bot)
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "one")

        chosen = await emulator.choose(said, emulator.user("ben"), "Quote")
        await until(lambda: emulator.original(chosen))

        shown = emulator.original(chosen)
        assert shown
        assert (shown.text, shown.ephemeral) == ("> one", True)


async def test_a_form_takes_only_what_it_offers_and_is_sent_whole() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        used = await emulator.slash(emulator.channel_id, emulator.user("ann"), "details")
        await bot.next_interaction()
        await until(lambda: emulator.modal(used))

        for wrong, why in (("kind", "offers"), ("text", "filled in"), ("size", "only")):
            with pytest.raises(AssertionError, match=why):
                await emulator.submit(used, **{wrong: "" if wrong == "text" else "c"})
        await emulator.submit(used, kind="b")
        data: Any = (await bot.next_interaction()).data

        texts, kinds = (one["component"] for one in data["components"])
        assert (texts["value"], kinds["values"]) == ("as it was", ["b"])
        assert emulator.modal(used) is None


@pytest.mark.parametrize("kind", [0, 1, 3])
async def test_a_person_takes_a_bot_where_it_is_no_member(kind: int) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        people = [emulator.user("ann"), emulator.user("ben")]
        place = emulator.elsewhere(kind, *people[: 2 if kind else 0])  # type: ignore[arg-type]
        await emulator.slash(place, people[0], "box put", thing="ball")
        interaction = await bot.next_interaction()
        await until(interaction.response.is_done)

        assert interaction.is_user_integration()
        assert interaction.context.private_channel is (kind != 0)
        with raises(50001):
            await bot.place(place).send("hello")
        path = f"webhooks/{emulator.application_id}/{interaction.token}"
        async with http_of(emulator) as http:
            statuses = []
            for number in range(6):
                emulator.clock.advance(5)
                answer = await http.post(path, json={"content": str(number)})
                statuses.append(answer.status)

        assert statuses == [200] * 5 + [400]


async def test_a_command_is_not_offered_where_it_is_not_for() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        ann = emulator.user("ann")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await emulator.slash(emulator.elsewhere(3, ann), ann, "ask", prompt="why")
